"""Labelled pictures of one size, mapped from disk: what everything above the data works on."""

import hashlib
from collections.abc import Sequence
from mmap import mmap

import numpy as np
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

MODES = {1: "L", 3: "RGB"}


class Images(TorchDataset):
    """A torch data set of pictures that timm's create_loader takes as it is.

    Attributes:
        x: uint8 (n, h, w, c), mapped into memory; c is 1 for gray pictures, else 3.
        y: int64 (n,).
        groups: str (n,); pictures of one group are in one part only.
        fingerprint: sha256 in hexadecimal of content, part and label level.
        mean, std: of each channel over the train part, in [0, 1].
        transform: called on each PIL picture, if it is not None.
        mode: PIL's mode of the pictures that indexing gives, "L" or "RGB".
    """

    def __init__(
        self,
        x: np.ndarray,
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
        return self._with(
            self.x[indices], self.y[indices], self.groups[indices], digest.hexdigest()
        )

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
        """For workers that are started afresh: a map is sent by name, not by content."""
        mapped = isinstance(self.x, np.memmap) and isinstance(self.x.base, mmap)
        return self.__dict__ | ({"x": str(self.x.filename)} if mapped else {})

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if isinstance(self.x, str):
            self.x = np.load(self.x, mmap_mode="r", allow_pickle=False)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.x.shape[1:]))
        return (
            f"Images({self.name} {self.split}, {len(self)} pictures of {shape}, "
            f"{len(self.classes)} classes at level {self.level})"
        )
