"""results.jsonl holds each measurement once."""

import pytest

from vcr_zoo.card.book import add, add_file, shown
from vcr_zoo.results import Result, append, read
from vcr_zoo.transfer.tuned import METHODS, TWO_STAGE


def result(**fields):
    return Result(
        **{"model": "a.b", "data": "d", "protocol": "probe", "metric": "top1", "value": 1.0}
        | fields
    )


def test_measuring_again_replaces_and_others_stay(tmp_path):
    path = tmp_path / "results.jsonl"
    add([result(value=1.0, weights="old"), result(seed=1), result(model="c.d")], path)
    add([result(value=2.0, weights="new")], path)

    found = {(r.model, r.seed): r.value for r in read(path)}
    assert found == {("a.b", 0): 2.0, ("a.b", 1): 1.0, ("c.d", 0): 1.0}


def test_what_was_measured_on_the_published_file_stands_beside_a_runs(tmp_path):
    path = tmp_path / "results.jsonl"
    add([result(), result(command="vcr-zoo reproduce a.b")], path)

    assert len(read(path)) == 2


def test_what_was_recorded_of_weights_that_are_gone_goes_with_them(tmp_path):
    """Also where the new ones were not measured so; runs stay, which nobody published."""
    path, recorded = tmp_path / "results.jsonl", {"command": "vcr-zoo reproduce a.b"}
    seconds = result(protocol="train", weights="old", **recorded)
    others = result(model="c.d", weights="old", **recorded | {"command": "vcr-zoo reproduce c.d"})
    add([seconds, others, result(weights="old")], path)
    add([result(weights="new", **recorded)], path)

    assert {(r.model, r.weights, r.command != "") for r in read(path)} == {
        ("a.b", "new", True),
        ("a.b", "old", False),
        ("c.d", "old", True),
    }


def test_a_seed_of_a_pair_that_was_trained_anew_takes_its_old_numbers_along(tmp_path):
    """Also those that were not measured again; but no seed is left of the earlier training, with
    which the new ones would be compared."""
    path, pair = tmp_path / "results.jsonl", "vcr-zoo pair a.b --against a.c --seeds"
    old = {"weights": "old", "command": f"{pair} 0"}
    other = result(seed=1, weights="other", command=f"{pair} 1")
    control = result(model="a.c", weights="control", command=f"{pair} 0")
    new = {"weights": "new", "command": f"{pair} 0 --epochs 4"}
    add([result(**old), result(protocol="eval", **old), other, control], path)
    before = path.read_text()
    for some, lacking in (([other], "seed 0 of a.c"), ([control], "seed 1 of a.b")):
        with pytest.raises(ValueError, match=f"{lacking} there are only.* --seeds 0 1`"):
            add([result(protocol="eval", **new), *some], path)
    assert path.read_text() == before
    add([result(protocol="knn", **old), result(protocol="eval", **new), other, control], path)

    found = [("probe", "other"), ("probe", "control"), ("eval", "new")]
    assert sorted((r.protocol, r.weights) for r in read(path)) == sorted(found)
    old_and_new = [result(protocol="eval", **old), result(**old), result(protocol="eval", **new)]
    assert add(old_and_new, path) == 1
    assert sorted((r.protocol, r.weights) for r in read(path)) == sorted(found)


def test_what_a_file_that_is_replaced_was_fine_tuned_to_goes_with_it(tmp_path):
    """What began with random weights stays."""
    path, words = tmp_path / "results.jsonl", "vcr-zoo finetune a.b --data d"
    add([result(weights="file", command="vcr-zoo reproduce a.b")], path)
    tuned = {"weights": "tensors", "command": words}
    add([result(protocol=way, **tuned) for way in ("finetune full", "finetune scratch")], path)
    add([result(weights="file", command="vcr-zoo reproduce a.b", seed=1)], path)
    assert len(read(path)) == 4

    add([result(weights="new file", command="vcr-zoo reproduce a.b")], path)
    assert {r.protocol for r in read(path)} == {"probe", "finetune scratch"}


