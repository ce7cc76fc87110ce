"""Weighted nearest neighbors: a probe with nothing to train (Wu et al., 2018)."""

import torch.nn.functional as F
from torch import Tensor

from vcr_zoo.features import Features

from .check import check

CHUNK = 2048  # test pictures at a time, so that similarities to all of train fit into memory


def knn(train: Features, test: Features, *, k: int = 20, temperature: float = 0.07) -> float:
    """Share of test images whose class wins the vote of their k nearest training images.

    Near means a high cosine s; a neighbor's vote weighs exp(s / temperature). With fewer than k
    training images all of them vote.

    Raises:
        ValueError: for features that `check` refuses, or a k or temperature that is not positive.
    """
    check(train=train, test=test)
    votes = knn_votes(train, test.x, k=k, temperature=temperature)
    return (votes.argmax(dim=1) == test.y).double().mean().item()


def knn_votes(train: Features, x: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Each class's share of the vote of the k nearest: (n, d) -> (n, classes)."""
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature {temperature} must be positive")
    bank = F.normalize(train.x)
    votes = x.new_zeros(len(x), len(train.classes))
    for part, out in zip(x.split(CHUNK), votes.split(CHUNK), strict=True):
        similarity, nearest = (F.normalize(part) @ bank.T).topk(min(k, len(bank)))  # (m, k) each
        weights = (similarity / temperature).softmax(dim=1)
        out.scatter_add_(1, train.y[nearest], weights)
    return votes
