"""The table of fine-tuned weights, from made numbers."""

import itertools
from dataclasses import replace
from statistics import fmean

import pytest

from vcr_zoo.card.finetuned import FULL, SCRATCH, finetuned_table, starts
from vcr_zoo.results import Result, paired
from vcr_zoo.suite import targets

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"
SETS = targets("fmnist")
ARMS = ((FULL, VCR, 0.8), (FULL, CONTROL, 0.7), (SCRATCH, CONTROL, 0.5))


def trained(name):
    return Result(
        name, "mnist", "probe", "top1", 1, command=f"vcr-zoo pair {VCR} --against {CONTROL}"
    )


def value(start, where, seed):
    """Networks gain differently by set and seed, so that no mean is another's."""
    return start + 0.01 * where + 0.001 * seed**2 * start


def measured(arms=ARMS, size=200, seeds=range(5), sets=SETS):
    return [
        Result(
            *(name, data, protocol, "top1", value(start, where, seed), seed),
            {"size": size, "test": 1000, "level": "fine", "lr": 0.1 * where},
        )
        for (protocol, name, start), seed in itertools.product(arms, seeds)
        for where, data in enumerate(sets)
    ]


def test_gains_are_over_the_same_pictures_from_another_start():
    (one,) = starts([trained(VCR), *measured()])

    assert (one.vcr, one.pictures) == (VCR, 200)
    means = [[fmean(value(s, w, seed) for w in range(4)) for seed in range(5)] for *_, s in ARMS]
    ours, control, scratch = means
    assert one.values == pytest.approx(tuple(map(fmean, (scratch, control, ours))))
    gaps = paired(a - b for a, b in zip(ours, scratch, strict=True))
    assert one.over_scratch == pytest.approx(gaps)
    assert one.over_control.mean == pytest.approx(fmean(ours) - fmean(control))
    assert f"| {100 * fmean(ours):.2f} % |" in finetuned_table([trained(VCR), *measured()])


@pytest.mark.parametrize(
    "lacking",
    [measured(ARMS[:2]), measured(seeds=range(4)), measured(sets=SETS[:3]), measured(ARMS[1:])],
)
def test_without_a_start_a_seed_or_a_set_there_is_no_line(lacking):
    assert finetuned_table([trained(VCR), *lacking]) == "(None yet.)"


def test_numbers_of_pictures_are_not_mixed_and_the_latest_measurement_counts():
    old = [replace(r, value=0.0) for r in measured()]
    few, many = starts([trained(VCR), *measured(size=50), *old, *measured()])

    assert [few.pictures, many.pictures] == [50, 200]
    assert few.values == many.values
