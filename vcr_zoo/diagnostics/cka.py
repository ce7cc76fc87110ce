"""How alike two networks' features are, whatever rotation and scale (Kornblith et al., 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of features (n, d) and (n, e) of the same n pictures, debiased; 1 means equal up
    to rotation and scale, and for unrelated features the expectation is 0.

    Uses the unbiased estimator of HSIC (Song et al., 2012; Nguyen, Raghu and Kornblith, 2021):
    the plain one calls few pictures of wide features alike. It can fall slightly below 0.

    Raises:
        ValueError: for fewer than four pictures, different numbers of them, or constant features.
    """
    if len(a) != len(b) or len(a) < 4:
        raise ValueError(f"{len(a)} and {len(b)} pictures: CKA needs the same, four or more")
    a, b = centered(a), centered(b)
    return normalized(hsic(a, b), hsic(a, a), hsic(b, b))


def centered(x: Tensor) -> Tensor:
    """Features less their mean, float64; a feature that only rounding moves is zero."""
    x = x.double()
    left = x - x.mean(dim=0)
    constant = left.abs().amax(dim=0) <= 1e-7 * x.abs().amax(dim=0)
    return left.masked_fill(constant, 0.0)


def normalized(ab: float, aa: float, bb: float) -> float:
    """CKA from the HSIC of two networks and of each with itself."""
    if min(aa, bb) <= 0:
        raise ValueError("features of one network hardly vary: its CKA with others is not defined")
    return ab / (aa * bb) ** 0.5


def hsic(a: Tensor, b: Tensor) -> float:
    """Unbiased HSIC of linear kernels K = AAᵀ and L = BBᵀ with their diagonals set to zero:

        [tr KL + 1ᵀK1 1ᵀL1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1ᵀKL1] / (n (n - 3)).

    Written with features only, so that no (n, n) matrix is needed.
    """
    n = len(a)
    k, m = a.square().sum(dim=1), b.square().sum(dim=1)  # the diagonals taken away
    row_k, row_m = a @ a.sum(dim=0) - k, b @ b.sum(dim=0) - m  # K1 and L1
    trace = (a.T @ b).square().sum() - (k * m).sum()
    corner = row_k.sum() * row_m.sum() / ((n - 1) * (n - 2))
    return ((trace + corner - 2 / (n - 2) * (row_k @ row_m)) / (n * (n - 3))).item()


def kernel(x: Tensor) -> Tensor:
    """Products of centered features, zero on the diagonal: (n, d) -> (n, n)."""
    x = centered(x)
    return (x @ x.T).fill_diagonal_(0)


def kernel_hsic(k: Tensor, m: Tensor) -> float:
    """`hsic` of kernels (n, n) that are there already, as for a map of many placements.

    Raises:
        ValueError: for fewer than four pictures.
    """
    n = len(k)
    if n < 4:
        raise ValueError(f"{n} pictures: CKA needs four or more")
    corner = k.sum() * m.sum() / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * (k.sum(dim=1) @ m.sum(dim=1))
    return (((k * m).sum() + corner - rows) / (n * (n - 3))).item()


def pairwise(features: Sequence[Tensor]) -> Tensor:
    """CKA of every pair of networks, ones on the diagonal: m of (n, d) -> (m, m)."""
    table = torch.eye(len(features), dtype=torch.float64)
    for i, a in enumerate(features):
        for j, b in enumerate(features[:i]):
            table[i, j] = table[j, i] = cka(a, b)
    return table
