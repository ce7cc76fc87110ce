import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vcr_zoo.data import DATASETS
from vcr_zoo.features import weights_sha256
from vcr_zoo.results import Result, paired, read
from vcr_zoo.transfer import tuned
from vcr_zoo.transfer.tuned import (
    Cell,
    belong,
    cells,
    divided,
    drawn,
    measure,
    method,
    table,
    words_of,
)

from .made import network, pictures

FAST = (("augment", False), ("batch_size", 20), ("epochs", 1), ("head_epochs", 0))


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The set "made" and two networks."""
    row = replace(DATASETS["fmnist"], name="made", levels={"fine": 3})
    monkeypatch.setitem(DATASETS, "made", row)
    monkeypatch.setattr(tuned, "load", lambda name, part, level="fine": pictures(part))
    monkeypatch.setattr(tuned, "load_test", lambda name, level="fine": pictures("test"))
    for cached in (tuned.part_of, tuned.network, tuned.fingerprint):
        cached.cache_clear()
    yield [network(tmp_path / f"net-{seed}", seed) for seed in (0, 1)]
    tuned.part_of.cache_clear()


def test_a_cell_is_measured_once_and_its_command_says_it_all(known, tmp_path):
    out = tmp_path / "out.jsonl"
    cell = Cell(known[0], "made", options=FAST, size=30)
    first = measure(cell, out)
    lines = len(read(out))

    assert next(iter(first)) == "top1" and {"validation_top1", "log_loss", "epoch"} <= set(first)
    assert measure(cell, out)["top1"] == first["top1"] and len(read(out)) == lines
    assert first["top1"].command.endswith(
        "--method full --seeds 0 --size 30 --set augment=False batch_size=20 epochs=1 head_epochs=0"
    )
    assert first["top1"].settings["size"] == 30 and len(first["top1"].weights) == 64


def test_a_network_that_is_prepared_otherwise_is_another_cell(known, tmp_path):
    cell = Cell(known[0], "made", options=FAST)
    before = tuned.blank(cell, dict(cell.options)).cell()
    config = Path(known[0]) / "config.json"
    content = json.loads(config.read_text())
    content["pretrained_cfg"]["mean"] = [0.9]
    config.write_text(json.dumps(content))
    for cached in (tuned.network, tuned.fingerprint):
        cached.cache_clear()

    assert tuned.blank(cell, dict(cell.options)).cell() != before


def test_more_pictures_than_there_are_are_refused(known, tmp_path):
    """Or the number beside the result would be another than that of its pictures."""
    there = len(pictures("train"))
    with pytest.raises(ValueError, match=f"--size {there + 1}: made has {there} train pictures"):
        measure(Cell(known[0], "made", options=FAST, size=there + 1), tmp_path / "out.jsonl")


def test_a_command_s_settings_are_read_as_they_were():
    from vcr_zoo.transfer.command import options_of

    options = (("augment", False), ("input_size", (3, 8, 8)), ("layer_decay", 0.5), ("lr", 1e-3))
    assert options_of(words_of(options), {}) == options


def test_a_search_keeps_to_its_budget_and_is_not_repeated_for_other_seeds(known, tmp_path):
    out = tmp_path / "out.jsonl"
    for seed in (0, 1):
        measure(Cell(known[0], "made", "dr-tune", seed, FAST, budget=3), out)
    trials = [r for r in read(out) if r.protocol == "finetune dr-tune trial"]
    kept = {r.seed: r.settings for r in read(out) if r.metric == "top1"}
    best = max(trials, key=lambda r: r.value)

    assert len(trials) == 3 and {r.metric for r in trials} == {"validation_top1"}
    assert kept[0] == kept[1]
    assert max(r.value for r in trials if r.settings == kept[0]) == best.value


def test_the_depth_is_chosen_on_validation_before_its_rate(known, tmp_path):
    out = tmp_path / "out.jsonl"
    results = measure(Cell(known[0], "made", "depth", 0, FAST, budget=4), out)
    trials = [r for r in read(out) if r.protocol == "finetune depth trial"]

    assert len(trials) == 4 and len({r.settings["depth"] for r in trials}) == 3
    assert results["top1"].settings["depth"] in {r.settings["depth"] for r in trials}


@pytest.mark.parametrize("way", ["full", "two-stage"])
def test_networks_with_a_plus_are_joined(known, tmp_path, way):
    results = measure(Cell("+".join(known), "made", way, 0, FAST), tmp_path / "out.jsonl")

    assert 0 <= results["top1"].value <= 1


def test_a_seed_in_the_name_takes_each_seed_s_network_and_tunes_the_first(known, tmp_path):
    out, names = tmp_path / "out.jsonl", str(tmp_path / "net-{seed}")
    wanted = cells([names], ["made"], ["full"], [1, 0], options=FAST, budget=2)
    measured = dict(tuned.run(wanted, out))
    own = [weights_sha256(tuned.network(name)) for name in known]

    assert own[0] != own[1]
    assert {c.seed: r["top1"].weights for c, r in measured.items()} == dict(enumerate(own))
    trials = [r for r in read(out) if r.protocol == "finetune full trial"]
    assert len(trials) == 2 and {r.weights for r in trials} == {own[0]}
    assert {r.model for r in read(out)} == {names}


def test_a_seed_without_its_network_is_refused_before_any_is_trained(known, tmp_path):
    names = str(tmp_path / "net-{seed}")
    for seeds, budget in (([0, 2], 1), ([2], 1)):
        with pytest.raises(LookupError, match="net-2"):
            cells([names], ["made"], ["full"], seeds, budget=budget)
    (tmp_path / "net-0").rename(tmp_path / "net-7")
    with pytest.raises(LookupError, match="net-0"):  # that seed's chooses settings
        cells([names], ["made"], ["full"], [1], budget=2)
    assert len(cells([names], ["made"], ["full"], [1])) == 1


def test_the_test_part_is_read_after_every_choice(known, tmp_path, monkeypatch):
    order, fit, predict = [], tuned.fit, tuned.predict
    monkeypatch.setattr(tuned, "fit", lambda *a, **k: order.append("fit") or fit(*a, **k))
    monkeypatch.setattr(tuned, "predict", lambda *a: order.append("test") or predict(*a))
    measure(Cell(known[0], "made", "full", 0, FAST, budget=2), tmp_path / "out.jsonl")

    assert order == ["fit", "fit", "fit", "test"]


def test_drawn_pictures_are_balanced_and_others_for_another_seed():
    images = pictures("train", n=90)
    few = drawn(images, 10, seed=0)

    assert sorted(np.bincount(few.y)) == [3, 3, 4]
    assert few.fingerprint == drawn(images, 10, 0).fingerprint != drawn(images, 10, 1).fingerprint
    assert drawn(images, None, 0) is images and drawn(images, 1000, 0) is images


def test_fewer_pictures_than_classes_are_refused():
    with pytest.raises(ValueError, match="2 pictures are too few for 3 classes"):
        drawn(pictures("train"), 2, 0)


def test_unknown_methods_and_settings_are_refused_with_the_closest():
    with pytest.raises(LookupError, match="dr-tune"):
        method("drtune")
    with pytest.raises(LookupError, match="temperature"):
        method("dr-tune", temprature=2)
    with pytest.raises(LookupError, match="lr"):
        divided("full", {"lrr": 1})


def test_a_method_s_own_value_goes_before_that_of_all():
    """In whichever order: the names come sorted."""
    for way, own in (("bss", "bss.lr"), ("scratch", "scratch.lr")):
        found = belong(way, ["full", way], (("lr", 1.0), (own, 2.0)))
        assert dict(found) == {"lr": 2.0}
        assert found == belong(way, ["full", way], ((own, 2.0), ("lr", 1.0)))
        assert dict(belong("full", ["full", way], (("lr", 1.0), (own, 2.0)))) == {"lr": 1.0}


def test_one_network_in_two_stages_is_refused():
    with pytest.raises(ValueError, match="two-stage joins networks"):
        cells(["a"], ["made"], ["two-stage"], [0])


def test_l2_sp_takes_the_place_of_weight_decay():
    assert divided("l2-sp", {})[1].weight_decay == 0 != divided("full", {})[1].weight_decay


def test_the_table_shows_paired_differences_over_seeds(known, tmp_path):
    wanted = cells([known[0]], ["made"], ["full", "bss"], [0, 1], options=FAST)
    measured = dict(tuned.run(wanted, tmp_path / "out.jsonl"))
    lines = table(measured).splitlines()

    assert len(lines) == 3 and "[" in lines[2] and "[" not in lines[1]


def test_the_table_compares_networks_where_one_is_named():
    values = {
        ("vcr", "full"): (0.5, 0.7),
        ("vcr", "bss"): (0.3, 0.4),
        ("control", "full"): (0.4, 0.65),
        ("control", "bss"): (0.31, 0.42),
    }
    measured = {
        Cell(name, "made", way, seed): {"top1": Result(name, "made", way, "top1", value, seed)}
        for (name, way), each in values.items()
        for seed, value in enumerate(each)
    }
    head, *lines = table(measured, against="control").splitlines()

    assert head.endswith("minus control [95 % over draws, of one pretraining run]")
    assert lines[0].endswith(str(paired([10, 5]))) and lines[1].endswith(str(paired([-1, -2])))
    assert not any("[" in line for line in lines[2:])


def test_several_runs_less_one_have_no_interval_and_lines_say_their_seeds():
    """The one is the same in every difference."""
    measured = {
        Cell(name, "made", "full", seed): {"top1": Result(name, "made", "full", "top1", v, seed)}
        for name, each in {"runs/vcr-{seed}": (0.5, 0.7, 0.9), "control": (0.4, 0.65)}.items()
        for seed, v in enumerate(each)
    }
    _, ours, theirs = table(measured, against="control").splitlines()

    assert ours.split() == ["runs/vcr-{seed}", "made", "full", "70.00", "3", "+7.50", "of", "2"]
    assert theirs.split() == ["control", "made", "full", "52.50", "2"]
