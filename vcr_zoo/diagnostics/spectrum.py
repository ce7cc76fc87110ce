"""How many directions features use, and how alike they are: from their covariance."""

import torch
from torch import Tensor

from vcr_zoo.penalty import covariance, off_diagonal


def spectrum(features: Tensor) -> Tensor:
    """Eigenvalues of the features' covariance, largest first: (n, d) -> (d,), float64.

    Raises:
        ValueError: for fewer than two pictures, or features that are not finite.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least two pictures, not {len(features)}")
    return torch.linalg.eigvalsh(covariance(finite(features).double())).flip(0).clamp(min=0)


def effective_rank(eigenvalues: Tensor) -> float:
    """exp of the entropy of the eigenvalues' shares: between 1 and d (Roy and Vetterli, 2007).

    Raises:
        ValueError: if all eigenvalues are zero, as those of constant features are.
    """
    total = eigenvalues.sum()
    if not total > 0:
        raise ValueError("the effective rank is undefined because the features are constant")
    share = eigenvalues / total
    return torch.special.entr(share).sum().exp().item()


def correlation(features: Tensor) -> float:
    """Mean absolute correlation between distinct features that are not constant: (n, d) -> [0, 1].

    Raises:
        ValueError: if fewer than two features vary, or features are not finite.
    """
    cov = covariance(finite(features).double())
    std = cov.diagonal().sqrt()
    varying = std > 1e-9 * std.max()
    if varying.sum() < 2:
        raise ValueError("correlation is undefined because fewer than two features vary")
    std = std[varying]
    size = off_diagonal(cov[varying][:, varying] / std.outer(std)).abs()
    return (size.sum() / (len(std) * (len(std) - 1))).item()


def finite(features: Tensor) -> Tensor:
    """The features, if every one is a number; else a ValueError."""
    if not features.isfinite().all():
        raise ValueError("the features are not finite")
    return features
