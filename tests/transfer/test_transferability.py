import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from vcr_zoo.features import Features
from vcr_zoo.transfer.transferability import h_score, leep, logme, nce


def test_h_score_is_the_trace_it_says(digits):
    """With scikit-learn's Ledoit-Wolf covariance and class means by hand."""
    train = digits[0]
    x, y = train.x.double().numpy(), train.y.numpy()
    estimate = LedoitWolf().fit(x)
    means = np.stack([x[y == c].mean(axis=0) for c in range(10)])[y] - x.mean(axis=0)
    between = means.T @ means / len(x)
    expected = (1 - estimate.shrinkage_) * np.trace(np.linalg.solve(estimate.covariance_, between))

    assert h_score(train) == pytest.approx(expected, rel=1e-6)


def test_h_score_of_labels_themselves_is_classes_minus_one():
    """Features that are the class means: all variation is between the classes."""
    y = torch.arange(3000) % 4
    x = torch.eye(4)[y][:, :3]

    assert h_score(Features(x, y, tuple("abcd"))) == pytest.approx(3, abs=0.02)


def test_logme_is_the_largest_evidence(digits):
    """The marginal likelihood as a normal density, maximized by an independent optimizer."""
    train = digits[0].subset(torch.arange(80))
    train = Features(train.x[:, 10:40:3].double(), train.y % 2, ("even", "odd"))
    x = train.x.numpy()

    def negative(logs, target):
        cov = np.exp(-logs[0]) * x @ x.T + np.exp(-logs[1]) * np.eye(len(x))
        return -multivariate_normal(np.zeros(len(x)), cov).logpdf(target) / len(x)

    targets = [(train.y == c).double().numpy() for c in (0, 1)]
    best = [-minimize(negative, (0, 0), (t,), method="Nelder-Mead").fun for t in targets]

    assert logme(train) == pytest.approx(np.mean(best), abs=1e-4)


def test_logme_takes_more_features_than_pictures(digits):
    """The determinant counts directions without data as well."""
    train = digits[0].subset(torch.arange(50))
    wide = Features(torch.cat([train.x, torch.zeros(50, 100)], dim=1), train.y, train.classes)

    assert logme(wide) == pytest.approx(logme(train), abs=1e-6)


def test_leep_and_nce_are_their_formulas():
    """Written out with loops over pictures and classes."""
    torch.manual_seed(0)
    p = torch.randn(60, 4, dtype=torch.float64).mul(2).softmax(1)
    y = torch.randint(3, (60,))
    joint = [
        [sum(p[i, z] for i in range(60) if y[i] == c) / 60 for z in range(4)] for c in (0, 1, 2)
    ]
    joint = torch.tensor(joint, dtype=torch.float64)
    given = joint / joint.sum(0)
    expected = np.mean(
        [sum(given[y[i], z] * p[i, z] for z in range(4)).log().item() for i in range(60)]
    )
    hard = np.zeros((3, 4))
    for z, c in zip(p.argmax(1), y, strict=True):
        hard[c, z] += 1 / 60
    seen = hard[hard > 0]
    entropy = -(seen * np.log((hard / hard.sum(0))[hard > 0])).sum()

    assert leep(p, y, 3) == pytest.approx(expected)
    assert nce(p, y, 3) == pytest.approx(-entropy)


def test_a_source_head_that_knows_the_classes_scores_zero():
    """Certain and in one-to-one correspondence: nothing is left to learn; never above zero."""
    y = torch.arange(12) % 3
    certain = torch.eye(5)[y + 1]

    assert leep(certain, y, 3) == nce(certain, y, 3) == 0
    assert leep(torch.full((12, 5), 0.2), y, 3) == pytest.approx(-np.log(3), abs=1e-6)


@pytest.mark.parametrize("score", [h_score, logme])
def test_better_features_score_higher(digits, score):
    """Digits' pixels beat the same pixels with noise, and noise alone comes last."""
    train = digits[0]
    noise = torch.randn(train.x.shape, generator=torch.Generator().manual_seed(0))
    mixes = [Features(train.x + size * noise, train.y, train.classes) for size in (0, 0.5, 100)]

    best, middle, worst = map(score, mixes)
    assert best > middle > worst
