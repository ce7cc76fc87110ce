"""Verdicts from made numbers; which measurements a claim is about."""

from dataclasses import replace

import pytest

from vcr_zoo.card import bearing as ours
from vcr_zoo.card.bearing import Known, Row
from vcr_zoo.card.claims import claims, folded, speaking, verdict
from vcr_zoo.card.gains import PAIR
from vcr_zoo.results import Result, paired
from vcr_zoo.suite import targets
from vcr_zoo.training.options import recipes
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
        ([0.01, 0.02, 0.015], 1, "holds (1 for, 0 against, 0 undecided)"),
        ([-0.01, -0.02, -0.015], 1, "does not hold (0 for, 1 against, 0 undecided)"),
        ([-0.01, -0.02, -0.015], -1, "holds (1 for, 0 against, 0 undecided)"),
        ([0.03, -0.02, 0.001], 1, "undecided (0 for, 0 against, 1 undecided)"),
        ([0.001, 0.002, 0.0015], 0, "holds (1 for, 0 against, 0 undecided)"),
        ([-0.02, -0.021, -0.0205], 0, "does not hold (0 for, 1 against, 0 undecided)"),
        ([0.02, 0.021, 0.0205], 0, "holds (1 for, 0 against, 0 undecided)"),
        ([0.01, -0.01, 0.0], 0, "undecided (0 for, 0 against, 1 undecided)"),
    ],
)
def test_a_verdict_follows_from_where_an_interval_lies(differences, sign, expected):
    found = paired(differences)
    assert verdict([Row.of("a", found, sign).sides(1)]) == expected


def test_one_of_many_has_to_lie_farther_from_zero():
    """All intervals of a claim hold together: of twenty, one is beyond zero by chance alone."""
    row = Row.of("a", paired([0.01, 0.02, 0.015, 0.002, 0.004]))
    assert row.sides(1) == (True, False) and row.sides(20) == (False, False)
    both = row._replace(intervals=(*row.intervals, paired([-0.1, 0.1])))
    assert both.sides(1) == (False, False)


def test_marks_and_verdict_are_of_widened_intervals():
    """What is shown is not. Alone the first row speaks, beside four others it does not."""
    sure, close = [0.020, 0.021, 0.019, 0.02, 0.02], [0.01, 0.02, 0.015, 0.002, 0.004]
    alone = [Row.of("a", paired(close))]
    five = [Row.of("a", paired(close)), *(Row.of("b", paired(sure)) for _ in range(4))]
    beside = Row.of("mean", paired(sure))._replace(speaks=False)

    assert verdict(speaking(alone).values()) == "holds (1 for, 0 against, 0 undecided)"
    assert speaking(five) == {0: (False, False)} | {i: (True, False) for i in range(1, 5)}
    assert speaking([*alone, beside]) == {0: (True, False)}
    two = Row.of("two ways", paired(sure))._replace(intervals=(paired(sure), paired(sure)))
    assert speaking([*alone, two, two])[0] == (False, False), "five intervals, in three rows"


def test_rows_that_contradict_each_other_are_mixed_and_none_is_none():
    good, bad, neither = (True, False), (False, True), (False, False)

    assert verdict([good, neither]) == "holds in part (1 for, 0 against, 1 undecided)"
    assert verdict([bad, neither]) == "does not hold in part (0 for, 1 against, 1 undecided)"
    assert verdict([good, bad]) == "mixed (1 for, 1 against, 0 undecided)"
    assert verdict([]) == "undecided (nothing here can speak)"


def test_a_pair_speaks_to_the_claims_that_are_about_it():
    results = pair_of("eval", "top1", [0.001, 0.002, 0.001, 0.0, 0.001], level="coarse")
    results += pair_of("probe", "top1", [0.02, 0.03, 0.025, 0.02, 0.03])
    text = claims(results)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines()}

    assert "| holds (1 for" in lines["the source's accuracy does not suffer"]
    one = lines["trained on super-classes, features tell sub-classes apart better"]
    gap = paired([0.02, 0.03, 0.025, 0.02, 0.03]).scaled(100)
    assert f"`{VCR}` {gap} (*for*) | holds (1 for" in one
    for other in ("a long-tailed source is learned better", "SimCLR's features transfer better"):
        assert "| not measured yet |" in lines[other]
    assert "holds (" not in claims([])


