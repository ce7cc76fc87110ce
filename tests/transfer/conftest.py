"""Real features for the protocols: scikit-learn's digits, 8 x 8 pixels each, as they are."""

import pytest
import torch

from vcr_zoo.features import Features


@pytest.fixture(scope="session")
def digits():
    """Train, validation and test of scikit-learn's digits: 997, 300 and 500 pictures."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data).float()[order] / 16, torch.tensor(data.target)[order]
    names = tuple(str(i) for i in range(10))
    cuts = ((0, 997), (997, 1297), (1297, 1797))
    return tuple(Features(x[a:b], y[a:b], names) for a, b in cuts)
