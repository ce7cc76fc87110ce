"""Worker processes of loaders: that they come up, and that they do not end before their run."""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess

from torch.utils.data import DataLoader

log = logging.getLogger(__name__)

SOON = 20  # seconds in which a forked worker comes up
PATIENCE = 60  # seconds that a worker gives its run to save
OVER = multiprocessing.RawValue("b", 0)  # whether the process that has workers is ending
atexit.register(lambda: setattr(OVER, "value", 1))  # before multiprocessing ends the workers


def tend(loader: DataLoader) -> None:
    """See to the workers that a loader is going to have."""
    loader.worker_init_fn = Patient(loader.worker_init_fn)
    if loader.num_workers and forks_may_hang():
        loader.multiprocessing_context = Forks()


def forks_may_hang() -> bool:
    """Whether a forked process can wait for a lock that a thread held as it was forked.

    Python before 3.12 (and 3.11.10) has one such lock, which threads of gloo's and of autograd's
    take as they enter Python (https://github.com/python/cpython/issues/112275).
    """
    method = multiprocessing.get_start_method(allow_none=True) or "fork"
    return sys.platform == "linux" and method == "fork" and sys.version_info < (3, 12)


class Worker(ForkProcess):
    """A forked process, which is forked again if it does not come up."""

    @staticmethod
    def _Popen(process: "Worker"):
        while True:
            here, process.there = multiprocessing.Pipe(duplex=False)
            forked = ForkProcess._Popen(process)
            process.there.close()
            with here:
                if wait([here], SOON):  # closed on the other side too
                    return forked
            log.warning("A worker of a loader did not come up: forking it again")
            forked.kill()
            forked.wait()

    def run(self) -> None:
        self.there.close()
        super().run()


class Forks(ForkContext):
    """Where a loader gets its workers."""

    Process = Worker


class Patient:
    """A worker's start. Told to stop together with the run, as torchrun, Slurm and `timeout` do, it
    gives the run that time to save, which would fail without its workers."""

    def __init__(self, begin: Callable[[int], None] | None):
        self.begin, self.over = begin, OVER

    def __call__(self, number: int) -> None:
        signal.signal(signal.SIGTERM, self.told)
        if self.begin is not None:
            self.begin(number)

    def told(self, *_) -> None:
        if self.over.value:
            os._exit(0)
        signal.alarm(PATIENCE)
