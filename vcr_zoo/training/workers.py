"""Worker processes of loaders: that they come up, and that they do not end before their run."""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess

from torch.utils.data import DataLoader

log = logging.getLogger(__name__)

SOON = (20, 40, 80)  # seconds in which a forked worker comes up, the first time and again
GO = b"go"
PATIENCE = 60  # seconds that a worker gives its run to save
OVER = multiprocessing.RawValue("b", 0)  # whether the process that has workers is ending
atexit.register(lambda: setattr(OVER, "value", 1))  # before multiprocessing ends the workers


def tend(loader: DataLoader) -> None:
    """See to the workers that a loader is going to have."""
    loader.worker_init_fn = Patient(loader.worker_init_fn)
    if loader.num_workers and forks_may_hang():
        loader.multiprocessing_context = Forks()


def forks_may_hang() -> bool:
    """Whether a forked process can wait for ever, for a lock that a thread held at that moment.

    Threads of gloo's and of autograd's take such a lock as they enter Python. 3.12 is free of it,
    as are late releases of older Pythons (https://github.com/python/cpython/issues/112275), where
    to look costs nothing.
    """
    method = multiprocessing.get_start_method(allow_none=True) or "fork"
    return sys.platform == "linux" and method == "fork" and sys.version_info < (3, 12)


class Worker(ForkProcess):
    """A forked process, which is forked again if it does not come up."""

    @staticmethod
    def _Popen(process: "Worker"):
        for seconds in SOON:
            if (forked := process.forked(seconds)) is not None:
                return forked
            log.warning(f"A worker of a loader did not come up in {seconds} s: forking it again")
        raise RuntimeError("no worker of a loader comes up: train with --workers 0")

    def forked(self, seconds: float):
        """The process, once it has come up; None, and no process, if it does not.

        It waits for our word before it works: one that is killed holds nothing.
        """
        self.here, self.there = multiprocessing.Pipe()
        process = ForkProcess._Popen(self)
        self.there.close()
        came = False
        try:
            with self.here:
                if came := bool(wait([self.here], seconds)):
                    with suppress(OSError):  # it has ended, which the loader sees
                        self.here.send_bytes(GO)
        finally:
            if not came:
                process.kill()
                process.wait()
        return process if came else None

    def run(self) -> None:
        self.here.close()
        with self.there:
            self.there.send_bytes(GO)
            try:
                self.there.recv_bytes()
            except EOFError:  # whoever forked us has ended
                return
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
