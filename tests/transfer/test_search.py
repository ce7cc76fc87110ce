import pytest

from vcr_zoo.transfer.search import best_depth, climb, narrow


def test_climbing_follows_what_helps():
    """A single peak at lr 0.9, wd 0.01, three and one steps away."""
    asked = []

    def value(found):
        asked.append(found)
        return -abs(found["lr"] / 0.9 - 1) - abs(found["wd"] / 0.01 - 1)

    start = {"lr": 0.1, "wd": 0.1}
    best, trials = climb(value, start, {"lr": 3.0, "wd": 10.0}, budget=9)

    assert best == {"lr": pytest.approx(0.9), "wd": pytest.approx(0.01)}
    assert len(trials) == len(asked) <= 9 and trials[0][0] == start


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_climbing_keeps_to_its_budget(budget):
    _, trials = climb(lambda found: found["lr"], {"lr": 1.0}, {"lr": 2.0}, budget)

    assert len(trials) == budget


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="budget"):
        climb(lambda found: 0.0, {"lr": 1.0}, {}, 0)


@pytest.mark.parametrize("last", [8, 16, 33])
def test_narrowing_takes_a_third_of_the_depths(last):
    for peak in range(last + 1):
        looked = narrow(lambda t, peak=peak: -abs(t - peak), last)
        assert len(looked) <= (last + 1) / 3 and set(looked) <= set(range(last + 1))


@pytest.mark.parametrize("last, runs", [(4, 3), (8, 3), (16, 5), (33, 11)])
def test_narrowing_can_choose_the_ends(last, runs):
    """Nothing frozen, and all blocks, win where they are best."""
    for peak in (0, last):
        assert best_depth(narrow(lambda t, peak=peak: -abs(t - peak), last, runs)) == peak


def test_climbing_does_not_multiply_zero():
    _, trials = climb(lambda found: 0.0, {"lr": 1.0, "wd": 0.0}, {"wd": 10.0, "lr": 3.0}, 4)

    assert all(found["wd"] == 0 for found, _ in trials)
    assert len({found["lr"] for found, _ in trials}) == len(trials)


def test_narrowing_finds_a_single_peak_given_runs_enough():
    for peak in range(34):
        assert best_depth(narrow(lambda t, peak=peak: -abs(t - peak), 33, budget=12)) == peak


def test_of_few_depths_all_may_be_looked_at():
    assert best_depth(narrow([0.1, 0.5, 0.2].__getitem__, 2)) == 1


def test_of_equal_depths_the_deepest_is_taken():
    """It costs least."""
    assert best_depth({0: 0.5, 3: 0.7, 6: 0.7, 8: 0.6}) == 6
