"""Workers of loaders come up, whatever a fork met. How they end is seen in test_run.py."""

import multiprocessing
import sys
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
