"""How many directions features use, counted in three more ways than the effective rank."""

import torch
from torch import Tensor


def participation_ratio(eigenvalues: Tensor) -> float:
    """(Σ λ)² / Σ λ² of a covariance's eigenvalues: between 1 and d, small ones hardly count.

    Raises:
        ValueError: if all are zero.
    """
    return (varied(eigenvalues).sum().square() / eigenvalues.square().sum()).item()


def stable_rank(eigenvalues: Tensor) -> float:
    """Σ λ / max λ: the squared Frobenius by the squared spectral norm of the centered features.

    Raises:
        ValueError: if all are zero.
    """
    return (varied(eigenvalues).sum() / eigenvalues.max()).item()


def rankme(second: Tensor, n: int, eps: float = 1e-7) -> float:
    """exp of the entropy of the singular values' shares, features not centered (Garrido et al.,
    2023): from their mean product (d, d) over n pictures; between 1 and min(n, d).

    Raises:
        ValueError: if all features are zero.
    """
    squares = torch.linalg.eigvalsh(second).flip(0).clamp(min=0)
    if not squares[0] > 0:
        raise ValueError("undefined because all features are zero")
    rounding = squares[0] * len(squares) * torch.finfo(squares.dtype).eps
    values = squares.masked_fill(squares < rounding, 0.0).sqrt()[: min(n, len(squares))]
    p = values / values.sum() + eps
    return (-(p * p.log()).sum()).exp().item()


def varied(eigenvalues: Tensor) -> Tensor:
    """The eigenvalues, if features vary at all; else a ValueError."""
    if not eigenvalues.max() > 0:
        raise ValueError("undefined because the features are constant")
    return eigenvalues
