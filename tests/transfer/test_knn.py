import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from vcr_zoo.features import Features
from vcr_zoo.transfer.knn import knn


@pytest.mark.parametrize("k", [1, 20])
def test_vote_is_scikit_learns(digits, k):
    """Cosine neighbors weighted by exp(s / temperature), by an independent search and vote."""
    train, _, test = digits
    theirs = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    theirs.fit(train.x, train.y)

    assert knn(train, test, k=k) == pytest.approx(theirs.score(test.x, test.y), abs=0.0021)


def test_length_of_features_does_not_matter(digits):
    """Cosine similarity: every picture's features may be scaled by themselves."""
    train, _, test = digits
    torch.manual_seed(0)
    scaled = Features(train.x * torch.rand(len(train), 1).add(0.1), train.y, train.classes)

    assert knn(scaled, test) == pytest.approx(knn(train, test), abs=0.0021)


def test_cold_vote_is_the_nearest_neighbors(digits):
    """At a temperature near zero only the nearest counts, and nothing overflows."""
    train, _, test = digits

    assert knn(train, test, k=30, temperature=1e-6) == knn(train, test, k=1)


def test_few_pictures_all_vote(digits):
    """k is at most the number of training pictures."""
    train, _, test = digits

    few = torch.cat([(train.y == c).nonzero()[:2, 0] for c in range(10)])

    assert 0.3 < knn(train.subset(few), test, k=200) < 1


def test_meaningless_settings_are_refused(digits):
    with pytest.raises(ValueError, match="must be positive"):
        knn(digits[0], digits[2], k=0)
