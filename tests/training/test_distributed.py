"""What several processes do together is what one would do, and they end together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import draw_pictures

RANKS = Path(__file__).with_name("ranks.py")


def on_ranks(task: str, argv: list[str], ranks: int, out: Path = Path(), **more):
    order = {"task": task, "argv": argv, "ranks": ranks, "out": str(out), **more}
    return subprocess.run(
        [sys.executable, str(RANKS), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def many_pictures(tmp_path_factory) -> Path:
    """150 training pictures: two batches of 64 and one of 22."""
    return draw_pictures(tmp_path_factory.mktemp("many"), classes=3, each=50, size=16)


@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_synchronized_ranks_have_the_gradient_of_one_process(many_pictures, tmp_path, accumulated):
    """1 x 64, 2 x 32, 4 x 16 agree to 1e-9, augmented, regularized inside, with a short last
    batch."""
    found = {}
    for ranks in (1, 2, 4):
        argv = [
            *(str(many_pictures), "--model", "test_convnext", "--input-size", "3", "32", "32"),
            *("--num-classes", "3", "--batch-size", str(64 // ranks), "--workers", "0"),
            *("--device", "cpu", "--keep-last", "--grad-accum-steps", str(accumulated)),
            *("--vcr-alpha", "1", "--vcr-beta", "10", "--vcr-layers", "blocks", "--vcr-sync"),
            *("--lr", "0.01", "--val-split", ""),
        ]
        out = tmp_path / f"{ranks}.pt"
        done = on_ranks("gradients", argv, ranks, out)
        assert json.loads(done.stdout.splitlines()[-1])["codes"] == [0] * ranks, done.stderr
        found[ranks] = torch.load(out)
    assert len(found[1]) == -(-3 // accumulated)
    for ranks in (2, 4):
        for one, several in zip(found[1], found[ranks], strict=True):
            assert (one - several).norm() < 1e-9 * one.norm()


def test_when_a_rank_dies_the_others_say_which(small):
    """Nobody waits forever for a process that is gone."""
    argv = small("--epochs", "200", "--val-interval", "50", "--vcr-alpha", "1")

    done = on_ranks("training", argv, 3, lose=2, after=4)

    report = json.loads(done.stdout.splitlines()[-1])
    assert report["codes"] == [1, 1, -9]
    assert report["seconds"] < 60
    assert "rank 0 stops: rank 2 stopped answering" in done.stderr, done.stderr
    assert "rank 1 stops: rank 2 stopped answering" in done.stderr, done.stderr
