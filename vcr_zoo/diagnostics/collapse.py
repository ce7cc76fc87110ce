"""Neural collapse, NC1 to NC4, and nearest class means (Papyan, Han and Donoho, 2020).

A classifier trained far beyond zero error forgets everything about a picture but its class: class
means become a simplex, pictures their class mean, the classifier those means. VCR works against it.
"""

import torch
from torch import Tensor

from .cdnv import centered_means
from .moments import Moments


def within_between(m: Moments) -> float:
    """NC1: tr(Σ_W Σ_B⁺) / k of the scatter within and between k classes; 0 is perfect collapse.

    Classes count by their share of the pictures.

    Raises:
        ValueError: for fewer than two classes, one picture in each, or classes that all have the
            same mean.
    """
    comparable(m)
    share = m.count[m.present] / m.n
    means = (m.class_means - m.mean) * share.sqrt()[:, None]  # Σ_B = meansᵀ means
    values, directions = torch.linalg.svd(means, full_matrices=False)[1:]
    squares = values.square()
    kept = squares > max(1e-10 * squares[0].item(), m.rounding.sum().item())
    if not kept.any():
        raise ValueError("undefined because all classes have the same mean")
    directions, squares = directions[kept], squares[kept]  # (r, d), (r,)
    total = m.covariance * ((m.n - 1) / m.n)
    along = ((directions @ total) * directions).sum(dim=1)  # vᵀ (Σ_W + Σ_B) v
    spread = (along - squares).clamp(min=0)  # vᵀ Σ_W v
    spread = spread.masked_fill(spread <= m.rounding.sum() + 1e-14 * along, 0.0)
    return ((spread / squares).sum() / len(share)).item()


def equinorm(m: Moments) -> float:
    """NC2: deviation of the centered class means' lengths by their mean length; 0 when equal."""
    length = lengths(m)
    return (length.std(correction=0) / length.mean()).item()


def equiangularity(m: Moments) -> float:
    """NC2: deviation of the cosines between centered class means; 0 when all angles are equal."""
    return cosines(m).std(correction=0).item()


def maximal_angle(m: Moments) -> float:
    """NC2: mean distance of those cosines from -1 / (k - 1), a simplex's; 0 is perfect collapse."""
    return (cosines(m) + 1 / (len(m.present) - 1)).abs().mean().item()


def self_duality(m: Moments, weight: Tensor) -> float:
    """NC3: |W / |W| - M / |M|| of a classifier's weights W (classes, d), less their mean, and the
    centered class means M; 0 when the classifier is made of class means, at most 2.

    Raises:
        ValueError: if some class has no pictures, or either is all zero.
    """
    means = centered_means(m)
    if len(means) != len(weight):
        raise ValueError(f"undefined because only {len(means)} of {len(weight)} classes are here")
    weight = weight.to(means)
    weight = weight - weight.mean(dim=0)
    lengths(m)
    if not weight.norm() > 0:
        raise ValueError("undefined because the classifier is the same for all classes")
    return (weight / weight.norm() - means / means.norm()).norm().item()


def nearest_class(x: Tensor, m: Moments) -> Tensor:
    """The class whose mean is nearest, for each picture: (n, d) -> (n,).

    Of classes equally near, the first in order.
    """
    nearest = distances(x, m).argmin(dim=1)
    return m.present[nearest]


def nearest_class_correct(x: Tensor, y: Tensor, m: Moments, clean: Tensor | None = None) -> Tensor:
    """Whether each picture is nearest to the mean of its own class, all else equal: (n,) of 0, 1.

    The pictures are among those of the means, so each is taken out of its own class's. A picture
    that is as near to another class is not recognized; one that is alone in its class cannot be.

    Args:
        clean: what the means hold of each picture (n, d), where `x` is something else of it.

    Raises:
        ValueError: for fewer than two classes, or one picture in each.
    """
    comparable(m)
    clean = (x if clean is None else clean).double() - m.origin
    squared = distances(x, m)
    own = torch.searchsorted(m.present, y)
    size = m.count[m.present][own]
    mean = (m.sums[y] - clean) / (size - 1).clamp(min=1)[:, None]  # of the rest of the class
    apart = (x.double() - m.origin - mean).square().sum(dim=1)
    mine = cleared(apart, x.double() - m.origin, mean.square().sum(dim=1), m)
    squared[torch.arange(len(x), device=x.device), own] = float("inf")
    others = squared.min(dim=1).values
    return ((size > 1) & (mine < others)).double()


def comparable(m: Moments) -> None:
    """A ValueError where nothing tells how pictures of a class differ, or classes from another."""
    if len(m.present) < 2:
        raise ValueError(f"undefined because there is only {len(m.present)} class with pictures")
    if m.count.max() < 2:
        raise ValueError("undefined because every class has one picture")


def distances(x: Tensor, m: Moments) -> Tensor:
    """Squared distances of pictures from class means, rounding removed: (n, d) -> (n, k)."""
    x = x.double() - m.origin
    means = m.class_means - m.origin
    squares, length = x.square().sum(dim=1, keepdim=True), means.square().sum(dim=1)
    return cleared(squares + length - 2 * x @ means.T, x, length, m)


def cleared(squared: Tensor, x: Tensor, length: Tensor, m: Moments) -> Tensor:
    """Squared distances (n, ...) from means of squared `length`, zero where rounding is left."""
    squares = x.square().sum(dim=1).view(-1, *[1] * (squared.ndim - 1))
    return squared.masked_fill(squared <= 1e-13 * (squares + length) + m.rounding.sum(), 0.0)


def disagreement(x: Tensor, decided: Tensor, m: Moments) -> Tensor:
    """NC4: whether a classifier's decision differs from the nearest class mean's: (n,) of 0, 1.

    Raises:
        ValueError: for fewer than two classes, or one picture in each, which is its own mean.
    """
    comparable(m)
    return (nearest_class(x, m) != decided).double()


def lengths(m: Moments) -> Tensor:
    """Lengths of the centered class means: (k,); a ValueError if a mean is in the center."""
    means = centered_means(m)
    length = means.norm(dim=1)
    if not (length.square() > 4 * m.rounding.sum() + 1e-13 * length.square().max()).all():
        raise ValueError("undefined because the mean of a class is the mean of all")
    return length


def cosines(m: Moments) -> Tensor:
    """Cosines between distinct centered class means: (k (k - 1) / 2,)."""
    direction = centered_means(m) / lengths(m)[:, None]
    k = len(direction)
    pairs = torch.triu_indices(k, k, offset=1, device=direction.device)
    return (direction @ direction.T)[pairs[0], pairs[1]]
