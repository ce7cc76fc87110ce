"""A search over a small Fashion-MNIST of made pictures; and what is chosen from made numbers."""

import math
from dataclasses import replace

import pytest

from vcr_zoo import data
from vcr_zoo.cli import main
from vcr_zoo.results import read
from vcr_zoo.study import search as ours
from vcr_zoo.study.search import RESULTS, search
from vcr_zoo.study.spaces import SPACES, Choice, Range, chosen
from vcr_zoo.study.surface import Trial, best_of, draw, marginals, report, shared

CONTROL = "test_resnet.base_fmnist4"
OTHER = "test_convnext.base_fmnist4"
QUICK = ("--train-num-samples", "256", "--epochs", "1", "--batch-size", "64")


@pytest.fixture(scope="module")
def made(small_sets):
    """Trials 0 to 2, and what was told."""
    told = []
    settings = {"folder": small_sets / "out", "budget": 2, "options": QUICK, "tell": told.append}
    assert search([CONTROL], **settings) == 0, told
    return settings, told


def test_every_trial_is_measured_on_validation_and_drawn(made):
    settings, told = made
    folder = settings["folder"] / f"{CONTROL}-vcr"
    rows = read(folder / RESULTS)

    assert len(rows) == 3 * 3 and len({r.weights for r in rows}) == 3
    assert {(r.metric, r.data) for r in rows} == {
        (ours.OWN, "fmnist"),
        (ours.PROBE, "fmnist"),
        (ours.PROBE, "mnist"),
    }
    assert all(f"--trials {n} --seeds 0 --train-num" in rows[3 * n].command for n in range(3))
    assert (folder / "surface.png").read_bytes()[:4] == b"\x89PNG"
    assert "best of 3 trials by validation" in told[-2] and "vcr-zoo train --recipe" in told[-2]


def test_no_test_part_is_opened(made, monkeypatch):
    """Whatever is chosen with it would no longer be measured on it."""
    settings, _ = made
    monkeypatch.setattr("vcr_zoo.data.load_test", None)
    monkeypatch.setattr(ours, "load", lambda name, part: data.load(name, part))
    (settings["folder"] / f"{CONTROL}-vcr" / RESULTS).unlink()

    assert search([CONTROL], **settings) == 0


def test_what_was_tried_is_not_tried_again(made, monkeypatch):
    settings, told = made
    path = settings["folder"] / f"{CONTROL}-vcr" / RESULTS
    before = path.read_bytes()
    monkeypatch.setattr("vcr_zoo.study.runs.train", None)

    assert search([CONTROL], **settings) == 0 and path.read_bytes() == before
    assert search([CONTROL], **{**settings, "trials": [2]}) == 0 and "of 1 trials" in told[-2]


def test_trials_are_compared_over_the_same_seeds(made):
    """Of those that lack one nothing is said but how many they are."""
    settings, _ = made
    folder = settings["folder"] / f"{CONTROL}-vcr"
    rows = [r for r in read(folder / RESULTS)]
    doubled = [*rows, *(replace(r, seed=1, value=r.value + 0.1) for r in rows[:3])]
    wanted = chosen("vcr", 2, None)
    one, both = (ours.tried(doubled, wanted, seeds, CONTROL, QUICK) for seeds in ([0], [0, 1]))

    assert [t.number for t in one] == [0, 1, 2] and [t.number for t in both] == [0]
    assert both[0].source == pytest.approx(one[0].source + 0.05)
    again = [*rows, replace(rows[0], value=0.25)]
    assert ours.tried(again, wanted, [0], CONTROL, QUICK)[0].source == 0.25


def test_more_trials_begin_with_the_same_ones():
    """So that a larger budget goes on where a smaller one ended."""
    few, many = (chosen("vcr", budget, None) for budget in (5, 40))

    assert few == {number: many[number] for number in few}
    assert many[0] == {} and len(many) == 41 and chosen("vcr", 40, [7]) == {7: many[7]}


@pytest.mark.parametrize("space", SPACES)
def test_settings_are_spread_over_the_whole_space(space):
    points = [point for number, point in chosen(space, 64, None).items() if number]

    for name, kind in SPACES[space].items():
        values = [point[name] for point in points]
        if isinstance(kind, Choice):
            counts = [values.count(value) for value in kind.values]
            assert max(counts) - min(counts) <= 2
            continue
        assert isinstance(kind, Range)
        scale = math.log if kind.log else float
        low, high = scale(kind.low), scale(kind.high)
        shares = sorted((scale(value) - low) / (high - low) for value in values)
        assert all(abs(share - (i + 0.5) / 64) < 0.03 for i, share in enumerate(shares))


