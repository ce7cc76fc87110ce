import pytest

from vcr_zoo.cli import main
from vcr_zoo.results import read
from vcr_zoo.transfer import command, tuned
from vcr_zoo.transfer.command import options_of
from vcr_zoo.transfer.tuned import cells, divided

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
    counted = [line for line in printed.splitlines() if line.startswith("made: ")]
    sizes = [len(pictures(part)) for part in ("train", "validation", "test")]
    assert [int(word) for word in counted[0].replace(";", "").split() if word.isdigit()] == [
        *sizes,
        sizes[0] // 20,
        1,
    ]
    assert f"{sizes[0] // 20} updates are few: take more --epochs" in printed
    assert len(counted) == 1 and printed.count(": validation ") == 4
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 4
    assert timm.create_model(f"local-dir:{folders[0]}", pretrained=True).num_classes == 3


def test_a_network_to_compare_with_is_fine_tuned_too(known, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out.jsonl"
    line = ["finetune", known[0], "--against", known[1], "--data", "made", "--seeds", "0", "1"]
    assert main([*line, *FAST, "--output", str(out)]) == 0

    assert {r.model for r in read(out)} == {str(known[0]), str(known[1])}
    *_, table, last = capsys.readouterr().out.split("\n\n")
    table = table.splitlines()
    assert table[0].rstrip().endswith(f"minus {known[1]} [95 % over draws, of one pretraining run]")
    assert str(out) in last and "--folder" in last
    assert ["[" in row for row in table[1:]] == [True, False]

    assert main([*line, *FAST, "--output", str(out)]) == 0
    assert capsys.readouterr().out.count(f"%, as in {out}\n") == 4, "nothing was run again"


def test_a_failing_cell_is_said_and_the_others_go_on(known, tmp_path, capsys):  # noqa: F811
    (broken := tmp_path / "broken.safetensors").write_bytes(b"cut short")
    line = ["finetune", str(broken), known[0], "--data", "made", *FAST]
    assert main([*line, "--output", str(tmp_path / "out.jsonl")]) == 2

    printed = capsys.readouterr()
    assert f"{broken} on made, full, seed 0: " in printed.err and "config.json" in printed.err
    assert "2/2" in printed.out


@pytest.mark.parametrize(
    "more, said",
    [
        (["--method", "fulll"], "no method 'fulll'. Closest: full"),
        (["--set", "lr"], "expected NAME=VALUE"),
        (["--set", "opt=adamww"], "adamw"),
        (["--method", "depth", "--set", "depth=9"], "depth 9 is beyond"),
        (["--method", "dr-tune", "--set", "bank=1000"], "larger than the 60 train pictures"),
        (["--size", "2"], "2 pictures are too few for 3 classes"),
        (["--overwrite"], "begins again in --folder, which was not given"),
    ],
)
def test_wrong_requests_are_answered_in_a_line(known, tmp_path, capsys, more, said):  # noqa: F811
    line = ["finetune", known[0], "--data", "made", *more]
    assert main([*line, "--output", str(tmp_path / "out.jsonl")]) == 2
    assert said in capsys.readouterr().err


def test_depth_ends_with_a_command_that_runs(known, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tuned, "load", lambda name, part, level="fine": pictures(part, n=120))
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


def test_a_depth_that_diverges_is_a_bad_one(known, tmp_path, capsys, monkeypatch):  # noqa: F811
    """The other depths are measured; if there is none, that is said."""
    wild, line = ["--lr", "1e20"], ["depth", known[0], "--data", "made", "--no-likeness", *FAST]
    out = ["opt=sgd", "--output", str(tmp_path / "out"), "--picture", str(tmp_path / "out.png")]
    assert main([*line, *out, *wild]) == 2
    printed = capsys.readouterr()
    assert "all pictures: no depth could be trained" in printed.err and not printed.out

    fit = tuned.fit
    monkeypatch.setattr(
        tuned,
        "fit",
        lambda cell, options, *args, **more: fit(
            cell, options | ({"lr": 1e20} if options["depth"] == 1 else {}), *args, **more
        ),
    )
    assert main([*line, *out]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("depth 1, seed 0") == 1 and "Use depth" in printed.out

    def diverge(*_):
        raise FloatingPointError("epoch 0")

    monkeypatch.setattr(command, "compared", diverge)
    line.remove("--no-likeness")
    assert main([*line, *out]) == 0
    printed = capsys.readouterr()
    assert "not drawn: epoch 0" in printed.err and "Use depth" in printed.out
    assert {r.settings["depth"] for r in read(tmp_path / "out")} == {0, 2, 3, 4}


def test_a_size_beyond_the_set_is_refused_before_anything_is_measured(known, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out.jsonl"
    line = ["depth", known[0], "--data", "made", "--sizes", "30", "9999", *FAST]
    assert main([*line, "--output", str(out), "--picture", str(tmp_path / "depth.png")]) == 2
    assert "--size 9999: made has" in capsys.readouterr().err and not out.exists()


def test_every_depth_gets_the_rate_that_validation_likes(known, tmp_path):  # noqa: F811
    """Of three, on the pictures of seed 0; the commands measure single points of the curve."""
    out = tmp_path / "out.jsonl"
    line = [
        "depth",
        known[0],
        "--data",
        "made",
        "--sizes",
        "30",
        "--seeds",
        "0",
        "1",
        "--no-likeness",
    ]
    line += [*FAST, "--output", str(out), "--picture", str(tmp_path / "depth.png")]
    assert main([*line, "--budget", "3"]) == 0

    found, chosen = read(out), {}
    for depth in range(5):
        of_depth = [r for r in found if r.settings["depth"] == depth]
        tried = {r.settings["lr"]: r.value for r in of_depth if r.protocol.endswith("trial")}
        (chosen[depth],) = {r.settings["lr"] for r in of_depth if r.metric == "top1"}
        assert len(tried) == 3 and tried[chosen[depth]] == max(tried.values())
    assert len(set(chosen.values())) > 1
    commands = {r.command for r in found if r.metric == "top1"}
    assert len(commands) == 10 and all("--budget 3 " in c and " depth=" in c for c in commands)


@pytest.mark.parametrize(
    "words, said",
    [
        (["lr=high"], "lr must be a number, not 'high'"),
        (["epochs=2.5"], "epochs must be a whole number, not 2.5"),
        (["input_size=32"], r"input_size must be three whole numbers, as in \[3, 64, 64\], not 32"),
        (["augment=maybe"], "augment must be true or false, not 'maybe'"),
        (["strength=high"], "strength must be a number"),
        (["clip_grad=-1.0"], "clip_grad must be positive"),
        (["seed=3"], "give --seeds"),
        (["head_epochs=3", "epochs=3"], "leaves none for the rest of the network"),
        (["lora.rank=2"], "'lora' is not among the methods that run"),
        (["rank=2"], "full and dr-tune has no setting 'rank'"),
        (["vcr_layers=pooled"], "regularizes nothing without weights: give --vcr-alpha"),
    ],
)
def test_settings_of_the_wrong_type_are_refused(words, said):
    with pytest.raises((ValueError, LookupError), match=said):
        wanted = cells(["resnet18"], ["mnist"], ["full", "dr-tune"], [0], options_of(words, {}))
        divided("dr-tune", dict(wanted[-1].options))


def test_a_network_is_not_compared_with_itself(capsys):
    assert main(["finetune", "resnet18", "--against", "resnet18", "--data", "mnist"]) == 2
    assert "name another network" in capsys.readouterr().err


def test_cells_named_twice_are_one():
    twice = [["resnet18"] * 2, ["mnist", "mnist"], ["full"] * 2, [0, 1, 0]]
    assert [cell.seed for cell in cells(*twice)] == [0, 1]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"models": ["resnet18", "resnet18+resnt18"]}, r"'resnt18'.* Closest: resnet18"),
        ({"data": ["mnist", "minst"]}, r"no data set 'minst'.* Closest: mnist"),
        ({"level": "coarse", "data": ["fmnist", "mnist"]}, "mnist has no label level 'coarse'"),
        ({"methods": ["full", "scrach"]}, "no method 'scrach'.* Closest: scratch"),
    ],
)
def test_a_misspelt_name_is_refused_before_anything_runs(change, said):
    good = {"models": ["resnet18"], "data": ["mnist"], "methods": ["full"], "seeds": [0]}
    assert len(cells(**good)) == 1
    with pytest.raises(LookupError, match=said):
        cells(**{**good, **change})


def test_a_setting_may_be_of_one_method_alone():
    """By its name where only that has it, or named before it."""
    words = ["dr-tune.lr=0.1", "strength=2", "epochs=9"]
    full, tuned = cells(["resnet18"], ["mnist"], ["full", "dr-tune"], [0], options_of(words, {}))

    assert dict(full.options) == {"epochs": 9}
    assert dict(tuned.options) == {"epochs": 9, "lr": 0.1, "strength": 2}


@pytest.mark.parametrize(
    "models, more, said",
    [
        (["resnet18"], {}, "needs to know how deep"),
        (["resnet18+resnet34"], {"options": (("depth", 1),)}, "depths are of one network"),
        (["resnet18"], {"budget": 0, "options": (("depth", 1),)}, "--budget 0 must be at least 1"),
    ],
)
def test_depths_that_mean_nothing_are_refused(models, more, said):
    with pytest.raises(ValueError, match=said):
        cells(models, ["mnist"], ["depth"], [0], **more)


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