def test_four_seeds_are_no_evidence():
    found = ours.pairs("probe", "top1", True, ours.supervised)
    for gaps, rows in (([0.02] * 4, 0), ([0.02] * 5, 1)):
        assert len(list(found(Known.of(pair_of("probe", "top1", gaps))))) == rows


def test_many_pairs_have_a_mean():
    """Of their means, in the measure's own unit."""
    results, gaps = [], {}
    names = [name for name in recipes() if name.endswith(".vcr_openart")]
    for i, name in enumerate([*names, VCR]):
        control, gaps[name] = name.replace(".vcr_", ".base_"), 0.01 * i
        for seed in range(5):
            for model, more in ((control, 0.0), (name, gaps[name] + seed / 1000)):
                source = "fmnist" if name == VCR else "openart"
                one = made("eval", "top1", model, 0.5 + more, seed, source)
                command = f"{PAIR}{name} --against {control}"
                results.append(replace(one, command=command, settings={"level": "fine"}))
    *rows, mean = ours.pairs("eval", "top1", True, ours.supervised)(Known.of(results))

    assert [row.label for row in rows] == list(gaps) and len(gaps) == 5
    assert mean.label == "mean of 5 pairs" and not mean.speaks
    assert mean.shown == str(paired(0.002 + gap for gap in gaps.values()).scaled(100))


def depth(value, validation, t, seed, size, command="", **settings):
    values = {"top1": value, "validation_top1": validation}
    settings = {"depth": t, "size": size} | settings
    return [
        Result(VCR, "silhouettes", "finetune depth", metric, v, seed, settings, command=command)
        for metric, v in values.items()
    ]


def test_the_best_depth_is_the_one_that_validation_chose():
    """Not the one that test likes best, which depth 1 is here; seed by seed, study by study."""
    results = []
    for seed in range(5):
        results += depth(0.70, 0.60, 0, seed, 100) + depth(0.95, 0.61, 1, seed, 100)
        results += depth(0.80, 0.80, 2, seed, 100) + depth(0.75 + 0.01 * seed, 0.7, 4, seed, 100)
        results += depth(0.90, 0.91, 0, seed, 900) + depth(0.85, 0.80, 4, seed, 900)
        results += depth(0.10, 0.91, 0, seed, 900, afresh=True)
        results += depth(0.85, 0.80, 4, seed, 900, afresh=True)
    few, many, afresh = ours.chosen_depth(frozen=True)(Known.of(results))
    (moved,) = ours.deeper_with_less(Known.of(results))
    assert not moved.speaks, "noise alone moves the choice among few pictures"

    assert few.label == f"{VCR} on 100 pictures of silhouettes"
    assert few.shown == str(paired(0.05 - 0.01 * s for s in range(5)).scaled(100))
    assert many.shown == "+5.00 [+5.00, +5.00]" and afresh.shown.startswith("-75.00")
    less_all = ours.chosen_depth(frozen=False)(Known.of(results))
    chosen, *ends = less_all
    assert chosen.shown.startswith("+10.00") and chosen.speaks
    assert {row.shown for row in ends} == {"no difference: all 5 seeds chose depth 0"}
    assert len(ends) == 2 and not any(row.speaks for row in ends)
    some = Known.of([r for r in results if r.settings["depth"] not in (0, 4)])  # as --search does
    assert not [*ours.chosen_depth(frozen=True)(some), *ours.chosen_depth(frozen=False)(some)]
    assert moved.shown == "+2.00 [+2.00, +2.00] blocks" and moved.sides(1) == (True, False)


