"""Information imbalance: do one network's neighborhoods tell another's? (Glielmo et al., 2022)."""

import torch
from torch import Tensor

ROUNDING = 1e-11  # of the mean squared length: squared distances that differ less are equal


def imbalance(a: Tensor, b: Tensor) -> Tensor:
    """2 / n times the rank in b (n, e) of every picture's nearest neighbor in a (n, d): (n,).

    The mean over pictures is the information imbalance from a to b: near 0 where a's neighbors
    are b's, so that a tells all that b knows; 1 where a says nothing about b. Neighbors equally
    near share their ranks. Of n pictures, and rising as they get fewer: compare equal n only.

    Raises:
        ValueError: for fewer than three pictures, different numbers of them, or features that are
            not finite.
    """
    n = len(a)
    if n != len(b) or n < 3:
        raise ValueError(f"undefined because {n} and {len(b)} pictures are not the same, 3 or more")
    rows = [row(i, near, far, n) for i, (near, far) in enumerate(zip(by(a), by(b), strict=True))]
    return 2 / n * torch.stack(rows)


def row(i: int, near: Tensor, far: Tensor, n: int) -> Tensor:
    """Mean rank in b of the nearest in a of picture i, from squared distances (n,) in each."""
    others = torch.arange(n, device=near.device) != i
    near, far = near[others], far[others]
    nearest = far[near == near.min()]
    order = far.sort().values
    below = torch.searchsorted(order, nearest)
    upto = torch.searchsorted(order, nearest, right=True)
    return ((below + 1 + upto).double() / 2).mean()


def by(x: Tensor):
    """Squared distances of each picture in turn from all, rounded so that equal ones are equal."""
    if not x.isfinite().all():
        raise ValueError("undefined because features are not finite")
    x = x.double() - x.double().mean(dim=0)
    squares = x.square().sum(dim=1)
    unit = ROUNDING * squares.mean().clamp(min=torch.finfo(torch.float64).tiny)
    for start in range(0, len(x), 256):
        chunk = slice(start, start + 256)
        distance = squares[chunk, None] + squares - 2 * x[chunk] @ x.T
        yield from (distance / unit).round_()
