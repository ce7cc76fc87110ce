"""Labelled pictures of one size, mapped from disk: what everything above the data works on."""

import hashlib
from collections.abc import Sequence
from mmap import mmap

import numpy as np
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

MODES = {1: "L", 3: "RGB"}


class Rows:
    """Some rows of one or more arrays, as one array: read from them when they are asked for.

    Args:
        parts: arrays of rows of one shape, mapped into memory or not.
        index: int64 (n,), into the rows of all parts one after the other.
    """

    def __init__(self, parts: Sequence[np.ndarray], index: np.ndarray) -> None:
        self.parts, self.index = tuple(parts), index
        self.shape, self.dtype = (len(index), *parts[0].shape[1:]), parts[0].dtype
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key) -> np.ndarray:
        """One row (...), or those of a slice, of integers or of a mask: (m, ...)."""
        wanted = np.atleast_1d(self.index[key])
        rows = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        first = 0
        for part in self.parts:
            here = (wanted >= first) & (wanted < first + len(part))
            rows[here] = part[wanted[here] - first]
            first += len(part)
        return rows if np.ndim(self.index[key]) else rows[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def rows(self, index: np.ndarray) -> "Rows":
        """Some of these rows, still unread."""
        return Rows(self.parts, self.index[index])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"parts": tuple(map(by_name, self.parts))}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state | {"parts": tuple(map(by_map, state["parts"]))})


def by_name(x):
    """What is sent to workers that are started afresh: of a map its file's name."""
    mapped = isinstance(x, np.memmap) and isinstance(x.base, mmap)
    return str(x.filename) if mapped else x


def by_map(x):
    """What `by_name` was given."""
    return np.load(x, mmap_mode="r", allow_pickle=False) if isinstance(x, str) else x


class Images(TorchDataset):
    """A torch data set of pictures that timm's create_loader takes as it is.

    Attributes:
        x: uint8 (n, h, w, c), mapped into memory; c is 1 for gray pictures, else 3. Of a subset,
            or of parts joined, `Rows`, which nothing is copied for.
        y: int64 (n,).
        groups: str (n,); pictures of one group are in one part only.
        fingerprint: sha256 in hexadecimal of content, part and label level.
        mean, std: of each channel over the train part, in [0, 1].
        transform: called on each PIL picture, if it is not None.
        mode: PIL's mode of the pictures that indexing gives, "L" or "RGB".
    """

    def __init__(
        self,
        x: np.ndarray | Rows,
        y: np.ndarray,
        classes: Sequence[str],
        groups: np.ndarray,
        *,
        name: str,
        split: str,
        level: str = "fine",
        fingerprint: str,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ) -> None:
        self.x, self.y, self.groups = x, y, groups
        self.classes = tuple(classes)
        self.name, self.split, self.level = name, split, level
        self.fingerprint = fingerprint
        self.mean, self.std = tuple(mean), tuple(std)
        self.mode = MODES[x.shape[-1]]
        self.transform = None

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple:
        picture = self.picture(index)
        return (self.transform(picture) if self.transform else picture), int(self.y[index])

    def picture(self, index: int) -> Image.Image:
        """One picture as PIL has it, untransformed."""
        pixels = np.asarray(self.x[index])
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return picture if picture.mode == self.mode else picture.convert(self.mode)

    def subset(self, indices) -> "Images":
        """The pictures at `indices` (integers or a boolean mask), in that order."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64)
        digest = hashlib.sha256(f"{self.fingerprint} subset".encode() + indices.tobytes())
        x = self.x.rows(indices) if isinstance(self.x, Rows) else Rows([self.x], indices)
        return self._with(x, self.y[indices], self.groups[indices], digest.hexdigest())

    def _with(self, x, y, groups, fingerprint: str) -> "Images":
        other = Images(
            x,
            y,
            self.classes,
            groups,
            name=self.name,
            split=self.split,
            level=self.level,
            fingerprint=fingerprint,
            mean=self.mean,
            std=self.std,
        )
        other.mode, other.transform = self.mode, self.transform
        return other

    def __getstate__(self) -> dict:
        return self.__dict__ | {"x": by_name(self.x)}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state | {"x": by_map(state["x"])})

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.x.shape[1:]))
        return (
            f"Images({self.name} {self.split}, {len(self)} pictures of {shape}, "
            f"{len(self.classes)} classes at level {self.level})"
        )