def test_depths_at_rates_chosen_for_each_are_a_curve_and_not_of_another_at_one_rate():
    """Wherever in the book the other stands."""
    chosen, fixed = [], []
    for seed in range(5):
        for t, lr in ((0, 0.1), (4, 0.9)):
            command = f"vcr-zoo finetune {VCR} --method depth --budget 4 --set depth={t}"
            chosen += depth(0.9 - 0.075 * t, 0.8 - 0.1 * t, t, seed, 100, command, lr=lr)
            fixed += depth(0.5 + 0.075 * t, 0.8 - 0.1 * t, t, seed, 100, lr=0.1)
    for results in (chosen + fixed, fixed + chosen):
        shown = {row.shown for row in ours.chosen_depth(frozen=True)(Known.of(results))}
        assert shown == {"+30.00 [+30.00, +30.00]", "-30.00 [-30.00, -30.00]"}


def test_methods_are_paired_by_seed_and_by_what_they_have_in_common():
    values = {"full": (0.5, 0.6, 0.9, 0.5, 0.5, 0.5), "dr-tune": (0.52, 0.63, 0.9, 0.5, 0.5)}
    own = {"full": {"lr": 1, "weight_decay": 0.5}, "dr-tune": {"lr": 33, "weight_decay": 0.05}}
    own["dr-tune"]["bank"] = 64
    tuned = [
        Result(
            *(VCR, "stamps", f"finetune {way}", "top1", v, seed),
            {"size": 50, "epochs": 9, **own[way]},
        )
        for way, each in values.items()
        for seed, v in enumerate(each)
    ]
    (row,) = ours.methods("dr-tune", "full")(Known.of(tuned))

    assert row.label == f"{VCR} on 50 pictures of stamps"
    assert row.shown == str(paired([0.02, 0.03, 0, 0, 0]).scaled(100))
    again = [replace(r, value=r.value + 0.2, settings=r.settings | {"lr": 2}) for r in tuned[:6]]
    (row,) = ours.methods("dr-tune", "full")(Known.of([*tuned, *again]))  # the latest counts
    assert row.shown == str(paired([-0.18, -0.17, -0.2, -0.2, -0.2]).scaled(100))
    full, other = ([r for r in tuned if r.protocol.endswith(way)] for way in values)
    longer = [replace(r, settings=r.settings | {"epochs": 99}) for r in full]
    given = [replace(r, command="vcr-zoo finetune a --budget 4") for r in full]
    for unlike in (longer, given):
        assert not list(ours.methods("dr-tune", "full")(Known.of([*unlike, *other])))
    forms = [replace(r, settings=r.settings | {"implicit": one}) for one in (0, 1) for r in other]
    (row,) = ours.methods("dr-tune", "full", implicit=1)(Known.of([*full, *forms]))
    assert row.shown == str(paired([0.02, 0.03, 0, 0, 0]).scaled(100))
    assert len([*ours.methods("dr-tune", "full")(Known.of([*full, *forms]))]) == 2
    other = [replace(r, command="vcr-zoo finetune a --budget 6", value=0.0) for r in tuned]
    (row, again) = ours.methods("dr-tune", "full")(Known.of([*tuned, *other]))
    assert row.shown == str(paired([0.02, 0.03, 0, 0, 0]).scaled(100)) != again.shown


def test_joined_networks_are_compared_with_the_first_of_them_alone():
    values = {
        ("runs/a{seed}+runs/b{seed}", "two-stage"): (0.9, 0.8, 0.9, 0.8, 0.9),
        ("runs/a{seed}+runs/b{seed}", "full"): (0.5, 0.5, 0.5, 0.5, 0.5),
        ("runs/a{seed}", "full"): (0.7, 0.7, 0.6, 0.6, 0.6),
        ("runs/b{seed}", "full"): (0.1, 0.1, 0.1, 0.1, 0.1),
    }
    tuned = [
        Result(*(model, "stamps", f"finetune {way}", "top1", v, seed), {"size": 50})
        for (model, way), each in values.items()
        for seed, v in enumerate(each)
    ]
    (alone,) = ours.methods("two-stage", "full", ours.first_of)(Known.of(tuned))
    (at_once,) = ours.methods("two-stage", "full")(Known.of(tuned))

    assert alone.shown == str(paired([0.2, 0.1, 0.3, 0.2, 0.3]).scaled(100))
    assert at_once.shown == str(paired([0.4, 0.3, 0.4, 0.3, 0.4]).scaled(100))
    assert alone.label == at_once.label == "a{seed} + b{seed} on 50 pictures of stamps"


