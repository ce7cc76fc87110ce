"""Before torch is imported: one thread, because two processes with two threads each crawl."""

import os
from dataclasses import replace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    """A small Fashion-MNIST of made pictures, its own and only target, and the same again as mnist;
    a folder to write to."""
    from vcr_zoo import data, suite
    from vcr_zoo.data import DATASETS

    from .data.sets import small_fmnist, write_mnist_like

    folder = tmp_path_factory.mktemp("sets")
    files = write_mnist_like(folder / "files", train=1200, test=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCR_ZOO_CACHE", str(folder / "cache"))
        patch.setitem(DATASETS, "fmnist", small_fmnist(files))
        patch.setitem(DATASETS, "mnist", replace(small_fmnist(files), name="mnist"))
        patch.setitem(suite.TARGETS, "fmnist", ("mnist",))
        for name in ("fmnist", "mnist"):
            data.get(name, files)
        yield folder
