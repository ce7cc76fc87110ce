"""A small Fashion-MNIST of made pictures, which is its own and only target."""

from dataclasses import replace

import pytest

from vcr_zoo import data, suite
from vcr_zoo.data import DATASETS

from ..data.sets import small_fmnist, write_mnist_like


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    """fmnist, and the same again as mnist; a folder to write to."""
    folder = tmp_path_factory.mktemp("study")
    files = write_mnist_like(folder / "files", train=1200, test=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCR_ZOO_CACHE", str(folder / "cache"))
        patch.setitem(DATASETS, "fmnist", small_fmnist(files))
        patch.setitem(DATASETS, "mnist", replace(small_fmnist(files), name="mnist"))
        patch.setitem(suite.TARGETS, "fmnist", ("mnist",))
        for name in ("fmnist", "mnist"):
            data.get(name, files)
        yield folder
