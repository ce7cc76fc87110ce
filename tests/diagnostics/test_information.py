import math

import pytest
import torch

from vcr_zoo.diagnostics.information import information
from vcr_zoo.diagnostics.measured import bootstrapped

from .made import normal, simplex


def truth(distance, n=200_000):
    """I(X; Y) of two equally likely normal classes so far apart, by averaging over X."""
    y = torch.arange(n) % 2
    x = torch.randn(n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = x + distance * (y - 0.5)
    right = torch.where(y == 1, distance * x, -distance * x).sigmoid()
    return math.log(2) + right.log().mean().item()


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0, 4.0])
def test_it_is_the_information_of_normal_classes(distance):
    """There the bound is tight, whatever else the features hold and however they are mixed."""
    y = torch.arange(4000) % 2
    x = normal(4000, 5, mixing=False)
    x[:, 0] += distance * y
    mixed = x @ normal(5, 5, seed=4, mixing=False) + 3

    assert information(mixed, y).mean().item() == pytest.approx(truth(distance), abs=0.03)


def test_unrelated_features_tell_nothing():
    """Also where there are more features than pictures, to which a classifier would overfit."""
    for d in (5, 600):
        y = torch.arange(400) % 4
        told = information(normal(400, d, mixing=False), y).mean().item()
        assert -0.05 < told <= 0.03


def test_collapsed_features_tell_the_label():
    """All of it, H(Y) = log 4, and never more."""
    x, y = simplex(each=50)

    assert information(x, y).mean().item() == pytest.approx(math.log(4), abs=0.02)


def test_it_is_a_lower_bound():
    """Classes on a ring around others are not told apart by a line; the bound stays below."""
    x = normal(2000, 2, mixing=False)
    y = (x.square().sum(dim=1) > 1.4).long()

    assert -0.01 < information(x, y).mean().item() < 0.1 < math.log(2)


def test_its_interval_is_over_pictures():
    y = torch.arange(1000) % 2
    x = normal(1000, 3, mixing=False)
    x[:, 1] += 2 * y
    found = bootstrapped(information(x, y))

    assert found.low < truth(2.0) < found.high
    assert 0.02 < found.high - found.low < 0.15
