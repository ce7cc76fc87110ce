"""How many directions features use, without labels (RankMe: Garrido et al., 2023)."""

import torch

from vcr_zoo.diagnostics.spectrum import spectrum
from vcr_zoo.features import Features

from .check import check


def rankme(features: Features, *, eps: float = 1e-7) -> float:
    """exp of the entropy of the singular values' shares: between 1 and min(n, d).

    The paper's definition, on features as they are, not centered: with singular values s and
    p = s / Σ s + eps, exp(-Σ p log p). `diagnostics` has the rank of the covariance.

    Raises:
        ValueError: for features that `check` refuses, or that are all zero.
    """
    check(given=features)
    values = torch.linalg.svdvals(features.x.double())
    if values.sum() == 0:
        raise ValueError("all features are zero: the network has collapsed")
    p = values / values.sum() + eps
    return (-(p * p.log()).sum()).exp().item()


def participation(features: Features) -> float:
    """(Σ λ)² / Σ λ² of the covariance's eigenvalues λ: a rank that small ones hardly move.

    Raises:
        ValueError: for features that `check` refuses, or that are constant.
    """
    check(given=features)
    values = spectrum(features.x)
    if values.sum() == 0:
        raise ValueError("all pictures have the same features: the network has collapsed")
    return (values.sum().square() / values.square().sum()).item()
