import pytest
import torch

from vcr_zoo.features import Features
from vcr_zoo.transfer.check import check


def made(n=12, classes=3, width=4, x=None, y=None):
    torch.manual_seed(0)
    names = tuple("abcdefghijklmnop"[:classes])
    labels = torch.arange(n) % classes if y is None else torch.tensor(y)
    return Features(torch.randn(len(labels), width) if x is None else x, labels, names)


DEGENERATE = {
    "the test split is empty": dict(train=made(), test=made(n=0)),
    "5 of 12 pictures of the train split": dict(
        train=made(x=torch.randn(12, 4).index_fill(0, torch.arange(5), torch.inf))
    ),
    "2 classes and 4 features, train 3 and 4": dict(train=made(), test=made(classes=2)),
    "3 classes and 5 features, train 3 and 4": dict(train=made(), test=made(width=5)),
    "no picture of 'c' in the train split": dict(train=made(y=[0, 1, 0, 1])),
    "6 more classes": dict(train=made(classes=12, y=[0] * 20)),
    "2 pictures cannot teach 3 classes": dict(train=made(y=[0, 1])),
    "only one class, 'a'": dict(train=made(classes=1)),
    "the network has collapsed": dict(train=made(x=torch.ones(12, 4))),
}


@pytest.mark.parametrize("message", DEGENERATE)
def test_degenerate_features_are_refused_in_words(message):
    """Each would otherwise give a number without meaning."""
    with pytest.raises(ValueError, match=message):
        check(**DEGENERATE[message])


def test_sound_features_pass():
    """Also with a test split in which a class has no picture."""
    check(train=made(), test=made(y=[0, 0, 1]))
