import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.collapse import (
    disagreement,
    nearest_class,
    nearest_class_correct,
    self_duality,
)
from vcr_zoo.diagnostics.moments import moments_of

from .made import labelled, normal, simplex


def test_nearest_means_leave_each_picture_out():
    """As if the means had been computed again without it, picture by picture."""
    x, y = labelled(60, 5, apart=1.0)
    a, labels = x.numpy(), y.numpy()
    expected = []
    for i in range(60):
        others = np.arange(60) != i
        means = [a[others & (labels == k)].mean(0) for k in range(4)]
        distance = [((a[i] - mean) ** 2).sum() for mean in means]
        expected.append(float(np.argmin(distance) == labels[i]))
    found = nearest_class_correct(x, y, moments_of(x, y))

    assert 0.3 < np.mean(expected) < 1
    assert found.tolist() == expected


def test_unrelated_features_are_recognized_by_chance():
    """Wide features of few pictures: means that include the picture would say far more."""
    x, y = normal(200, 400, mixing=False), torch.arange(200) % 4
    m = moments_of(x, y)

    assert nearest_class_correct(x, y, m).mean() == pytest.approx(0.25, abs=0.1)
    assert (nearest_class(x, m) == y).double().mean() > 0.9


def test_a_picture_alone_in_its_class_is_not_recognized():
    x, y = simplex()
    y = torch.where(torch.arange(40) == 0, 4, y)

    assert nearest_class_correct(x, y, moments_of(x, y))[0] == 0


def test_ties_are_not_recognized():
    """All features zero: nothing tells the classes apart."""
    x, y = torch.zeros(30, 3), torch.arange(30) % 3

    assert nearest_class_correct(x, y, moments_of(x, y)).sum() == 0


def test_a_rotated_classifier_is_not_made_of_class_means():
    x, y = simplex()
    m = moments_of(x, y)
    means = m.class_means - m.mean
    opposite = self_duality(m, -means)

    assert opposite == pytest.approx(2)
    assert 0.1 < self_duality(m, means.roll(1, dims=1)) < 2
    with pytest.raises(ValueError, match="same for all classes"):
        self_duality(m, torch.ones(4, 7))
    with pytest.raises(ValueError, match="only 4 of 5"):
        self_duality(m, torch.ones(5, 7))


def test_disagreement_counts_other_decisions():
    x, y = simplex()
    decided = y.clone()
    decided[:10] = (y[:10] + 1) % 4

    assert disagreement(x, decided, moments_of(x, y)).mean() == 0.25
