"""Every measurement that moments give: numpy's own, mathematics', and defined for anything."""

import itertools
import math

import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics import deviations, ranks
from vcr_zoo.diagnostics.cka import cka
from vcr_zoo.diagnostics.collapse import disagreement, nearest_class_correct, self_duality
from vcr_zoo.diagnostics.imbalance import imbalance
from vcr_zoo.diagnostics.information import information
from vcr_zoo.diagnostics.inspect import alike
from vcr_zoo.diagnostics.measured import jackknifed, mean_of, measured
from vcr_zoo.diagnostics.measures import MEASURES, measure
from vcr_zoo.diagnostics.moments import moments_of

from .made import DEGENERATE, labelled, normal, simplex
from .test_moments import gathered

X, Y = labelled(300, 6, 4)
A, LABELS = X.numpy(), Y.numpy()


def eigenvalues(a):
    return np.linalg.eigvalsh(np.cov(a, rowvar=False))[::-1]


def entropy_rank(p):
    p = p[p > 0] / p.sum()
    return math.exp(-(p * np.log(p)).sum())


def class_means(a, labels):
    return np.stack([a[labels == k].mean(0) for k in np.unique(labels)])


def direct_rankme(a):
    s = np.linalg.svd(a, compute_uv=False)
    p = s / s.sum() + 1e-7
    return math.exp(-(p * np.log(p)).sum())


def direct_correlation(a):
    r = np.abs(np.corrcoef(a, rowvar=False))
    return r[~np.eye(len(r), dtype=bool)].mean()


def direct_cdnv(a, labels):
    values = []
    for i, j in itertools.combinations(np.unique(labels), 2):
        own, other = a[labels == i], a[labels == j]
        spread = [x.var(0, ddof=1).sum() for x in (own, other)]
        apart = ((own.mean(0) - other.mean(0)) ** 2).sum()
        apart -= spread[0] / len(own) + spread[1] / len(other)
        values.append(sum(spread) / (2 * apart))
    return np.mean(values)


def direct_nc1(a, labels):
    means, n = class_means(a, labels), len(a)
    left = a - means[labels]
    shifted = (means - a.mean(0))[labels]
    within, between = left.T @ left / n, shifted.T @ shifted / n
    return np.trace(within @ np.linalg.pinv(between, rcond=1e-8)) / len(means)


def direct_cosines(a, labels):
    means = class_means(a, labels)
    means = means - means.mean(0)
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    return np.array([unit[i] @ unit[j] for i, j in itertools.combinations(range(len(unit)), 2)])


def direct_lengths(a, labels):
    means = class_means(a, labels)
    return np.linalg.norm(means - means.mean(0), axis=1)


