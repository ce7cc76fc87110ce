"""A user's own copy of timm's training script runs unchanged, with VCR switched on."""

import csv
import os
import sys
from pathlib import Path

import pytest
import torch

from vcr_zoo.training import main, timm_script

SCRIPT = Path(__file__).with_name("fake_timm_script.py")


def run(tmp_path, *vcr: str) -> dict:
    out = tmp_path / "out.pt"
    theirs = [str(out), "--model", "test_resnet", "--model-ema"]
    theirs += ["--output", str(tmp_path), "--experiment", "theirs"]
    assert main(["--timm-script", str(SCRIPT), *theirs, *vcr]) == 0
    return torch.load(out)


def test_the_script_trains_with_the_penalty_and_logs_its_terms(tmp_path):
    """Its own options reach it, ours do not, and the weights differ from those without VCR."""
    before = list(sys.argv), list(sys.path)
    plain = run(tmp_path)
    zero = run(tmp_path, "--vcr-alpha", "0", "--vcr-beta", "0")
    assert not (tmp_path / "theirs").exists()
    vcr = run(tmp_path, "--vcr-alpha", "1", "--vcr-beta", "1", "--vcr-layers", "pooled")

    assert all(plain["state_dict"][k].equal(zero["state_dict"][k]) for k in plain["state_dict"])
    assert vcr["state_dict"].keys() == plain["state_dict"].keys()
    assert vcr["loss"] > plain["loss"]
    rows = list(csv.DictReader((tmp_path / "theirs" / "vcr.csv").open()))
    assert [row["step"] for row in rows] == ["0", "50"]
    assert float(rows[0]["variance.fc.input"]) > 0
    assert before == (sys.argv, sys.path)


def test_a_resumed_script_goes_on_with_its_terms_and_rows(tmp_path):
    """Its checkpoint says how many steps there were; rows from later ones go."""
    vcr = ("--vcr-alpha", "1", "--vcr-layers", "pooled", "--vcr-rows", "4")
    run(tmp_path, *vcr)
    table = tmp_path / "theirs" / "vcr.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1].replace("0", "150", 1))

    run(tmp_path, *vcr, "--resume", str(tmp_path / "out.pt"))

    assert [row["step"] for row in csv.DictReader(table.open())] == ["0", "50", "100"]
    run(tmp_path, *vcr)
    assert [row["step"] for row in csv.DictReader(table.open())] == ["0", "50"]


def test_the_script_and_the_penalty_share_a_seed(tmp_path, monkeypatch):
    """Given as an option or in the script's YAML file; 42 as in timm's script else."""
    found = []
    regularized = timm_script.regularized

    def noting(task):
        kind = regularized(task)
        return type(kind.__name__, (kind,), {"__init__": note(kind)})

    def note(kind):
        def init(self, *args, vcr, **kwargs):
            found.append(vcr["seed"])
            kind.__init__(self, *args, vcr=vcr, **kwargs)

        return init

    monkeypatch.setattr(timm_script, "regularized", noting)
    (tmp_path / "own.yaml").write_text("seed: 5\nother: 1\n")
    for more in ((), ("--seed", "7")):
        run(tmp_path, *more)
    assert found == [42, 7]
    stated = timm_script.stated_to(["-c", str(tmp_path / "own.yaml"), "--output", "here"])
    assert (stated.seed, stated.output) == (5, "here")


def test_a_script_that_is_none_is_refused(tmp_path, capsys):
    assert main(["--timm-script", str(tmp_path / "absent.py")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "other.py").write_text("def main():\n    pass\n")
    assert main(["--timm-script", str(tmp_path / "other.py")]) == 2
    assert "uses none of timm's tasks" in capsys.readouterr().err


@pytest.mark.network
@pytest.mark.skipif("TIMM_TRAIN_SCRIPT" not in os.environ, reason="names no script of timm's")
def test_the_real_script_takes_vcr(pictures, tmp_path):
    """The copy that TIMM_TRAIN_SCRIPT names: two epochs, summary and terms side by side."""
    argv = [str(pictures), "--model", "test_resnet", "--input-size", "3", "32", "32"]
    argv += ["--num-classes", "3", "--batch-size", "8", "--epochs", "2", "--workers", "0"]
    argv += ["--device", "cpu", "--output", str(tmp_path), "--experiment", "real"]
    main(["--timm-script", os.environ["TIMM_TRAIN_SCRIPT"], *argv, "--vcr-alpha", "1"])
    assert (tmp_path / "real" / "vcr.csv").exists()
    assert len(list(csv.DictReader((tmp_path / "real" / "summary.csv").open()))) == 2


def test_only_the_first_rank_writes_the_terms(tmp_path, monkeypatch):
    """Several processes would write over each other."""
    monkeypatch.setenv("RANK", "1")
    run(tmp_path, "--vcr-alpha", "1")
    assert not (tmp_path / "theirs").exists()
