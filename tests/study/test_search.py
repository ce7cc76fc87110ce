"""A search over a small Fashion-MNIST of made pictures; and what is chosen from made numbers."""

import csv
import math
import shutil
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vcr_zoo import data
from vcr_zoo.card.book import add_file
from vcr_zoo.card.chosen import chosen_table
from vcr_zoo.cli import main
from vcr_zoo.features import features, load_model
from vcr_zoo.results import read
from vcr_zoo.study import confirm, measure
from vcr_zoo.study.measure import OWN, PROBE, RESULTS
from vcr_zoo.study.search import Plan, search, tried
from vcr_zoo.study.spaces import SPACES, Choice, Range, chosen, words
from vcr_zoo.study.surface import Trial, best_of, best_setting, draw, marginals, report, shared

CONTROL = "test_resnet.base_fmnist4"
OTHER = "test_convnext.base_fmnist4"
PARTS = ("train", "validation")
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
    rows = everything(settings["folder"])

    assert len(rows) == 3 * 3 and len({r.weights for r in rows}) == 3
    assert {(r.metric, r.data) for r in rows} == {
        (OWN, "fmnist"),
        (PROBE, "fmnist"),
        (PROBE, "mnist"),
    }
    assert all(f"--trials {n} --seeds 0 --train-num" in rows[3 * n].command for n in range(3))
    picture = settings["folder"] / f"{CONTROL}-vcr" / "surface.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "best of 3 trials by validation" in told[-2] and "vcr-zoo train --recipe" in told[-2]


def everything(folder, name=CONTROL):
    """What was measured of a recipe as it stands, then of its trials."""
    return [r for n in ("as-it-stands", "vcr") for r in read(folder / f"{name}-{n}" / RESULTS)]


