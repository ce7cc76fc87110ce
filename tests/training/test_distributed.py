"""What several processes do together is what one would do, and they end together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from vcr_zoo.training import parse, train
from vcr_zoo.training.distributed import start
from vcr_zoo.training.wiring import finish, wire

from .conftest import draw_pictures

RANKS = Path(__file__).with_name("ranks.py")


def on_ranks(*orders: dict) -> tuple[list[dict], str]:
    """What came of each order, one after the other, and everything that was said."""
    done = subprocess.run(
        [sys.executable, str(RANKS), json.dumps(orders)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_synchronized_ranks_have_the_gradient_of_one_process(tmp_path):
    """1 x 64, 2 x 32, 4 x 16 agree to 1e-9, augmented, regularized inside, accumulated, with a
    short last batch: 150 pictures are two batches of 64 and one of 22."""
    pictures = draw_pictures(tmp_path / "pictures", classes=3, each=50, size=16)
    orders = [
        {
            "task": "gradients",
            "ranks": ranks,
            "out": str(tmp_path / f"{ranks}-{accumulated}.pt"),
            "argv": [
                *(str(pictures), "--model", "test_convnext", "--input-size", "3", "32", "32"),
                *("--num-classes", "3", "--batch-size", str(64 // ranks), "--workers", "0"),
                *("--device", "cpu", "--keep-last", "--grad-accum-steps", str(accumulated)),
                *("--vcr-alpha", "1", "--vcr-beta", "10", "--vcr-layers", "blocks"),
                *("--vcr-sync", "--vcr-rows", "0", "--lr", "0.01", "--val-split", ""),
            ],
        }
        for accumulated in (1, 2, 3)
        for ranks in (1, 2, 4)
    ]

    reports, said = on_ranks(*orders)

    assert all(set(report["codes"]) == {0} for report in reports), said
    for accumulated in (1, 2, 3):
        one, two, four = (torch.load(tmp_path / f"{n}-{accumulated}.pt") for n in (1, 2, 4))
        assert len(one) == -(-3 // accumulated)
        for several in (two, four):
            for alone, together in zip(one, several, strict=True):
                assert (alone - together).norm() < 1e-9 * alone.norm()


def test_ranks_begin_with_the_same_weights(small):
    """DDP would make the model's equal, but not those of the EMA, which each rank validates."""
    found = []
    for rank in (0, 1):
        args = parse(small("--model-ema"))
        device = start(args)
        args.rank = rank
        parts = wire(args, device)
        finish(parts)
        ema = parts.task.get_trainable_module(ema=True)
        found.append(torch.cat([w.flatten() for w in ema.parameters()]))
    assert found[0].equal(found[1])


def test_ranks_that_would_begin_at_different_epochs_are_refused(small, tmp_path):
    """As where every machine has a disk of its own, of which one alone has the checkpoint."""
    argv = small("--epochs", "1", "--experiment", "run", "--output", str(tmp_path / "0"))
    train(parse(argv), progress=False)
    on = [*argv, "--epochs", "2", "--resume", "auto", "--output", str(tmp_path / "{rank}")]

    (report,), said = on_ranks({"task": "training", "argv": on, "out": "", "ranks": 2})

    assert report["codes"] == [1, 1]
    assert said.count("ValueError: the ranks found different checkpoints") == 2, said
    assert "(rank 0: epoch 0, batch 0; rank 1: none)" in said, said


def test_when_a_rank_dies_the_others_say_which(small):
    """Nobody waits forever for a process that is gone."""
    argv = small("--epochs", "200", "--val-interval", "50", "--vcr-alpha", "1")

    order = {"task": "training", "argv": argv, "out": "", "ranks": 3, "lose": 2, "after": 4}
    (report,), said = on_ranks(order)

    assert report["codes"] == [1, 1, -9]
    assert report["seconds"] < 60
    assert "rank 0 stops: rank 2 stopped answering" in said, said
    assert "rank 1 stops: rank 2 stopped answering" in said, said
