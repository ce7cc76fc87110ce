import pytest

from vcr_zoo.cli import main
from vcr_zoo.results import read
from vcr_zoo.transfer import command
from vcr_zoo.transfer.command import options_of

from .made import pictures
from .test_tuned import known  # noqa: F401

FAST = ["--epochs", "1", "--batch-size", "20", "--set", "head_epochs=0", "augment=False"]


def test_finetune_prints_a_table_and_leaves_runs_that_load(known, tmp_path, capsys):  # noqa: F811
    import timm

    out = ["--output", str(tmp_path / "out.jsonl"), "--folder", str(tmp_path / "runs")]
    line = ["finetune", known[0], "--data", "made", "--method", "full", "bss", "--seeds", "0", "1"]
    assert main([*line, *FAST, *out]) == 0

    printed = capsys.readouterr().out
    assert "minus full" in printed and "4/4" in printed
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 4
    assert timm.create_model(f"local-dir:{folders[0]}", pretrained=True).num_classes == 3


def test_a_failing_cell_is_said_and_the_others_go_on(known, tmp_path, capsys):  # noqa: F811
    line = ["finetune", "no_such_net", known[0], "--data", "made", *FAST]
    assert main([*line, "--output", str(tmp_path / "out.jsonl")]) == 2

    printed = capsys.readouterr()
    assert "no_such_net on made, full, seed 0: no model" in printed.err
    assert "2/2" in printed.out


@pytest.mark.parametrize(
    "more, said",
    [
        (["--method", "fulll"], "no method 'fulll'. Closest: full"),
        (["--set", "lr"], "expected NAME=VALUE"),
        (["--set", "opt=adamww"], "adamw"),
        (["--method", "depth", "--set", "depth=9"], "depth 9 is beyond"),
        (["--method", "dr-tune", "--set", "bank=1000"], "larger than the 60 train pictures"),
        (["--size", "2"], "2 pictures cannot teach 3 classes"),
    ],
)
def test_wrong_requests_are_answered_in_a_line(known, tmp_path, capsys, more, said):  # noqa: F811
    line = ["finetune", known[0], "--data", "made", *more]
    assert main([*line, "--output", str(tmp_path / "out.jsonl")]) == 2
    assert said in capsys.readouterr().err


def test_depth_ends_with_a_command_that_runs(known, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(command, "load", lambda name, part, level="fine": pictures(part, n=120))
    out = ["--output", str(tmp_path / "out.jsonl"), "--picture", str(tmp_path / "depth.png")]
    line = ["depth", known[0], "--data", "made", "--sizes", "30", "60", "--seeds", "0", "1"]
    assert main([*line, *FAST, *out]) == 0

    printed = capsys.readouterr().out
    assert "regret" in printed and "a search of" in printed
    assert (tmp_path / "depth.png").exists()
    depths = {r.settings["depth"] for r in read(tmp_path / "out.jsonl")}
    assert depths == {0, 1, 2, 3, 4}
    last = printed.splitlines()[-1].split()
    assert last[:2] == ["vcr-zoo", "finetune"]
    assert main([*last[1:], "--output", str(tmp_path / "other.jsonl")]) == 0


def test_values_are_read_as_what_they_look_like():
    words = ["lr=1e-3", "epochs=5", "layer-decay=0.5", "augment=false", "input_size=[3, 8, 8]"]
    found = dict(options_of(words, {"device": None, "batch_size": 4}))

    assert found == {
        "lr": 1e-3,
        "epochs": 5,
        "layer_decay": 0.5,
        "augment": False,
        "input_size": (3, 8, 8),
        "batch_size": 4,
    }
