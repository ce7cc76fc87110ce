"""MNIST's own file format: a big-endian header of sizes, then bytes."""

import struct
from pathlib import Path

import numpy as np

from .cache import content
from .dataset import Files, Pictures
from .pictures import content_groups


def array(path: Path) -> np.ndarray:
    """The uint8 array in an idx file, packed with gzip or not.

    Raises:
        ValueError: naming the file, if it is no such file or is cut short.
    """
    data = content(path)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an idx file of bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path.name} ends within its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) != start + np.prod(shape, dtype=object):
        raise ValueError(f"{path.name} has {len(data) - start} bytes where {shape} were announced")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def official(files: Files, classes: tuple[str, ...], **coarse) -> Pictures:
    """The four files of an MNIST-like set, test part last; equal pictures form one group."""
    named = {key.rsplit("/", 1)[-1]: path for key, path in files.items()}
    x, y, groups = [], [], []
    for part in ("train", "t10k"):
        x.append(array(named[f"{part}-images-idx3-ubyte"])[..., None])
        y.append(array(named[f"{part}-labels-idx1-ubyte"]).astype(np.int64))
        groups += content_groups(x[-1])
    test = np.repeat([False, True], [len(part) for part in x])
    return Pictures(np.concatenate(x), np.concatenate(y), classes, np.array(groups), test, **coarse)
