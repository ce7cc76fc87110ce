import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from vcr_zoo.results import Result
from vcr_zoo.transfer.compare import bootstrap, draw, rows, table
from vcr_zoo.transfer.matrix import Cell, right_file


@pytest.fixture
def measured(tmp_path):
    """Three seeds of a network and its control: three quarters and a half of 400 pictures."""
    found = {}
    for model, share in (("net", 0.75), ("control", 0.5)):
        for seed in range(3):
            generator = torch.Generator().manual_seed(10 * seed + len(model))
            answers = (torch.rand(400, generator=generator) < share).half()
            value = answers.double().mean().item()
            main = Result(model, "made", "probe", "top1", value, seed, fingerprint="same")
            main = replace(main, weights=f"{model}-{seed}")
            path = right_file(tmp_path / "out.jsonl", main)
            path.parent.mkdir(exist_ok=True)
            save_file({"right": answers}, path)
            found[Cell(model, "made", "probe", seed)] = {"top1": main}
    return found, tmp_path / "out.jsonl"


def test_bootstrap_is_the_normal_interval_for_many_pictures():
    """For 2,000 pictures: mean ± 1.96 standard errors."""
    x = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3

    mean, low, high, n = bootstrap(x)

    error = 1.96 * x.std().item() / math.sqrt(n)
    assert mean == pytest.approx(x.mean().item())
    assert low == pytest.approx(mean - error, abs=0.1 * error)
    assert high == pytest.approx(mean + error, abs=0.1 * error)


def test_groups_are_resampled_whole():
    """Ten equal pictures of a group tell no more than one: the interval is that of the groups."""
    one = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(200).repeat_interleave(10)

    alone, whole = bootstrap(one), bootstrap(one.repeat_interleave(10), groups)

    assert whole[:3] == pytest.approx(alone[:3])
    apart = bootstrap(one.repeat_interleave(10))
    assert whole.high - whole.low > 2.5 * (apart.high - apart.low)
    assert bootstrap(one, torch.arange(200).flip(0)).mean == pytest.approx(alone.mean)


def test_bootstrap_of_no_difference_is_nothing():
    assert bootstrap(torch.zeros(50, dtype=torch.float64))[:3] == (0, 0, 0)


def test_differences_are_paired_by_seed(measured):
    """Mean and both intervals; the control has none of its own."""
    found, out = measured
    net, control = rows(found, out, against="control")
    differences = [
        found[Cell("net", "made", "probe", s)]["top1"].value
        - found[Cell("control", "made", "probe", s)]["top1"].value
        for s in range(3)
    ]

    assert net.seeds.mean == pytest.approx(sum(differences) / 3)
    assert net.pictures.mean == pytest.approx(net.seeds.mean)
    assert net.seeds.n == 3 and net.pictures.n == 400
    assert net.pictures.low < 0.25 < net.pictures.high
    assert control.seeds is None and control.pictures is None


def test_missing_partner_is_left_out(measured):
    """A seed that only one of the two has is not in the difference."""
    found, out = measured
    del found[Cell("control", "made", "probe", 1)]

    assert rows(found, out, against="control")[0].seeds.n == 2
    only = {cell: results for cell, results in found.items() if cell.model == "net"}
    assert rows(only, out, against="control")[0].seeds is None


def test_seeds_of_the_same_weights_are_one_training_run(measured):
    """Measured thrice, a network has not been trained thrice: there is no interval over seeds."""
    found, out = measured
    once = {
        cell: {"top1": replace(results["top1"], weights=cell.model)}
        for cell, results in found.items()
    }

    seeds = rows(once, out, against="control")[0].seeds

    assert seeds.n == 1 and math.isnan(seeds.low)
    assert seeds.mean == pytest.approx(rows(found, out, against="control")[0].seeds.mean)


@pytest.mark.parametrize("fixed", ["net", "control"])
def test_one_training_run_against_several_gives_no_interval_over_seeds(fixed, measured):
    """Pairs that share a run are not independent: its luck is in all of them."""
    found, out = measured
    mean = rows(found, out, against="control")[0].seeds.mean
    for cell, results in found.items():
        if cell.model == fixed:
            found[cell] = {"top1": replace(results["top1"], weights="the same")}

    row = rows(found, out, against="control")[0]

    assert row.seeds.n == 1 and math.isnan(row.seeds.low)
    assert row.seeds.mean == pytest.approx(mean)


def test_accuracy_on_validation_stands_beside_that_on_test(measured):
    """Networks are chosen between by it; of protocols without one its place is empty."""
    found, out = measured
    for cell, results in found.items():
        other = replace(results["top1"], metric="validation_top1", value=0.1 + 0.1 * cell.seed)
        found[cell] = {**results, "validation_top1": other}
    knn = {replace(cell, protocol="knn"): {"top1": r["top1"]} for cell, r in found.items()}

    head, *lines = table(rows({**found, **knn}, out)).splitlines()

    assert head.split()[-2:] == ["on", "validation"]
    assert [len(line.split()) for line in lines] == [6, 6, 5, 5]
    assert [line.split()[-1] for line in lines[:2]] == ["20.00", "20.00"]
    assert "validation" not in table(rows(knn, out, "control"), "control")


def test_table_has_a_line_for_every_row(measured):
    """In percent, the difference with its bounds."""
    found, out = measured
    head, net, control = table(rows(found, out, "control"), "control").splitlines()

    assert "minus control" in head
    assert net.count("[") == 2 and control.count("[") == 0
    assert "75." in net or "74." in net or "76." in net


def test_picture_is_drawn_with_and_without_a_control(measured, tmp_path):
    found, out = measured

    draw(rows(found, out, "control"), tmp_path / "pair.png", "control")
    draw(rows(found, out), tmp_path / "values.png")

    assert all((tmp_path / name).stat().st_size > 5000 for name in ("pair.png", "values.png"))
    with pytest.raises(ValueError, match="no accuracies"):
        draw([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="same seed and data as another"):
        draw(rows(found, out, "another"), tmp_path / "none.png", "another")
