import pytest

from vcr_zoo.features import Features
from vcr_zoo.transfer.average import average
from vcr_zoo.transfer.probe import probe


def halves(digits):
    """Two networks: one sees the upper half of the pixels, the other the lower."""
    cut = [
        [Features(d.x[:, s], d.y, d.classes) for d in digits] for s in (slice(32), slice(32, 64))
    ]
    return list(zip(*cut, strict=True))


def test_two_halves_average_better_than_either(digits):
    """And what each does alone is its probe's."""
    parts = halves(digits)

    mean, alone = average(*parts, strengths=(0.1, 1.0, 10.0))

    for i, metrics in enumerate(alone):
        expected = probe(*(part[i] for part in parts), strengths=(0.1, 1.0, 10.0))
        assert metrics["top1"] == expected["top1"] < mean["top1"]


def test_one_network_is_its_own_average(digits):
    mean, alone = average(*([d] for d in digits), strengths=(1.0,))

    assert mean == alone[0]


def test_other_pictures_are_refused(digits):
    """Logits of different pictures have no average."""
    train, validation, test = digits
    turned = Features(test.x, test.y.flip(0), test.classes)
    with pytest.raises(ValueError, match="the same pictures"):
        average([train] * 2, [validation] * 2, [test, turned])
    with pytest.raises(ValueError, match="one network or more"):
        average([], [], [])
