import itertools

import pytest
import torch

from vcr_zoo.diagnostics.corruptions import CORRUPTIONS, LEVELS, corrupted
from vcr_zoo.diagnostics.gather import gather
from vcr_zoo.diagnostics.moments import moments_of
from vcr_zoo.diagnostics.robustness import features, likeness, robustness

from .made import network, normal, pictures


def smooth(channels=3, size=32):
    """Ten pictures of soft blobs, in [0, 1]."""
    noise = torch.rand(10, channels, size + 4, size + 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1).sub(0.3).mul(2.5).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_level_is_worse_than_the_one_before(name, channels):
    """Mean squared distance from the picture rises; values stay in [0, 1]."""
    x = smooth(channels)
    worse = [corrupted(x, name, level, seed=0) for level in LEVELS]
    distance = [(some - x).square().mean().item() for some in worse]

    assert all(some.shape == x.shape for some in worse)
    assert all(some.min() >= 0 and some.max() <= 1 for some in worse)
    assert distance[0] > 0 and all(a < b for a, b in itertools.pairwise(distance))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_depends_on_the_seed_alone(name):
    x = smooth()

    assert torch.equal(corrupted(x, name, 3, seed=4), corrupted(x, name, 3, seed=4))


def test_noise_has_the_deviation_it_says():
    x = torch.full((1, 3, 200, 200), 0.5)
    noise = corrupted(x, "Gaussian noise", 3, seed=0) - x

    assert noise.std().item() == pytest.approx(0.12, rel=0.02)


def test_likeness_is_the_cosine_about_the_mean():
    x = normal(40, 5)
    m = moments_of(x)

    torch.testing.assert_close(likeness(x, x, m), torch.ones(40, dtype=torch.float64))
    opposite = 2 * m.mean - x
    torch.testing.assert_close(likeness(opposite, x, m), -torch.ones(40, dtype=torch.float64))


def test_dead_features_are_as_they_were_whatever_the_picture():
    """Not NaN: both are at the mean."""
    x = torch.zeros(6, 3)

    assert likeness(x, x, moments_of(x)).tolist() == [1] * 6


@pytest.fixture(scope="module")
def curves():
    model, images = network(), pictures(48)
    found = gather(model, images, sample=24)
    whole = found.parts["pooled"].whole()
    options = dict(names=("Gaussian noise", "contrast"), levels=(1, 5))
    return robustness(model, images, found.indices[:16], whole, **options)


def test_curves_begin_with_pictures_as_they_are(curves):
    for curve in curves.values():
        assert len(curve.accuracy) == len(curve.likeness) == 3
        assert curve.likeness[0].value == pytest.approx(1)
    first = [curve.accuracy[0] for curve in curves.values()]
    assert first[0] == first[1]


def test_features_move_further_from_worse_pictures(curves):
    for curve in curves.values():
        assert 1 > curve.likeness[1].value > curve.likeness[2].value


def test_accuracy_is_that_of_means_without_the_picture():
    """However few pictures there are, all of them corrupted: as if computed again for each."""
    model, images = network(), pictures(9)
    whole = gather(model, images).parts["pooled"].whole()
    options = dict(names=("contrast",), levels=(5,))
    (curve,) = robustness(model, images, torch.arange(9), whole, **options).values()
    clean, worse = (
        features(model, images, 64, "cpu", lambda _: None, *how).x.double()
        for how in ((), ("contrast", 5))
    )
    y = torch.from_numpy(images.y)
    for value, asked in zip(curve.accuracy, (clean, worse), strict=True):
        right = 0
        for i in range(9):
            others = torch.arange(9) != i
            means = torch.stack([clean[others & (y == k)].mean(dim=0) for k in range(3)])
            right += int((means - asked[i]).norm(dim=1).argmin() == y[i])
        assert value.value == pytest.approx(right / 9)


def test_accuracy_of_one_picture_in_each_class_is_undefined():
    """There is no mean of its class's other pictures."""
    model, images = network(), pictures(3)
    whole = gather(model, images).parts["pooled"].whole()
    options = dict(names=("contrast",), levels=(1,))
    (curve,) = robustness(model, images, torch.arange(3), whole, **options).values()

    assert curve.accuracy[0].because == "undefined because every class has one picture"