def test_networks_whose_folders_are_called_alike_are_not_one():
    tuned = [
        Result(*(model, "stamps", f"finetune {way}", "top1", value, seed), {"size": 50})
        for model, gain in (("a/run", 0.1), ("b/run", -0.6))
        for way, value in (("dr-tune", 0.7 + gain), ("full", 0.7))
        for seed in range(5)
    ]
    found = ours.methods("dr-tune", "full")(Known.of(tuned))
    assert [row.shown[:6] for row in found] == ["+10.00", "-60.00"]


def test_arms_are_those_of_one_study():
    """Another study on the same pictures is a row of its own, or none without a long run; what
    was run without one beside is the same study."""
    joined = [
        Result("a + b", "stamps", "concat", "top1", v + gap, s, {"arm": arm, "networks": [name]})
        for name, gap in (("a{seed}", 0.0), ("b{seed}", 0.3))
        for arm, v in {JOINED: 0.7, "one long run": 0.6, "one short run": 0.8}.items()
        for s in range(5)
        if (name, arm) != ("b{seed}", "one long run")
    ]
    known = Known.of(joined)
    (row,) = ours.arms(JOINED, "one long run")(known)
    assert row.label == "stamps: a{seed}"
    assert row.shown == "+10.00 [+10.00, +10.00]" and row.sides(1) == (True, False)
    again = [replace(r, settings=r.settings | {"long": "c{seed}"}) for r in joined]
    for some in (known, Known.of([*joined, *again])):
        rows = ours.arms(JOINED, "one short run")(some)
        assert [r.sides(1) for r in rows] == [(False, True)] * 2


def test_joined_vcr_networks_are_compared_with_their_joined_controls():
    """Seed by seed, whatever the controls were compared with besides; others have no partner."""
    gains = (0.01, 0.02, 0.03, 0.01, 0.02)
    rows = [
        Result("+", "stamps", "concat", "top1", value, seed, {"arm": arm, "networks": [n], **more})
        for seed, gain in enumerate(gains)
        for n, value, more in (
            ("runs/a.vcr_x-{seed}", 0.6 + gain, {}),
            ("runs/a.base_x-{seed}", 0.6, {"long": "runs/l{seed}"}),
            ("runs/a.vcr_y-{seed}", 0.9, {}),
        )
        for arm in (JOINED, "one short run")
    ]
    (row,) = ours.members(Known.of(rows))

    assert row.label == "stamps: a.vcr_x-{seed}"
    assert row.shown == str(paired(gains).scaled(100)) and row.sides(1) == (True, False)


def test_penalties_are_compared_as_validation_chose_them():
    """Seed by seed, of one recipe and search; other forms of VCR and earlier settings aside."""
    gains = (0.01, 0.02, 0.03, 0.01, 0.02)

    def study(space, setting, values, recipes=CONTROL):
        about = {"options": "", "space": space, "recipes": recipes, "setting": setting}
        return [
            Result(CONTROL, data, "chosen", "probe_other_top1", value, seed, about)
            for seed, value in enumerate(values)
            for data in targets("fmnist")
        ]

    theirs = [*study("wld", "first", (0.9,) * 5), *study("wld", "last", (0.6,) * 5)]
    mine = [*study("vcr", "a", [0.6 + gain for gain in gains]), *study("share", "b", (0.7,) * 5)]
    (row,) = ours.beside("wld")(Known.of([*theirs, *mine]))

    assert row.label == CONTROL and row.shown == str(paired(gains).scaled(100))
    assert not [*ours.beside("decov")(Known.of([*theirs, *mine]))]
    assert not [*ours.beside("wld")(Known.of([*study("wld", "c", (0.6,) * 5, "a b"), *mine]))]


