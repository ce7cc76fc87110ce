"""A cache of one's own for each test, and fmnist's stand-in in it."""

import pytest

from vcr_zoo.data import registry

from .sets import small_fmnist, write_mnist_like


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VCR_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of stand-in files of fmnist, which count as the checked ones."""
    folder = write_mnist_like(tmp_path / "files")
    row = small_fmnist(folder)
    for name in ("fmnist", "fmnist_lt10"):
        changed = row if name == "fmnist" else registry.thinned(row, 10)
        monkeypatch.setitem(registry.DATASETS, name, changed)
    return folder
