"""The table of fine-tuned weights, from made numbers."""

import itertools
from dataclasses import replace
from statistics import fmean

import pytest

from vcr_zoo.card.evidence import FULL, SCRATCH
from vcr_zoo.card.finetuned import finetuned_table, overall, starts
from vcr_zoo.results import Result, paired
from vcr_zoo.suite import targets

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"
SETS = targets("fmnist")
ARMS = ((FULL, VCR, 0.8), (FULL, CONTROL, 0.7), (SCRATCH, CONTROL, 0.5))
TRAINED = Result(
    *(VCR, "mnist", "probe", "top1", 1), command=f"vcr-zoo pair {VCR} --against {CONTROL}"
)


def value(start, where, seed):
    """Networks gain differently by set and seed, so that no mean is another's."""
    return start + 0.01 * where + 0.001 * seed**2 * start


def measured(arms=ARMS, seeds=range(5), sets=SETS, **settings):
    """Rates are chosen for each set and arm; from scratch it takes longer."""
    return [
        Result(
            *(name, data, protocol, "top1", value(start, where, seed), seed),
            {"size": 200, "test": 1000, "lr": 0.1 * where * start}
            | {"epochs": 60 if protocol == SCRATCH else 6}
            | settings,
            fingerprint=f"{data} {seed}",
        )
        for (protocol, name, start), seed in itertools.product(arms, seeds)
        for where, data in enumerate(sets)
    ]


def over_sets(start, seed):
    return fmean(value(start, where, seed) for where in range(4))


def test_gains_are_over_the_same_pictures_from_another_start():
    """However the lines of the book are ordered, and whatever other seeds one start had."""
    some = measured(ARMS[:1]) + measured(ARMS[1:2], seeds=(4, 7, 2, 0, 3, 1))
    (one,) = starts([TRAINED, *some, *reversed(measured(ARMS[2:], seeds=range(6)))])

    vcr, control, scratch = ([over_sets(start, s) for s in range(5)] for *_, start in ARMS)
    assert (one.vcr, one.settings["size"], one.scratch_epochs) == (VCR, 200, 60)
    assert one.from_scratch == pytest.approx(fmean(scratch))
    assert one.from_control == pytest.approx(fmean(control))
    assert one.from_vcr == pytest.approx(fmean(vcr))
    for found, other in ((one.over_scratch, scratch), (one.over_control, control)):
        assert found == pytest.approx(paired(a - b for a, b in zip(vcr, other, strict=True)))
    line = finetuned_table([TRAINED, *measured()]).splitlines()[-1]
    assert line.startswith(
        f"| `{VCR}` | 1 | 200 | 6, 60 from scratch | {100 * fmean(scratch):.2f} % |"
    )


def test_the_mean_of_pairs_counts_each_once():
    """That of five pretraining runs, where a pair has one as well."""
    found = starts([TRAINED, *measured()])[0]
    gains = (0.1, 0.3, -0.2, 0.4, 0.9)
    pairs = [
        found._replace(vcr=str(n), from_vcr=gain, over_control=paired([gain, gain]))
        for n, gain in enumerate(gains)
    ]
    published = pairs[0]._replace(over_control=paired([7.0, 7.0]))
    several = pairs[0]._replace(runs=5)

    table = overall([several, published, *pairs[1:]])

    assert [name for name, *_ in table] == ["mean of 5 pairs, intervals over pairs"]
    assert table[0][-1] == str(paired(gains).scaled(100))
    assert table[0][-3] == f"{100 * fmean(gains):.2f} %"
    assert overall(pairs[:4]) == []
    other = pairs[4]._replace(scratch_epochs=7)
    assert overall([*pairs[:4], other]) == []


@pytest.mark.parametrize(
    "lacking",
    [
        measured(ARMS[:2]),
        measured(ARMS[1:]),
        measured(seeds=range(4)),
        measured(sets=SETS[:3]),
        measured(ARMS[:2], test=500) + measured(ARMS[2:]),
        measured(ARMS[:1]) + measured(ARMS[1:2], epochs=7) + measured(ARMS[2:]),
        measured(ARMS[:2]) + measured(ARMS[2:], views=4),
        measured(ARMS[:2]) + [replace(r, fingerprint="other") for r in measured(ARMS[2:])],
    ],
)
def test_without_a_start_a_seed_a_set_or_the_same_training_there_is_no_line(lacking):
    assert finetuned_table([TRAINED, *lacking]) == "(None yet.)"


def test_studies_are_lines_of_their_own_and_the_latest_measurement_counts():
    old = [replace(r, value=0.0) for r in measured()]
    few, many = starts([TRAINED, *measured(size=50), *old, *measured()])

    assert [few.settings["size"], many.settings["size"]] == [50, 200]
    assert few.from_vcr == many.from_vcr


def test_random_weights_that_learned_longer_are_a_line_and_never_part_of_one():
    """Nor are settings chosen with another number of runs."""
    long = [
        replace(r, value=0.9, settings=r.settings | {"epochs": 120}) for r in measured(ARMS[2:])
    ]
    alone = starts([TRAINED, *measured()])
    assert starts([TRAINED, *measured(), *(r for r in long if r.data == SETS[2])]) == alone
    both = starts([TRAINED, *measured(), *long])
    assert [one.scratch_epochs for one in both] == [60, 120] and both[0] == alone[0]
    short = [replace(r, settings=r.settings | {"epochs": 3}) for r in measured(ARMS[2:])]
    assert starts([TRAINED, *measured(), *short]) == alone, "half the time is no match"

    given = [replace(r, value=0.9, command="vcr-zoo finetune a --budget 4") for r in measured()]
    assert starts([TRAINED, *measured(), *(r for r in given if r.data == SETS[2])]) == alone


def runs(start):
    """Of the pair, one for each seed, in the folders that they were trained in."""
    return [
        replace(r, model=f"runs/{VCR}/{r.model}-seed{{seed}}", weights=f"{r.model} {r.seed}")
        for r in measured(start)
    ]


PAIR = [
    replace(TRAINED, model=name, seed=seed, weights=f"{name} {seed}")
    for name in (VCR, CONTROL)
    for seed in range(5)
]


def test_runs_of_every_seed_are_a_line_of_their_own_beside_the_published_file():
    """From random weights no pretraining is seen, so that one measurement serves both."""
    file = [replace(r, weights=r.model) for r in measured(ARMS[:2])]
    lines = starts([*PAIR, *runs(ARMS[:2]), *file, *measured(ARMS[2:])])

    assert [one.runs for one in lines] == [5, 1]
    assert lines[0].over_control == lines[1].over_control
    assert lines[0].over_scratch == lines[1].over_scratch


def test_networks_joined_and_runs_of_other_trainings_are_not_the_pair_s():
    demo = [replace(r, weights=f"four epochs {r.seed}") for r in runs(ARMS[:2])]
    assert not starts([*PAIR, *demo, *measured(ARMS[2:])])

    joined = [replace(r, model=f"{r.model}+{r.model}", value=1.0) for r in measured()]
    (one,) = starts([*PAIR, *runs(ARMS[:2]), *measured(ARMS[2:]), *joined])
    assert one == starts([*PAIR, *runs(ARMS[:2]), *measured(ARMS[2:])])[0]
