"""A run that is killed and resumed ends with the weights of a run that was not, to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

KILLING = Path(__file__).with_name("killing.py")
EVERYTHING_RANDOM = (
    *("--mixup", "0.4", "--reprob", "0.3", "--drop", "0.1", "--drop-path", "0.1"),
    *("--model-ema", "--model-ema-decay", "0.9", "--grad-accum-steps", "2"),
    *("--vcr-alpha", "1", "--vcr-beta", "1", "--vcr-rows", "100"),
    *("--recovery-interval", "1", "--checkpoint-hist", "2"),
)


def killed(folder: Path, argv: list[str], *, kills: int, ranks=1, broken=False, updates=2) -> dict:
    """Run `argv` to its end, more than once if need be, through kills in processes of its own."""
    order = {
        **{"folder": str(folder), "argv": argv, "ranks": ranks, "kills": kills},
        **{"broken": broken, "seed": 1, "updates": updates},
    }
    done = subprocess.run(
        [sys.executable, str(KILLING), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def differing(one: Path, other: Path) -> list[str]:
    """Names of weights that are not equal to the bit."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return [name for name in a if not a[name].equal(b[name])]


@pytest.mark.parametrize(
    "kills, workers, ranks",
    [
        (20, 0, 1),
        (5, 2, 2),
        *(pytest.param(20, *more, marks=pytest.mark.slow) for more in ((2, 1), (0, 2), (2, 2))),
    ],
)
def test_kills_change_no_bit(small, tmp_path, kills, workers, ranks):
    """SIGKILL within steps, within saves and between epochs leaves a run that goes on exactly."""
    options = (*EVERYTHING_RANDOM, "--workers", str(workers), "--batch-size", str(8 // ranks))

    killed(tmp_path / "whole", small(*options, experiment="whole"), ranks=ranks, kills=0)
    argv = small(*options, experiment="killed")
    spread = 40 // kills  # updates between kills, so that they fall on all epochs
    report = killed(tmp_path / "killed", argv, ranks=ranks, kills=kills, updates=spread)

    assert report["kills"] >= kills and report["within_an_epoch"] and len(report["epochs"]) > 1
    for end in map(Path, report["ends"]):
        assert differing(end, tmp_path / "whole") == []
        assert (end / "summary.csv").read_text() == (tmp_path / "whole/summary.csv").read_text()


def test_without_the_position_the_same_kills_change_the_weights(small, tmp_path):
    """The comparison above can fail: it does when what it protects is taken away."""
    options = (*EVERYTHING_RANDOM,)

    argv = small(*options, experiment="broken")
    report = killed(tmp_path / "broken", argv, kills=4, broken=True, updates=8)
    killed(tmp_path / "whole", small(*options, experiment="whole"), kills=0)

    assert report["within_an_epoch"]
    assert any(differing(Path(end), tmp_path / "whole") for end in report["ends"])
