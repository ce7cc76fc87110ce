"""Before torch is imported: one thread, because two processes with two threads each crawl."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
