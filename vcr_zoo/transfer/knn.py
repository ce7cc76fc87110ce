"""Weighted nearest neighbors: a probe with nothing to train (Wu et al., 2018)."""

from torch import Tensor

from vcr_zoo.features import Features
from vcr_zoo.geometry import neighbor_votes

from .check import check


def knn(train: Features, test: Features, *, k: int = 20, temperature: float = 0.07) -> float:
    """Share of test images whose class wins the vote of their k nearest training images.

    Raises:
        ValueError: for features that `check` refuses, or a k or temperature that is not positive.
    """
    check(train=train, test=test)
    votes = knn_votes(train, test.x, k=k, temperature=temperature)
    return (votes.argmax(dim=1) == test.y).double().mean().item()


def knn_votes(train: Features, x: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Each class's share of the vote of the k nearest: (n, d) -> (n, classes)."""
    classes = len(train.classes)
    return neighbor_votes(train.x, train.y, classes, x, k=k, temperature=temperature)
