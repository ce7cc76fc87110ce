"""Real pictures with honest parts: names, routes, one cache format, and two ways to batch them."""

from .batches import Batches
from .dataset import Dataset
from .images import Images
from .load import get, is_named, listing, load, load_test, named, sized
from .registry import DATASETS
from .weights import baseline

__all__ = [
    "DATASETS",
    "Batches",
    "Dataset",
    "Images",
    "baseline",
    "get",
    "is_named",
    "listing",
    "load",
    "load_test",
    "named",
    "sized",
]
