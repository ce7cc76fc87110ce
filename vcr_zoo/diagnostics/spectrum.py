"""How many directions features use, and how alike they are: from their covariance."""

import torch
from torch import Tensor

from vcr_zoo.geometry import effective_rank as effective_rank
from vcr_zoo.penalty import covariance, off_diagonal


def spectrum(features: Tensor) -> Tensor:
    """Eigenvalues of the features' covariance, largest first: (n, d) -> (d,), float64.

    Raises:
        ValueError: for fewer than two pictures, or features that are not finite.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least two pictures, not {len(features)}")
    return eigenvalues(covariance(finite(features).double()))


def eigenvalues(cov: Tensor) -> Tensor:
    """Of a covariance, largest first; those that rounding leaves are zero: (d, d) -> (d,)."""
    values = torch.linalg.eigvalsh(cov).flip(0)
    return values.masked_fill(values < len(values) * torch.finfo(values.dtype).eps * values[0], 0.0)


def correlation(features: Tensor) -> float:
    """Mean absolute correlation between distinct features that are not constant: (n, d) -> [0, 1].

    Raises:
        ValueError: if fewer than two features vary, or features are not finite.
    """
    cov = covariance(finite(features).double())
    variance = cov.diagonal()
    constant = variance <= 1e-18 * variance.max()
    return mean_correlation(cov.masked_fill(constant | constant[:, None], 0.0))


def mean_correlation(cov: Tensor) -> float:
    """Mean absolute correlation between distinct features that vary, from their covariance.

    Of unrelated features it is sqrt(2 / (pi n)) for n pictures, not 0.

    Raises:
        ValueError: if fewer than two features vary.
    """
    size = off_diagonal(correlations(cov)).abs()
    d = len(size)
    if d < 2:
        raise ValueError("correlation is undefined because fewer than two features vary")
    return (size.sum() / (d * (d - 1))).item()


def correlations(cov: Tensor) -> Tensor:
    """Correlations of the features that vary: (d, d) -> (varying, varying)."""
    varying = cov.diagonal() > 0
    std = cov.diagonal()[varying].sqrt()
    return cov[varying][:, varying] / std.outer(std)


def finite(features: Tensor) -> Tensor:
    """The features, if every one is a number; else a ValueError."""
    if not features.isfinite().all():
        raise ValueError("the features are not finite")
    return features