def test_the_best_is_good_on_other_sets_and_good_enough_on_the_source():
    choices = {"vcr_layers": "pooled", "vcr_delta": 1.0}
    start = Trial(0, {}, source=0.9, others=0.5)
    narrow = Trial(1, {"vcr_alpha": 9.0} | choices, source=0.894, others=0.7)  # 0.6 points lost
    good = Trial(2, {"vcr_alpha": 1.0} | choices, source=0.896, others=0.6)

    assert best_of([start, narrow, good]) is good
    assert best_of([start, narrow]) is start
    lines = report([start, narrow, good], SPACES["vcr"], CONTROL).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "0"]
    best = "--vcr-alpha 1.0 --vcr-layers pooled --vcr-delta 1.0"
    assert lines[2].endswith(f"{best} <- best")
    assert lines[-1].endswith(f"vcr-zoo train --recipe {CONTROL} {best}")
    assert not any(line.startswith("vcr_layers stages") for line in lines)
    other = Trial(2, {"vcr_layers": "blocks", "vcr_delta": 1.0}, source=0.9, others=0.5)
    third = Trial(3, choices, source=0.9, others=0.6)
    lines = marginals([start, narrow, other, third], SPACES["vcr"]).splitlines()
    assert "vcr_layers pooled: +5.00 ± 5.00 (2 trials)" in lines
    assert "vcr_layers blocks: -10.00 ± nan (1 trials)" in lines


def test_several_recipes_are_judged_by_what_each_gains():
    """A network that is better anyway has no say of its own; one that was not tried throughout
    leaves a trial out."""
    good, bad = {"vcr_beta": 1.0}, {"vcr_beta": 9.0}
    one = [Trial(0, {}, 0.90, 0.50), Trial(1, good, 0.91, 0.52), Trial(2, bad, 0.90, 0.56)]
    two = [Trial(0, {}, 0.98, 0.70), Trial(1, good, 0.976, 0.73), Trial(2, bad, 0.96, 0.74)]
    found = shared([one, two])

    assert [t.number for t in found] == [0, 1, 2] and found[0] == Trial(0, {}, 0.0, 0.0)
    assert found[1].others == pytest.approx(0.025) and found[1].source == pytest.approx(-0.004)
    assert best_of(found) is found[1]  # the other loses two points on one source
    assert [t.number for t in shared([one, two[:2]])] == [0, 1] and not shared([one, two[1:]])


def test_several_recipes_try_the_same_settings(made, tmp_path):
    settings, told = made[0], []
    settings = {**settings, "budget": 1, "folder": tmp_path, "tell": told.append}
    assert search([CONTROL, OTHER], **settings) == 0, told
    rows = [read(tmp_path / f"{name}-vcr" / RESULTS) for name in (CONTROL, OTHER)]

    assert [r.settings for r in rows[0]] == [r.settings for r in rows[1]]
    assert {r.model for r in rows[1]} == {OTHER} and (tmp_path / "vcr.png").exists()
    gain = [100 * (fmean_of(rows_of) - fmean_of(rows_of, start=True)) for rows_of in rows]
    assert f"    1  {sum(gain) / 2:6.2f}" in told[-1]


def fmean_of(rows, start=False):
    """Validation accuracy of the probe on mnist, of trial 1 or of trial 0."""
    first, second = (r.value for r in rows if (r.metric, r.data) == (ours.PROBE, "mnist"))
    return first if start else second


@pytest.mark.parametrize(
    "words, told",
    [
        (["--space", "vrc"], "Closest: vcr"),
        (["--budget", "0"], "try at least one"),
        (["--trials", "41"], "there is no trial 41"),
        (["--jobs", "0"], "--jobs of 1 or more"),
        (["--epoch", "3"], "--epoch"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(words, told, tmp_path, capsys):
    assert main(["search", CONTROL, "--output", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("space", SPACES)
def test_any_space_has_a_surface(space, tmp_path):
    """Also where a panel has no trial yet, and where there is nothing but the recipe."""
    trials = [
        Trial(number, settings, source=0.9 - 0.001 * number, others=0.5 + 0.01 * (number % 5))
        for number, settings in chosen(space, 9, None).items()
    ]
    for shown in (trials, trials[:2], trials[:1]):
        draw(shown, SPACES[space], tmp_path / "surface.png", "made up")
        assert (tmp_path / "surface.png").stat().st_size > 10_000
