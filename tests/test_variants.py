"""Other penalties: each against what it is said to compute, written out again."""

import pytest
import torch

from vcr_zoo.penalty import penalty
from vcr_zoo.variants import VARIANTS, correlation, listing, relative, wld

SETTINGS = (0.7, 0.5, 1.0, 1e-4, 36)  # the last: samples in all


@pytest.fixture
def features():
    torch.manual_seed(0)
    scales = torch.tensor([0.3, 1.0, 2.0, 0.7, 1.4], dtype=torch.float64)
    return torch.randn(12, 5, dtype=torch.float64) * scales


@pytest.mark.parametrize("name", sorted({*VARIANTS} - {"relative"}))
def test_gradients_are_derivatives(name, features):
    """The scale of `relative` has none, so it is apart."""
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: VARIANTS[name](x, *SETTINGS), (features,))


def test_the_listing_has_another_beta_and_squares_all(features):
    """Whatever delta is, and however few of all samples take part."""
    alpha, beta, _, eps, total = SETTINGS
    expected = penalty(features, alpha, (total - 1) * beta, delta=None, eps=eps)
    assert torch.equal(listing(features, *SETTINGS), expected)


def test_relative_features_have_no_unit(features):
    """Neither the penalty nor what the gradient does relative to the features' size."""
    one, large = features.clone().requires_grad_(), (100 * features).requires_grad_()
    settings = (0.7, 0.5, 1.0, 1e-12, 12)
    small_penalty, large_penalty = relative(one, *settings), relative(large, *settings)
    small_penalty.backward()
    large_penalty.backward()

    assert large_penalty.item() == pytest.approx(small_penalty.item())
    torch.testing.assert_close(100 * large.grad, one.grad)
    unit = features / features.var(dim=0).mean().sqrt()
    expected = penalty(unit, 0.7, 0.5, delta=1.0, eps=1e-12)
    assert small_penalty.item() == pytest.approx(expected.item())


def test_correlation_is_numpys(features):
    matrix = torch.corrcoef(features.T)
    squares = matrix.square().sum() - 5
    assert correlation(features, 0, 2.0, None, 1e-12, 12).item() == pytest.approx(2 * squares / 20)


def test_similarity_is_a_mean_over_samples_and_pairs(features):
    rows = features.tolist()
    total = sum(
        torch.exp(torch.tensor(-10.0 * (row[i] - row[j]) ** 2, dtype=torch.float64)).item()
        for row in rows
        for i in range(5)
        for j in range(5)
        if i != j
    )
    assert wld(features, 0, 3.0, None, 1e-4, 12).item() == pytest.approx(3 * total / 12 / 20)
