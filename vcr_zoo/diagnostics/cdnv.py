"""Class-distance normalized variance (Galanti, György and Hutter, 2022; arXiv 2112.15121)."""

import torch
from torch import Tensor

from .moments import Moments


def cdnv(m: Moments) -> float:
    """Mean over pairs of classes of (V(a) + V(b)) / (2 |μ(a) - μ(b)|²): 0 is perfect collapse.

    V is the mean squared distance of a class's pictures from their mean μ. Higher means that
    classes keep more of what their pictures differ in.

    Raises:
        ValueError: for fewer than two classes, or two classes with the same mean.
    """
    within = m.class_variances
    k = len(within)
    distance = squared_distances(m)
    pairs = torch.triu_indices(k, k, offset=1, device=within.device)
    between = distance[pairs[0], pairs[1]]
    if not (between > 0).all():
        raise ValueError("undefined because two classes have the same mean")
    return ((within[pairs[0]] + within[pairs[1]]) / (2 * between)).mean().item()


def squared_distances(m: Moments) -> Tensor:
    """|μ(a) - μ(b)|² between classes that have pictures, zero where only rounding is left: (k, k).

    Raises:
        ValueError: for fewer than two classes.
    """
    means = centered_means(m)
    length = means.square().sum(dim=1)
    scale = length[:, None] + length
    distance = scale - 2 * means @ means.T
    return distance.masked_fill(distance <= 1e-13 * scale + 4 * m.rounding.sum(), 0.0)


def centered_means(m: Moments) -> Tensor:
    """Class means less their mean: (k, d).

    Raises:
        ValueError: for fewer than two classes.
    """
    means = m.class_means
    if len(means) < 2:
        raise ValueError(f"undefined because there is only {len(means)} class with pictures")
    return means - means.mean(dim=0)
