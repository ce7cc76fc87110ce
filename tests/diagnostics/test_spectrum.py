"""Spectrum, effective rank and correlation, where mathematics says what they are."""

import math

import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.spectrum import correlation, effective_rank, spectrum


def features(n=500, d=6):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mixing + 5.0


def test_the_spectrum_is_numpys():
    x = features()
    expected = np.linalg.eigvalsh(np.cov(x.double().numpy(), rowvar=False))[::-1]

    np.testing.assert_allclose(spectrum(x).numpy(), expected, rtol=1e-9)


def test_the_correlation_is_numpys():
    x = features()
    matrix = np.abs(np.corrcoef(x.double().numpy(), rowvar=False))
    expected = matrix[~np.eye(6, dtype=bool)].mean()

    assert correlation(x) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_counts_equal_directions():
    """k equal eigenvalues and zeros beside them: rank k."""
    for k in (1, 3, 8):
        eigenvalues = torch.tensor([2.5] * k + [0.0] * (8 - k))
        assert effective_rank(eigenvalues) == pytest.approx(k)


def test_effective_rank_is_the_exponential_of_entropy():
    shares = [0.5, 0.25, 0.25]
    entropy = -sum(p * math.log(p) for p in shares)

    assert effective_rank(torch.tensor([4.0, 2.0, 2.0])) == pytest.approx(math.exp(entropy))


def test_rotating_features_changes_neither_spectrum_nor_rank():
    x = features().double()
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))

    torch.testing.assert_close(spectrum(x @ rotation), spectrum(x))


def test_a_copied_feature_is_perfectly_correlated_whatever_its_sign_and_scale():
    x = torch.randn(50, 1)

    assert correlation(torch.cat([x, -3 * x, 0.01 * x + 7], dim=1)) == pytest.approx(1, abs=1e-6)


def test_a_constant_feature_has_no_correlation():
    x = features()
    padded = torch.cat([x, torch.full((len(x), 1), 3.0)], dim=1)

    assert correlation(padded) == pytest.approx(correlation(x))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: effective_rank(spectrum(torch.ones(9, 4))), "undefined because .* constant"),
        (lambda: correlation(torch.ones(9, 4)), "undefined because fewer than two"),
        (lambda: spectrum(torch.ones(1, 4)), "at least two pictures"),
        (lambda: spectrum(torch.full((3, 4), math.nan)), "not finite"),
        (lambda: correlation(torch.full((3, 4), math.nan)), "not finite"),
    ],
)
def test_what_is_undefined_is_said_so(call, words):
    with pytest.raises(ValueError, match=words):
        call()