def step(arm, seconds, on="resnet50, 96 px", **penalty):
    return [
        Result("resnet50", on, ours.STEP, "ratio", value, process, {"arm": arm} | penalty)
        for process, value in enumerate(seconds)
    ]


def test_a_step_may_take_as_long_as_with_a_norm():
    """Half a hundredth longer is as long; each network of a benchmark is a row."""
    norm = step("batchnorm", (1.05, 1.07, 1.05, 1.06, 1.04))
    known = Known.of([*norm, *step("sampled", (1.052, 1.071, 1.05, 1.062, 1.04))])
    (row,) = ours.beside_norm("sampled")(known)

    assert row.label == "resnet50, 96 px" and row.sides(1) == (True, False)
    known = Known.of([*norm, *step("exact", (1.5, 1.4, 1.5, 1.5, 1.4))])
    assert [row.sides(1) for row in ours.beside_norm("exact")(known)] == [(False, True)]
    assert not [*ours.beside_norm("exact")(Known.of([*norm[:4], *step("exact", (1.5,) * 4)]))]


def test_the_time_of_another_penalty_says_nothing_of_the_paper_s():
    arms = [(arm, (1.1, 1.2, 1.1, 1.3, 1.2)) for arm in ("batchnorm", "sampled", "exact", "naive")]
    other = [r for arm, each in arms for r in step(arm, each, "b", variant="wld", share=0.1)]
    usual = [r for arm, each in arms for r in step(arm, each, "a")]
    for measured in (ours.beside_norm("sampled"), ours.times_less):
        assert [row.label for row in measured(Known.of([*usual, *other]))] == ["a"]


@pytest.mark.parametrize("times, expected", [(6.0, (True, False)), (3.0, (False, True))])
def test_a_fifth_of_the_added_time_is_what_was_claimed(times, expected):
    """Also where a process found nothing added, of which there is no fifth."""
    for added in ((0.1, 0.11, 0.1, 0.1, 0.1), (0.1, 0.11, 0.1, 0.1, -0.001)):
        exact = step("exact", [1 + each for each in added])
        naive = step("naive", [1 + abs(each) * times for each in added])
        (row,) = ours.times_less(Known.of([*exact, *naive]))

        assert row.shown == str(paired(abs(e) * times - 5 * e for e in added).scaled(100))
        if min(added) > 0:
            assert row.sides(1) == expected


def test_late_features_are_asked_in_two_ways_that_must_agree():
    def asked(gap, other, toy):
        return [
            Result("n", toy, ours.STARVED, "auc", 0.5 + (gap if arm == "vcr" else 0) + seed / 1e4,
                   seed, {"arm": arm, "other": other, "alpha": 0.0, "beta": 10.0})
            for arm in ("vcr", "control") for seed in range(5)
        ]  # fmt: skip

    rows = [*asked(0.1, "held", "a"), *asked(-0.1, "drawn anew", "a")]
    rows += [*asked(0.1, "held", "b"), *asked(0.2, "drawn anew", "b")]
    first, second = ours.starved(Known.of(rows))

    assert first.sides(1) == (False, False) and second.sides(1) == (True, False)
    assert not [*ours.starved(Known.of([r for r in rows if r.seed < 4]))]
    assert second.label == "b, alpha 0, beta 10"
    assert "+20.00 [+20.00, +20.00] with the other drawn anew" in second.shown


def test_of_many_lines_those_that_speak_come_first():
    """And a mean; the others are a click away, each once."""
    lines, first = [f"line {i}" for i in range(8)], [i in (3, 7) for i in range(8)]

    assert folded(lines[:6], first[:6]) == "<br>".join(lines[:6])
    shown, _, rest = folded(lines, first).partition("<details>")
    assert shown == "line 3<br>line 7"
    assert rest.startswith("<summary>6 others</summary>line 0<br>line 1<br>line 2<br>line 4")
    assert all(folded(lines, first).count(line) == 1 for line in lines)
    assert "<summary>all 8</summary>" in folded(lines, [False] * 8)
    assert folded(lines, [True] * 8) == "<br>".join(lines)
