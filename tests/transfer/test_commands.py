from dataclasses import replace
from importlib import metadata

import pytest

from vcr_zoo.cli import main
from vcr_zoo.data import DATASETS
from vcr_zoo.results import read
from vcr_zoo.training.checkpoint import umask
from vcr_zoo.transfer import matrix, rank, several

from .made import network, pictures


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The set "made" for every command, and a cache of one's own."""
    row = replace(DATASETS["fmnist"], name="made", levels={"fine": 3})
    monkeypatch.setitem(DATASETS, "made", row)
    monkeypatch.setenv("VCR_ZOO_CACHE", str(tmp_path / "cache"))
    for module in (matrix, rank, several):
        monkeypatch.setattr(module, "load", lambda name, split, level="fine": pictures(split))
    for module in (matrix, several):
        monkeypatch.setattr(module, "load_test", lambda name, level="fine": pictures("test"))
    for seed in (0, 1):
        network(tmp_path / f"a-{seed}", seed)
        network(tmp_path / f"b-{seed}", seed + 5)
    return tmp_path


def test_transfer_prints_a_table_and_leaves_results_and_a_picture(known, capsys):
    """Two seeds of a network and its control, named once, under two protocols."""
    out = known / "out.jsonl"
    command = ["transfer", f"{known}/a-{{seed}}", "--against", f"{known}/b-{{seed}}"]
    command += ["--data", "made", "--protocol", "knn", "scores", "--seeds", "0", "1"]

    assert main([*command, "--output", str(out)]) == 0

    printed = capsys.readouterr().out
    assert printed.count("minus") == 1 and printed.count("[") == 3  # scores have no pictures
    assert {result.seed for result in read(out)} == {0, 1}
    assert out.with_suffix(".png").exists()


def test_transfer_says_which_cells_failed(known, capsys):
    """The others are shown, and the exit status is that of a wrong request."""
    (known / "b-0" / "model.safetensors").write_bytes(b"damaged")
    command = ["transfer", f"{known}/a-0", f"{known}/b-0", "--data", "made", "--protocol", "knn"]

    assert main([*command, "--output", str(known / "out.jsonl")]) == 2

    printed = capsys.readouterr()
    assert "b-0 on made, knn: the weights of" in printed.err
    assert "a-0" in printed.out


def test_transfer_refuses_a_misspelled_control_before_it_measures(known, capsys):
    out = known / "out.jsonl"
    command = ["transfer", f"{known}/a-0", "--against", "test_resnet.base_fmnist5"]

    assert main([*command, "--data", "made", "--protocol", "knn", "--output", str(out)]) == 2

    assert "test_resnet.base_fmnist4" in capsys.readouterr().err and not out.exists()


def test_rank_ends_with_a_recommendation(known, capsys):
    assert main(["rank", f"{known}/a-0", f"{known}/b-0", "--data", "made"]) == 0
    assert "Start from" in capsys.readouterr().out


def test_concat_shows_controls_and_likeness_and_saves(known, capsys):
    out = known / "concat.jsonl"
    command = ["concat", f"{known}/a-0", f"{known}/a-1", "--data", "made", "--results", str(out)]

    assert main([*command, "--long", f"{known}/b-0", "--output", str(known / "joined")]) == 0

    printed = capsys.readouterr().out
    assert all(arm in printed for arm in ("one short run", "one long run", "CKA"))
    assert "over seeds" not in printed and str(out) in printed
    mask = umask()
    assert (known / "joined" / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    assert len(read(out)) == 4 * 4 and f"{known}/b-0" in read(out)[0].command


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"vcr_zoo {metadata.version('vcr_zoo')}\n"


@pytest.mark.parametrize("wrong", ["-1", "one", "²"])
def test_seeds_are_numbers_from_0_up(wrong, capsys):
    with pytest.raises(SystemExit):
        main(["transfer", "random:test_resnet", "--data", "mnist", "--seeds", wrong])
    assert f"expected a number from 0 up, got '{wrong}'" in capsys.readouterr().err


def test_concat_over_seeds_pairs_them(known, capsys):
    """{seed} stands for each; what would be the same networks for all seeds is refused."""
    out = known / "concat.jsonl"
    seeds = ["--data", "made", "--seeds", "0", "1", "--results", str(out)]

    assert main(["concat", f"{known}/a-{{seed}}", f"{known}/b-{{seed}}", *seeds]) == 0
    assert "over seeds [95 %]" in capsys.readouterr().out
    assert {result.seed for result in read(out)} == {0, 1} and len(read(out)) == 2 * 3 * 4
    assert main(["concat", f"{known}/a-{{seed}}", f"{known}/b-0", *seeds]) == 2
    assert "put {seed} in it" in capsys.readouterr().err


def test_bench_prints_one_json_object(capsys):
    """Small enough to run here; both solvers, one line."""
    import json

    assert main(["bench", "probe", "--n", "200", "--d", "8", "--classes", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["converged"] == 45
    assert figures["gap"] < 0.01
