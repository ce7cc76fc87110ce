"""A port that nobody uses, for a group of processes; used by killing.py and ranks.py."""

import socket


def free_port() -> int:
    """Chosen by the system: two tests at a time never have the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
