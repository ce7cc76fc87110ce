"""What a row of DATASETS says, and what its reader gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .fetch import Package

Files = dict[str, Path]  # "package/path inside it" (no .gz) -> where it lies


class Pictures(NamedTuple):
    """Everything that a data set's reader found, before it is cut into parts."""

    x: np.ndarray  # uint8 (n, h, w, c)
    y: np.ndarray  # int64 (n,), the finest labels
    classes: tuple[str, ...]
    groups: np.ndarray  # str (n,): pictures of one group are never divided between parts
    test: np.ndarray | None = None  # bool (n,), the official test part; None: cut by group hash
    validation: np.ndarray | None = None  # bool (n,); None: cut by class and group hash
    coarse: tuple[str, ...] = ()  # super-classes, if there are any
    parents: tuple[int, ...] = ()  # fine class -> its super-class


@dataclass(frozen=True)
class Dataset:
    """One data set: what it is, whose it is, where it comes from and how it is read."""

    name: str
    shows: str
    pictures: dict[str, int]  # part -> how many, as built
    shape: tuple[int, int, int]  # (h, w, c) in the cache, in pixels and channels
    levels: dict[str, int]  # label level -> number of classes, "fine" first
    licence: str
    attribution: str
    publishable: bool  # may weights trained on it be published
    group: str  # what is never divided between two parts
    read: Callable[[Files], Pictures] | None = None  # of sets that come as packages
    make: Callable[[Path, Path | None], Pictures] | None = None  # of others; see `standard`, `own`
    packages: tuple[Package, ...] = ()
    sha256: tuple[str, ...] = ()  # of the unpacked files, one for each release that was checked
    download: Callable[[Path], Path] | None = None  # into a folder -> where its files lie
    test_share: float = 0.3  # of the groups, where there is no official split
    validation_share: float = 0.1  # of the groups of what is not the test part
    mean: tuple[float, ...] | None = None  # of the train part, in [0, 1], where known beforehand
    std: tuple[float, ...] | None = None
    tail: int = 1  # size of the largest class over that of the smallest, by thinning; 1: as it is
    base: str | None = None  # the set that a thinned version is made from

    @property
    def classes(self) -> int:
        """Number of classes at the finest level."""
        return self.levels["fine"]
