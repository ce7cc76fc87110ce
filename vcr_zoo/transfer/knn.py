"""Weighted nearest neighbors: a probe with nothing to train (Wu et al., 2018)."""

import torch.nn.functional as F

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
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature {temperature} must be positive")
    bank = F.normalize(train.x)
    right = 0
    for x, y in zip(test.x.split(CHUNK), test.y.split(CHUNK), strict=True):
        similarity, nearest = (F.normalize(x) @ bank.T).topk(min(k, len(bank)))  # (m, k) each
        weights = ((similarity - similarity[:, :1]) / temperature).exp()  # of the nearest: one
        votes = weights.new_zeros(len(y), len(train.classes))
        votes.scatter_add_(1, train.y[nearest], weights)  # (m, classes)
        right += (votes.argmax(dim=1) == y).sum().item()
    return right / len(test)
