"""Nearest class mean: how well one point stands for each class (Snell et al., 2017)."""

import torch

from vcr_zoo.features import Features

from .check import check


def class_means(features: Features) -> torch.Tensor:
    """Mean feature vector of every class: (classes, d) float64."""
    k = len(features.classes)
    sums = features.x.new_zeros(k, features.x.shape[1], dtype=torch.float64)
    sums.index_add_(0, features.y, features.x.double())
    return sums / torch.bincount(features.y, minlength=k)[:, None]


def prototype(train: Features, test: Features) -> float:
    """Share of test images that are nearest, in Euclidean distance, to the mean of their class.

    Raises:
        ValueError: for features that `check` refuses.
    """
    check(train=train, test=test)
    return (nearest_mean(train, test.x) == test.y).double().mean().item()


def nearest_mean(train: Features, x: torch.Tensor) -> torch.Tensor:
    """The class whose mean is nearest: (n, d) -> (n,)."""
    return torch.cdist(x.double(), class_means(train)).argmin(dim=1)
