"""Cuts by hash: whole groups, the asked-for shares, the same everywhere."""

import numpy as np
import pytest

from vcr_zoo.data.dataset import Pictures
from vcr_zoo.data.split import long_tail, parts, position


def pictures(n: int = 3000, classes: int = 6, **given) -> Pictures:
    """Groups of one to five pictures, each of one class."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, n)
    owner = np.repeat(np.arange(n), sizes)[:n]
    names = tuple(str(label) for label in range(classes))
    groups = np.array([f"group {i}" for i in owner])
    return Pictures(np.zeros((n, 1, 1, 1), np.uint8), owner % classes, names, groups, **given)


def test_no_group_is_divided_and_shares_are_as_asked():
    """Of groups, hence only nearly of pictures; validation's share holds in every class."""
    found = pictures()
    cut = parts(found, 0.3, 0.2)
    groups = {part: set(found.groups[index]) for part, index in cut.items()}
    assert sum(map(len, groups.values())) == len(set(found.groups))
    assert sum(map(len, cut.values())) == len(found.y)
    total = len(set(found.groups))
    assert len(groups["test"]) / total == pytest.approx(0.3, abs=0.05)
    for label in range(6):
        inside = {p: {g for g in groups[p] if int(g.split()[1]) % 6 == label} for p in groups}
        rest = len(inside["train"]) + len(inside["validation"])
        assert len(inside["validation"]) == round(0.2 * rest)


def test_the_place_of_a_group_never_changes():
    """Fixed values: machines, releases and Python's hash seed have no say."""
    places = position(np.array(["a", "b", "a", "code point 1F600"]), "test")
    assert places[0] == places[2]
    assert places.round(6).tolist() == [0.374619, 0.253755, 0.374619, 0.29841]


def test_a_part_stays_when_other_pictures_leave():
    """The test part is each group's own affair."""
    whole, half = pictures(), pictures(1500)
    tests = [set(p.groups[parts(p, 0.3, 0.2)["test"]]) for p in (whole, half)]
    inside = set(half.groups)
    assert {name for name in tests[0] if name in inside} == tests[1]


def test_official_parts_stay():
    """Given parts are taken as they are, and validation still cut from what is left."""
    test = np.arange(3000) >= 2500
    cut = parts(pictures(test=test), 0.3, 0.2)
    assert cut["test"].tolist() == list(range(2500, 3000)) and len(cut["validation"]) > 0
    given = pictures(test=test, validation=np.arange(3000) < 10)
    assert parts(given, 0.3, 0.2)["validation"].tolist() == list(range(10))


def test_a_class_with_two_groups_gives_one_to_validation():
    """Small classes can be chosen with, too."""
    few = Pictures(
        np.zeros((4, 1, 1, 1), np.uint8),
        np.array([0, 0, 1, 1]),
        ("a", "b"),
        np.array(["w", "x", "y", "y"]),
        test=np.zeros(4, bool),
    )
    cut = parts(few, 0.3, 0.1)
    assert few.y[cut["validation"]].tolist() == [0]  # b's only group stays in train


@pytest.mark.parametrize("ratio", [10, 50, 100])
def test_a_long_tail_is_exponential(ratio):
    """Class k of K keeps n * ratio ** (-k / (K - 1)); the last one n / ratio."""
    y = np.repeat(np.arange(10), 500)
    groups = np.arange(5000).astype(str)
    sizes = np.bincount(y[long_tail(y, groups, ratio)])
    assert sizes.tolist() == [round(500 * ratio ** (-k / 9)) for k in range(10)]


def test_a_longer_tail_keeps_a_subset():
    """So that ratios differ in nothing else."""
    y = np.repeat(np.arange(10), 500)
    groups = np.arange(5000).astype(str)
    short, long = (set(long_tail(y, groups, ratio)) for ratio in (10, 100))
    assert long < short


def test_a_class_that_is_small_already_keeps_all():
    """And no class vanishes."""
    y = np.array([0] * 50 + [1] * 3 + [2])
    assert np.bincount(y[long_tail(y, np.arange(54).astype(str), 100)]).tolist() == [50, 3, 1]
