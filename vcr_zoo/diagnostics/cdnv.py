"""Class-distance normalized variance (Galanti, György and Hutter, 2022; arXiv 2112.15121)."""

import torch
from torch import Tensor

from .moments import Moments


def cdnv(m: Moments) -> float:
    """Mean over pairs of classes of (V(a) + V(b)) / (2 |μ(a) - μ(b)|²): 0 is perfect collapse.

    V is the mean squared distance of a class's pictures from their mean μ. Higher means that
    classes keep more of what their pictures differ in. Both are freed of what few pictures add: of
    n in a class, V is n / (n - 1) times that around their own mean, and V(a) / n(a) + V(b) / n(b)
    is taken from the squared distance of means. A class of one picture is left out.

    Raises:
        ValueError: for fewer than two classes of two pictures, or two with the same mean.
    """
    count = m.count[m.present]
    distance = squared_distances(m)
    several = (count > 1).nonzero().flatten()
    if len(several) < 2:
        most = "every class" if len(several) == 0 else "every class but one"
        raise ValueError(f"undefined because {most} has one picture")
    count = count[several]
    within = m.class_variances[several] * count / (count - 1)
    a, b = torch.triu_indices(len(count), len(count), offset=1, device=count.device)
    between = distance[several[a], several[b]]
    if not (between > 0).all():
        raise ValueError("undefined because two classes have the same mean")
    between = between - (within / count)[a] - (within / count)[b]
    if not (between > 0).all():
        raise ValueError("undefined because the means of two classes differ no more than by chance")
    return ((within[a] + within[b]) / (2 * between)).mean().item()


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
