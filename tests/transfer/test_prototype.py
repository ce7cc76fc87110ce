import pytest
from sklearn.neighbors import NearestCentroid

from vcr_zoo.transfer.prototype import prototype


@pytest.mark.filterwarnings("ignore:self.within_class")  # of pixels that are always blank
def test_prototypes_are_scikit_learns_centroids(digits):
    """The same share by an independent implementation."""
    train, _, test = digits
    theirs = NearestCentroid().fit(train.x, train.y)

    assert prototype(train, test) == pytest.approx(theirs.score(test.x, test.y))
