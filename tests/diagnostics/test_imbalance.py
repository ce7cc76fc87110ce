import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.imbalance import imbalance

from .made import normal


def direct(a, b):
    """2 / n times the mean rank in b of the nearest neighbor in a, by full sorting."""
    n, total = len(a), 0
    for i in range(n):
        near = ((a - a[i]) ** 2).sum(1)
        far = ((b - b[i]) ** 2).sum(1)
        near[i] = far[i] = np.inf
        total += 1 + np.argsort(np.argsort(far))[near.argmin()]
    return 2 / n * total / n


def test_it_is_the_mean_rank_of_nearest_neighbors():
    a, b = normal(80, 4), normal(80, 3, seed=1)
    b[:, 0] = a[:, 0]

    assert imbalance(a, b).mean().item() == pytest.approx(direct(a.numpy(), b.numpy()))


def test_features_tell_themselves_whatever_rotation_and_shift():
    """The nearest is the nearest: rank 1, 2 / n."""
    a = normal(100, 4)
    rotation = torch.linalg.qr(normal(4, 4, seed=2)).Q

    assert imbalance(a, 3 * a @ rotation + 1).mean().item() == pytest.approx(2 / 100)


def test_unrelated_features_tell_nothing():
    scores = [imbalance(normal(300, 4, s), normal(300, 4, s + 50)).mean() for s in range(10)]

    assert sum(scores).item() / 10 == pytest.approx(1, abs=0.03)


def test_the_whole_tells_a_part_and_not_the_other_way():
    """What makes it more than a distance: it has a direction."""
    a = normal(300, 3, mixing=False)

    assert imbalance(a, a[:, :1]).mean() < 0.3
    assert imbalance(a[:, :1], a).mean() > 0.5


def test_neighbors_equally_near_share_their_ranks():
    """Constant features have every other picture as nearest, and so on average rank n / 2."""
    a = normal(60, 4)

    assert imbalance(torch.ones(60, 2), a).mean().item() == pytest.approx(1)
    assert imbalance(a, torch.ones(60, 2)).mean().item() == pytest.approx(1)


@pytest.mark.parametrize("a, b", [(normal(2), normal(2)), (normal(9), normal(8))])
def test_too_few_or_different_pictures_are_refused(a, b):
    with pytest.raises(ValueError, match="undefined because"):
        imbalance(a, b)