DIRECT = {
    "deviation": lambda a, y: a.std(0, ddof=1).mean(),
    "below_target": lambda a, y: (a.std(0, ddof=1) < 1).mean(),
    "dead": lambda a, y: 0.0,
    "correlation": lambda a, y: direct_correlation(a),
    "effective_rank": lambda a, y: entropy_rank(eigenvalues(a)),
    "rankme": lambda a, y: direct_rankme(a),
    "participation": lambda a, y: eigenvalues(a).sum() ** 2 / (eigenvalues(a) ** 2).sum(),
    "stable_rank": lambda a, y: eigenvalues(a).sum() / eigenvalues(a)[0],
    "cdnv": direct_cdnv,
    "nc1": direct_nc1,
    "equinorm": lambda a, y: direct_lengths(a, y).std() / direct_lengths(a, y).mean(),
    "equiangularity": lambda a, y: direct_cosines(a, y).std(),
    "maximal_angle": lambda a, y: np.abs(direct_cosines(a, y) + 1 / 3).mean(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_what_numpy_computes_directly(name):
    """One pass in batches, and the textbook on the whole array."""
    found, expected = measure(gathered(X, Y))[name], DIRECT[name](A, LABELS)
    if MEASURES[name].rank:  # corrected by leaving out every tenth picture in turn
        keep = [np.arange(300) % 10 != k for k in range(10)]
        expected = 10 * expected - 0.9 * sum(DIRECT[name](A[k], LABELS[k]) for k in keep)

    assert found.value == pytest.approx(expected, rel=1e-6, abs=1e-9)
    if name in ("dead", "below_target"):  # the same whatever is left out
        assert found.low is None
    else:
        assert found.low < found.value < found.high


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_a_number_or_says_why_not(name, case):
    """`Measured` cannot hold NaN, so computing it is the test; reasons name themselves."""
    x, y = DEGENERATE[case]
    found = measure(gathered(x, y))[name]

    if found.value is None:
        assert found.because.startswith("undefined because ")
    else:
        row = MEASURES[name]
        assert row.least * (1 - 1e-6) <= found.value <= row.most * (1 + 1e-6)


@pytest.mark.parametrize("case", DEGENERATE)
def test_measures_of_single_pictures_are_numbers_or_say_why_not(case):
    x, y = DEGENERATE[case]
    m = moments_of(x, y)
    found = [
        mean_of(nearest_class_correct, x, y, m),
        mean_of(information, x, y),
        mean_of(imbalance, x, x.flip(1)),
        alike(x, x.flip(1)),
        measured(cka, x, x),
        measured(self_duality, m, torch.ones(4, x.shape[1])),
    ]

    for one in found:
        assert one.value is not None or one.because.startswith("undefined because ")


def test_what_is_undefined_is_undefined_for_its_reason():
    """One class has no distances, a constant network no directions; both have deviations."""
    one_class, zero = (measure(gathered(*DEGENERATE[c])) for c in ("one class", "a zero network"))

    assert "only 1 class" in one_class["cdnv"].because
    assert one_class["effective_rank"].value > 1
    assert "constant" in zero["effective_rank"].because
    assert "all features are zero" in zero["rankme"].because
    assert "fewer than two features vary" in zero["correlation"].because
    assert "same mean" in zero["cdnv"].because
    assert zero["deviation"].value == 0 and zero["dead"].value == 1


def test_a_given_covariance_has_its_spectrum_and_ranks():
    """Eigenvalues 4, 2, 1, 1: their shares give every rank; 40,000 pictures are within 2 %."""
    scale = torch.tensor([4.0, 2, 1, 1], dtype=torch.float64).sqrt()
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    x = normal(40_000, 4, mixing=False) * scale @ rotation
    m = moments_of(x + 7)
    p = np.array([0.5, 0.25, 0.125, 0.125])

    np.testing.assert_allclose(m.eigenvalues, [4, 2, 1, 1], rtol=0.04)
    assert MEASURES["effective_rank"].of(m) == pytest.approx(entropy_rank(p), rel=0.02)
    assert MEASURES["participation"].of(m) == pytest.approx(1 / (p**2).sum(), rel=0.02)
    assert MEASURES["stable_rank"].of(m) == pytest.approx(2, rel=0.02)
    assert deviations.mean_deviation(m) == pytest.approx(x.std(dim=0).mean().item())


def test_given_class_means_and_variances_have_their_cdnv():
    """Two classes of variance d at distance a: d / a², to Monte-Carlo error."""
    y = torch.arange(40_000) % 2
    x = normal(40_000, 8, mixing=False)
    x[:, 0] += 4 * y

    assert MEASURES["cdnv"].of(moments_of(x, y)) == pytest.approx(8 / 16, rel=0.03)


def test_intervals_hold_the_truth_at_their_level():
    """Effective rank and CDNV of 100 samples of 300, against one of 200,000."""
    scale = torch.linspace(2, 0.5, 5, dtype=torch.float64)

    def sample(n, seed):
        y = torch.arange(n) % 2
        x = normal(n, 5, seed, mixing=False) * scale
        x[:, 1] += 3 * y
        return x, y

    whole = moments_of(*sample(200_000, 999))
    for name in ("effective_rank", "cdnv"):
        truth, held = MEASURES[name].of(whole), 0
        for seed in range(100):
            parts = gathered(*sample(300, seed), batch=300)
            found = jackknifed(MEASURES[name].of, parts.whole(), parts.without())
            held += found.low <= truth <= found.high
        assert 85 <= held <= 100, name


@pytest.mark.parametrize("name", ["effective_rank", "participation"])
def test_few_pictures_do_not_take_directions_away(name):
    """100 pictures of 64 features: by definition a fifth too few, corrected nearly none."""
    variance = torch.linspace(0, -4.5, 64, dtype=torch.float64).exp()
    share = (variance / variance.sum()).numpy()
    truth = {"effective_rank": entropy_rank(share), "participation": 1 / (share**2).sum()}[name]
    plain, found = [], []
    for seed in range(20):
        x = normal(100, 64, seed, mixing=False) * variance.sqrt()
        parts = gathered(x, torch.zeros(100, dtype=torch.int64))
        plain.append(MEASURES[name].of(parts.whole()))
        found.append(measure(parts)[name].value)

    assert np.mean(plain) < 0.82 * truth
    assert np.mean(found) == pytest.approx(truth, rel=0.08)


@pytest.mark.parametrize("each", [5, 14, 80])
def test_cdnv_is_the_same_of_few_pictures_as_of_many(each):
    """Ten classes of 96 features: around their own mean few pictures seem collapsed."""
    y = torch.arange(10 * each) % 10
    values = []
    for seed in range(10):
        means = 96**0.5 * torch.eye(10, 96, dtype=torch.float64)
        values.append(
            MEASURES["cdnv"].of(moments_of(normal(len(y), 96, seed, False) + means[y], y))
        )

    assert np.mean(values) == pytest.approx(0.5, rel=0.02)


def test_one_picture_in_each_class_is_not_collapse():
    """Nothing tells how pictures of a class differ; without an interval of nothing."""
    x = normal(12, 8)
    y = torch.arange(12)
    found, m = measure(gathered(x, y)), moments_of(x, y)
    others = [mean_of(nearest_class_correct, x, y, m), mean_of(disagreement, x, y, m)]

    for one in (found["cdnv"], found["nc1"], *others):
        assert one.because == "undefined because every class has one picture"
    assert found["equinorm"].value > 0


def test_a_class_of_one_picture_is_left_out_of_cdnv():
    x, y = labelled(60, 5)
    alone = torch.cat([x, 3 * x[:1]]), torch.cat([y, torch.tensor([4])])

    assert MEASURES["cdnv"].of(moments_of(*alone)) == pytest.approx(
        MEASURES["cdnv"].of(moments_of(x, y))
    )


def test_perfect_collapse_is_zero_everywhere():
    """NC1 to NC3 and CDNV at 0, nearest means always right."""
    x, y = simplex()
    m = moments_of(x, y)
    found = measure(gathered(x, y))

    for name in ("cdnv", "nc1", "equinorm", "equiangularity", "maximal_angle"):
        assert found[name].value == pytest.approx(0, abs=1e-12), name
    assert nearest_class_correct(x, y, m).mean() == 1
    assert self_duality(m, m.class_means * 3 + 1) == pytest.approx(0, abs=1e-7)


def test_dead_features_are_counted():
    """Three alive, one constant, one a thousand times too quiet."""
    x = torch.cat([normal(200, 3), torch.ones(200, 1), 1e-3 * normal(200, 1, mixing=False)], dim=1)

    assert deviations.dead_share(moments_of(x)) == pytest.approx(0.4)


def test_rankme_agrees_with_the_protocols_own():
    """`transfer` computes it from the features themselves."""
    from vcr_zoo.features import Features
    from vcr_zoo.transfer.rankme import rankme

    for x in (X, DEGENERATE["fewer pictures than features"][0]):
        m = moments_of(x)
        features = Features(x, torch.zeros(len(x), dtype=torch.int64), ("a",))
        assert ranks.rankme(m.second, m.n) == pytest.approx(rankme(features), rel=1e-4)
