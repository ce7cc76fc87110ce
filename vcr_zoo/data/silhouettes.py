"""Animal-MNIST (Mohammadi, 2025): silhouettes of ten animals, 28 x 28, gray, white on black."""

import io
import pickle

import numpy as np

from .cache import content
from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import content_groups

CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


class Arrays(pickle.Unpickler):
    """Unpickles numpy arrays and refuses whatever else a pickle may ask for."""

    def find_class(self, module: str, name: str):
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]  # numpy's own, wherever this version keeps it
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"a pickle of arrays asks for {module}.{name}; refused")


def read(files: Files) -> Pictures:
    """10,000 pictures, of which equal ones are kept once."""
    (x, y) = (
        Arrays(io.BytesIO(content(files[f"animal-mnist/animal_{what}_version_3"]))).load()
        for what in ("data", "label")
    )
    groups = np.array(content_groups(x))
    _, first = np.unique(groups, return_index=True)
    first.sort()
    x, y = x[first].reshape(-1, 28, 28, 1), y[first].astype(np.int64).ravel()
    return Pictures(x, y, CLASSES, groups[first])


ROW = Dataset(
    name="silhouettes",
    shows="silhouettes of animals",
    pictures={"train": 6_122, "validation": 680, "test": 2_914},
    shape=(28, 28, 1),
    levels={"fine": 10},
    licence="MIT",
    attribution="Animal-MNIST, Sina Mohammadi; the origin of the pictures is not stated",
    publishable=False,
    group="equal pictures",
    read=read,
    packages=(
        Package(
            "pypi",
            "animal-mnist",
            "animal_mnist/data/Animal_MNIST",
            ("animal_*_version_3.gz",),
            version="0.4",
            megabytes=2.6,
        ),
    ),
    sha256=("ca104144f1009c8eb2b3af3446c6d0020bb6527e35b0f0d4209e23678fe1c987",),
)
