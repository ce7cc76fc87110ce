"""Workers of loaders come up, whatever a fork met. How they end is seen in test_run.py."""

import ctypes
import multiprocessing
import sys
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vcr_zoo.training import workers

PICTURES = TensorDataset(torch.arange(12.0))


class Hanging(workers.Worker):
    """The first one waits for ever before it says that it is there."""

    count = multiprocessing.Value("i", 0)

    def run(self) -> None:
        with self.count:
            self.count.value += 1
            first = self.count.value == 1
        if first:
            time.sleep(1e6)
        super().run()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are not forked elsewhere")
def test_a_worker_that_does_not_come_up_is_forked_again(monkeypatch, caplog):
    monkeypatch.setattr(workers, "SOON", (5, 60))
    monkeypatch.setattr(workers.Forks, "Process", Hanging)
    how = {"multiprocessing_context": workers.Forks(), "timeout": 120}
    loader = DataLoader(PICTURES, batch_size=4, num_workers=2, **how)

    batches = [x.tolist() for (x,) in loader]

    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert Hanging.count.value == 3 and caplog.text.count("did not come up") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are not forked elsewhere")
def test_all_come_up_beside_threads_that_enter_python(monkeypatch):
    """The real thing: on Python 3.11.7 one fork in some three hundred hangs here (gh-112275)."""
    monkeypatch.setattr(workers, "SOON", (2, 10, 60))
    library, over = ctypes.CDLL(None), threading.Event()
    enters = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: None)

    def enter() -> None:
        while not over.is_set():
            threads = [ctypes.c_ulong() for _ in range(8)]
            for thread in threads:
                library.pthread_create(ctypes.byref(thread), None, enters, None)
            for thread in threads:
                library.pthread_join(thread, None)

    beside = threading.Thread(target=enter)
    beside.start()
    try:
        for _ in range(1000):
            worker = workers.Worker(target=int, daemon=True)
            worker.start()
            worker.join(60)
            assert worker.exitcode == 0
    finally:
        over.set()
        beside.join()


@pytest.mark.parametrize(
    "method, version, ours",
    [
        (None, (3, 11, 7), True),
        ("fork", (3, 10, 0), True),
        ("spawn", (3, 11, 7), False),
        (None, (3, 12, 0), False),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="workers are not forked elsewhere")
def test_forks_are_watched_where_python_can_hang(monkeypatch, method, version, ours):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: method)
    monkeypatch.setattr(workers.sys, "version_info", version)
    loader, none = (DataLoader(PICTURES, num_workers=count) for count in (1, 0))

    for each in (loader, none):
        workers.tend(each)

    assert isinstance(loader.multiprocessing_context, workers.Forks) == ours
    assert none.multiprocessing_context is None