@pytest.mark.parametrize("command", ["reproduce", "finetune", "depth"])
def test_rates_that_were_chosen_for_old_weights_go_with_them(command, tmp_path):
    """Settings differ from trial to trial: other ones do not make an old network's results new."""
    path, words = tmp_path / "results.jsonl", f"vcr-zoo {command} a.b --data d"
    add([result(settings={"lr": 0.1}, weights="old", command=words)], path)
    add([result(settings={"lr": 0.2}, weights="new", command=words)], path)
    assert [r.weights for r in read(path)] == ["new"]

    add([result(settings={"lr": 0.1}, weights="new", command=words)], path)
    assert len(read(path)) == 2


def test_each_seed_s_run_has_weights_of_its_own(tmp_path):
    path, words = tmp_path / "results.jsonl", "vcr-zoo finetune runs/a.b-{seed} --data d"
    run = {"model": "runs/a.b-{seed}", "protocol": "finetune full", "command": words}
    append(tmp_path / "new.jsonl", result(weights="zero", **run))
    append(tmp_path / "new.jsonl", result(seed=1, weights="one", **run))

    assert add_file(tmp_path / "new.jsonl", ["a.b"], path) == 2
    assert {r.seed: r.weights for r in read(path)} == {0: "zero", 1: "one"}
    add([result(seed=1, settings={"lr": 0.2}, weights="anew", **run)], path)
    assert {r.seed: r.weights for r in read(path)} == {0: "zero", 1: "anew"}


def test_a_pair_trained_with_other_options_is_no_recipes(tmp_path):
    command = "vcr-zoo pair a.b --against a.c --seeds 0 --epochs 1"
    append(tmp_path / "new.jsonl", result(command=command))

    with pytest.raises(ValueError, match="trained with --epochs 1 over its recipe"):
        add_file(tmp_path / "new.jsonl", ["a.b"], tmp_path / "results.jsonl")
    assert not (tmp_path / "results.jsonl").exists()


def test_results_are_entered_in_a_checkout_only(tmp_path):
    with pytest.raises(FileNotFoundError, match="in a checkout"):
        add([result()], tmp_path / "model_cards" / "results.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_file_of_results_is_entered(tmp_path):
    pair = "vcr-zoo pair a.b --against a.c --seeds 0"
    append(tmp_path / "new.jsonl", result(versions={"torch": "2"}, command=pair))
    append(tmp_path / "new.jsonl", result(model="other.one", command=pair))
    append(tmp_path / "new.jsonl", result(command="vcr-zoo transfer a.b"))  # a look at the file
    append(tmp_path / "new.jsonl", result(metric="gradient"))  # no card shows it
    looked_for = "vcr-zoo finetune a.b --method depth --budget 6"  # no point of a curve
    append(tmp_path / "new.jsonl", result(protocol="finetune depth", command=looked_for))
    point = result(protocol="finetune depth", command=f"{looked_for} --set depth=2 lr=0.1")
    append(tmp_path / "new.jsonl", point)

    assert add_file(tmp_path / "new.jsonl", ["a.b"], tmp_path / "results.jsonl") == 2
    one, other = read(tmp_path / "results.jsonl")
    assert one.versions == {"torch": "2"} and other == point
    with pytest.raises(FileNotFoundError, match="there is no"):
        add_file(tmp_path / "nowhere.jsonl", ["a.b"], tmp_path / "results.jsonl")
    with pytest.raises(ValueError, match=r"no results that cards or claims show: .*of x"):
        add_file(tmp_path / "new.jsonl", ["x"], tmp_path / "results.jsonl")


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "folder//home/me/clients@32"},
        {"model": "/home/me/runs/a.b-{seed}"},
        {"model": "local-dir:/home/me/a.b"},
        {"command": "vcr-zoo reproduce a.b --run /home/me/run"},
    ],
)
def test_paths_of_a_machine_are_not_published(fields, tmp_path):
    append(tmp_path / "new.jsonl", result(**{"command": "vcr-zoo pair a.b"} | fields))
    with pytest.raises(ValueError, match=r"/home/me.* is a path of this machine"):
        add_file(tmp_path / "new.jsonl", ["a.b"], tmp_path / "results.jsonl")
    assert not (tmp_path / "results.jsonl").exists()


def test_what_claims_ask_for_can_be_entered():
    """Also the ways to fine-tune: each claim on one would stay unmeasured for ever."""
    for way in METHODS.keys() & {"full", "scratch", "dr-tune"} | {TWO_STAGE}:
        assert shown(result(protocol=f"finetune {way}")), way
