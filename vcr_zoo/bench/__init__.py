"""Timings of the parts that promise speed, each beside what it is compared with."""
