"""Verdicts from made numbers; which measurements a claim is about."""

from dataclasses import replace
from statistics import fmean

import pytest

from vcr_zoo.card import claims as ours
from vcr_zoo.card.claims import Known, Row, claims, sides, verdict
from vcr_zoo.card.gains import PAIR
from vcr_zoo.results import Result, paired
from vcr_zoo.transfer.several import JOINED

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"


def made(protocol, metric, model, value, seed, data="fmnist", **settings):
    command = f"{PAIR}{VCR} --against {CONTROL} --seeds {seed}"
    return Result(
        model, data, protocol, metric, value, seed, settings, f"{model}{seed}", command=command
    )


def pair_of(protocol, metric, differences, **settings):
    """Results of a control at a half and of a VCR network beside it."""
    return [
        made(protocol, metric, model, 0.5 + (gap if model == VCR else 0), seed, **settings)
        for seed, gap in enumerate(differences)
        for model in (CONTROL, VCR)
    ]


@pytest.mark.parametrize(
    "differences, sign, expected",
    [
        ([0.01, 0.02, 0.015], 1, "holds"),
        ([-0.01, -0.02, -0.015], 1, "does not hold"),
        ([-0.01, -0.02, -0.015], -1, "holds"),
        ([0.03, -0.02, 0.001], 1, "undecided"),
        ([0.001, 0.002, 0.0015], 0, "holds"),
        ([-0.02, -0.021, -0.0205], 0, "does not hold"),
        ([0.02, 0.021, 0.0205], 0, "does not hold"),
        ([0.01, -0.01, 0.0], 0, "undecided"),
    ],
)
def test_a_verdict_follows_from_where_an_interval_lies(differences, sign, expected):
    found = paired(differences)
    assert verdict([Row("a", "", sides(found, sign))]) == expected


def test_rows_that_contradict_each_other_are_mixed_and_none_is_none():
    good, bad, neither = (Row("", "", s) for s in ((True, False), (False, True), (False, False)))

    assert verdict([good, neither]) == "holds" and verdict([bad, neither]) == "does not hold"
    assert verdict([good, bad]) == "mixed" and verdict([]) == "not measured yet"


def test_a_pair_speaks_to_the_claims_that_are_about_it():
    results = pair_of("eval", "top1", [0.001, 0.002, 0.001], level="coarse")
    results += pair_of("probe", "top1", [0.02, 0.03, 0.025])
    text = claims(results)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}

    assert "| holds |" in lines["the source's accuracy does not suffer"]
    one = lines["trained on super-classes, features tell sub-classes apart better"]
    assert f"`{VCR}` +2.50 [+1.26, +3.74] | holds" in one
    for other in ("a long-tailed source is learned better", "SimCLR's features transfer better"):
        assert "| not measured yet |" in lines[other]
    assert "not measured yet" in claims([])


def test_one_seed_is_no_evidence():
    assert (
        "holds" not in claims(pair_of("probe", "top1", [0.02])).split("Verdict")[1].split("##")[1]
    )


def depth(value, validation, t, seed, size):
    values = {"top1": value, "validation_top1": validation}
    settings = {"depth": t, "size": size}
    return [
        Result(VCR, "silhouettes", "finetune depth", metric, v, seed, settings)
        for metric, v in values.items()
    ]


def test_the_best_depth_is_the_one_that_validation_chose():
    """Not the one that test likes best, which depth 1 is here."""
    results = []
    for seed in (0, 1):
        results += depth(0.70, 0.60, 0, seed, 100) + depth(0.95, 0.61, 1, seed, 100)
        results += depth(0.80, 0.80, 2, seed, 100) + depth(0.75 + 0.01 * seed, 0.7, 3, seed, 100)
        results += depth(0.90, 0.91, 0, seed, 900) + depth(0.85, 0.80, 3, seed, 900)
    few, many = ours.less_frozen(Known.of(results))
    (moved,) = ours.deeper_with_less(Known.of(results))

    assert few.label == f"{VCR} on 100 pictures of silhouettes, 2 of 3"
    assert few.shown.startswith("+4.50") and many.shown == "+5.00 [+5.00, +5.00]"
    assert moved.shown == "pictures: depth 100: 2, 900: 0" and moved.sides == (True, False)


def test_methods_and_arms_are_paired_by_seed():
    tuned = [
        Result(VCR, "stamps", f"finetune {way}", "top1", v, seed, {"size": 50})
        for way, values in {"full": (0.5, 0.6, 0.9), "dr-tune": (0.52, 0.63)}.items()
        for seed, v in enumerate(values)
    ]
    (row,) = ours.methods("dr-tune", "full")(Known.of(tuned))
    expected = 100 * fmean([0.02, 0.03])
    assert row.label == f"{VCR} on 50 pictures of stamps"
    assert row.shown.startswith(f"{expected:+.2f} [") and row.sides == (False, False)

    joined = [
        Result("a + b", "stamps", "concat", "top1", v, seed, {"arm": arm})
        for arm, values in {JOINED: (0.7, 0.72), "one long run": (0.6, 0.62)}.items()
        for seed, v in enumerate(values)
    ]
    (row,) = ours.arms(JOINED, "one long run")(Known.of(joined))
    assert row.sides == (True, False)
    assert not list(ours.arms(JOINED, "one long run")(Known.of([replace(joined[0])])))
