"""Small stand-ins, written in the real sets' own file formats from a seed."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vcr_zoo.data import DATASETS, Dataset
from vcr_zoo.data.cache import payload_sum
from vcr_zoo.data.fetch import files_below


def write_idx(path: Path, array: np.ndarray) -> None:
    """MNIST's own format, gzipped if the name says so."""
    data = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_mnist_like(folder: Path, train: int = 200, test: int = 50, ending: str = ".gz") -> Path:
    """The four files of fmnist and mnist, with random pictures and all ten labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", x)
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", (np.arange(n) % 10).astype("u1"))
    return folder


def small_fmnist(folder: Path) -> Dataset:
    """fmnist's row for the stand-in files of a folder, which become the checked ones."""
    row = DATASETS["fmnist"]
    return replace(row, sha256=(payload_sum(files_below(folder, row.packages[0])),))


def noise(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """A picture of its own for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_picture(path: Path, seed: int, **size) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed, **size).save(path)


def write_tree(root: Path, classes: tuple[str, ...], n: int, seed: int = 0) -> None:
    """root/CLASS/NUMBER.png, n of each."""
    for label, name in enumerate(classes):
        for index in range(n):
            write_picture(root / name / f"{index}.png", seed + label * n + index)


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