def test_all_that_was_tried_is_a_table(made, tmp_path):
    settings, _ = made
    with (settings["folder"] / "vcr.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = everything(settings["folder"])

    assert [row["trial"] for row in table] == ["0", "1", "2"] and {CONTROL} == {
        row["recipe"] for row in table
    }
    assert [float(row["source"]) for row in table] == pytest.approx(
        [r.value for r in rows if r.metric == OWN], abs=1e-4
    )
    assert [row["vcr_alpha"] for row in table] == ["", *(str(p) for p in alphas())]
    more = {**settings, "folder": tmp_path / "more", "budget": 3, "trials": [3], "tell": list}
    shutil.copytree(settings["folder"], more["folder"])
    assert search([CONTROL], **more) == 0
    with (more["folder"] / "vcr.csv").open(newline="") as file:
        *kept, last = csv.DictReader(file)
    assert kept == table and last["trial"] == "3"


def alphas():
    return [chosen("vcr", 2, None)[number]["vcr_alpha"] for number in (1, 2)]


def test_no_test_part_is_opened(made, monkeypatch):
    """Whatever is chosen with it would no longer be measured on it."""
    settings, _ = made
    monkeypatch.setattr(confirm, "load_test", None)
    monkeypatch.setattr("vcr_zoo.suite.load_test", None)
    monkeypatch.setattr(measure, "load", lambda name, part: data.load(name, part))
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
    rows = everything(settings["folder"])
    doubled = [*rows, *(replace(r, seed=1, value=r.value + 0.1) for r in rows[:3])]
    plan = Plan((CONTROL,), "vcr", 2, chosen("vcr", 2, None), settings["folder"], QUICK)
    one, both = (tried(doubled, plan, CONTROL, seeds) for seeds in ([0], [0, 1]))

    assert [t.number for t in one] == [0, 1, 2] and [t.number for t in both] == [0]
    assert both[0].source == pytest.approx(one[0].source + 0.05)
    again = [*rows, replace(rows[0], value=0.25)]
    assert tried(again, plan, CONTROL, [0])[0].source == 0.25


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
        assert sorted(map(kind.share, values)) == pytest.approx(shares)


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
    assert "the recipe as it stands." in report([start, narrow], SPACES["vcr"], CONTROL)
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
    rows = [everything(tmp_path, name) for name in (CONTROL, OTHER)]

    assert [r.settings for r in rows[0]] == [r.settings for r in rows[1]]
    assert {r.model for r in rows[1]} == {OTHER} and (tmp_path / "vcr.png").exists()
    gain = [100 * (fmean_of(rows_of) - fmean_of(rows_of, start=True)) for rows_of in rows]
    assert f"    1  {sum(gain) / 2:6.2f}" in told[-1]


def fmean_of(rows, start=False):
    """Validation accuracy of the probe on mnist, of trial 1 or of trial 0."""
    first, second = (r.value for r in rows if (r.metric, r.data) == (PROBE, "mnist"))
    return first if start else second


@pytest.mark.parametrize(
    "words, told",
    [
        (["--space", "vrc"], "Closest: vcr"),
        (["--budget", "0"], "try at least one"),
        (["--trials", "41"], "there is no trial 41"),
        (["--jobs", "0"], "--jobs of 1 or more"),
        (["--epoch", "3"], "--epoch"),
        (["--trails", "41"], "unknown option --trails. Closest: --trials."),
        (["--seed", "3"], "give --seeds"),
        (["--confirm", "1", "0"], "seed 0 has a part in the choice"),
        (["--confirm", "1", "--trials", "2", "3"], "add 0 to --trials"),
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


def test_what_is_best_changes_something():
    """Good enough on the source, if any is."""
    start = Trial(0, {}, source=0.9, others=0.8)
    near, far = Trial(1, {"vcr_beta": 1.0}, 0.9, 0.6), Trial(2, {"vcr_beta": 9.0}, 0.8, 0.7)

    assert best_of([start, near, far]) is start
    assert best_setting([start, near, far]) is near and best_setting([start, far]) is far
    assert best_setting([start]) is None


def test_the_best_setting_is_measured_on_test_parts_with_other_seeds(made):
    """By the same network's own predictions, and a probe of scikit-learn's."""
    settings, told = made
    assert search([CONTROL], **settings, confirm=[1, 2]) == 0, told
    rows = read(settings["folder"] / confirm.RESULTS)
    best = max(tried(everything(settings["folder"]), plan_of(settings), CONTROL, [0])[1:], key=last)

    assert {r.seed for r in rows} == {1, 2} and len(rows) == 2 * 2 * 3
    assert {r.settings["setting"] for r in rows} == {"", " ".join(words(best.settings))}
    assert all(r.settings.get("space") == "vcr" for r in rows if r.settings["setting"])
    end = f"--seeds 0 --confirm {{}} {' '.join(QUICK)}"
    assert all(r.command.endswith(end.format(r.seed)) for r in rows)
    one = next(r for r in rows if r.metric == "probe_other_top1" and r.settings["setting"])
    run = settings["folder"] / f"{CONTROL}-vcr" / f"trial{best.number}-seed{one.seed}"
    assert one.value == pytest.approx(probed_by_others(run, "mnist"), abs=0.02)
    gain = 100 * fmean(differences(rows, "probe_other_top1"))
    line = next(line for line in told[-2].splitlines() if line.startswith(f"| `{CONTROL} "))
    assert f"{gain:+.2f} [" in line.split("|")[6] and line.split("|")[7].strip() == "2"
    book = settings["folder"] / "cards.jsonl"
    assert add_file(settings["folder"] / confirm.RESULTS, {CONTROL}, book) == len(rows)
    assert f"| `{CONTROL} {' '.join(QUICK)}` |" in chosen_table(read(book))


def test_what_learns_without_labels_has_its_probes_confirmed(small_sets, tmp_path):
    settings = {"folder": tmp_path, "budget": 1, "options": QUICK, "tell": list}
    assert search(["test_resnet.base_simclr_fmnist"], **settings, confirm=[1]) == 0

    rows = read(tmp_path / confirm.RESULTS)
    assert {(r.metric, r.data) for r in rows} == {
        ("probe_other_top1", "mnist"),
        ("probe_source_top1", "fmnist"),
    }
    assert len(rows) == 2 * 2 and chosen_table(rows).count("test_resnet.base_simclr_fmnist") == 1


def plan_of(settings):
    return Plan((CONTROL,), "vcr", 2, chosen("vcr", 2, None), settings["folder"], QUICK)


def last(trial):
    return trial.others


def differences(rows, metric):
    values = {(r.seed, bool(r.settings["setting"])): r.value for r in rows if r.metric == metric}
    return [values[seed, True] - values[seed, False] for seed in (1, 2)]


def probed_by_others(run, name):
    """Test accuracy of scikit-learn's logistic regression, its C chosen on validation."""
    model = load_model(run)
    train, validation = (features(model, data.load(name, part)) for part in PARTS)
    test = features(model, data.load_test(name))
    fits = [LogisticRegression(C=c, max_iter=5000).fit(train.x, train.y) for c in measure.STRENGTHS]
    best = max(fits, key=lambda fit: fit.score(validation.x, validation.y))
    x, y = torch.cat([train.x, validation.x]), torch.cat([train.y, validation.y])
    return LogisticRegression(C=best.C, max_iter=5000).fit(x, y).score(test.x, test.y)
