"""How far features and decisions hold when pictures get worse."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from vcr_zoo.data import Images
from vcr_zoo.features import autocast, batches, data_config, device_of, evaluating

from .collapse import nearest_class_correct
from .corruptions import CORRUPTIONS, LEVELS, corrupted
from .gather import tapped
from .measured import Measured, mean_of
from .moments import Moments


@dataclass(frozen=True)
class Curve:
    """One corruption: a value for no corruption at all, and for each level from 1 to 5."""

    accuracy: list[Measured]  # share of pictures nearest to the mean of their class
    likeness: list[Measured]  # mean cosine with the uncorrupted features, both less their mean


@dataclass
class Spoiled:
    """Pooled features of one batch after another, of pictures as they are or made worse."""

    features: list[Tensor]
    labels: list[Tensor]

    @property
    def x(self) -> Tensor:
        return torch.cat(self.features).cpu()

    @property
    def y(self) -> Tensor:
        return torch.cat(self.labels).cpu()


def robustness(
    model: nn.Module,
    images: Dataset,
    indices: Tensor,
    whole: Moments,
    *,
    seed: int = 0,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    names: tuple[str, ...] = tuple(CORRUPTIONS),
    levels: tuple[int, ...] = LEVELS,
    watch: Callable[[int], None] = lambda pictures: None,
) -> dict[str, Curve]:
    """Curves of every corruption on the pictures at `indices`: one forward pass for each level.

    Accuracy is that of nearest class means, which every network has; the means are those of all
    pictures uncorrupted, the picture asked left out of its own class's.

    Args:
        whole: moments of all pictures' pooled features.
        watch: is told of every batch how many pictures have passed.
    """
    options = (model, subset(images, indices), batch_size, device, watch)
    clean = features(*options)
    x, y = clean.x, clean.y
    curves = {}
    for name in names:
        worse = [x, *(features(*options, name, level, seed).x for level in levels)]
        curves[name] = Curve(
            [accuracy(some, y, x, whole) for some in worse],
            [mean_of(likeness, some, x, whole) for some in worse],
        )
    return curves


def features(model, images, batch_size, device, watch, name=None, level=0, seed=0) -> Spoiled:
    """Pooled features of pictures in order, corrupted if a corruption is named."""
    device = device_of(model, device)
    config = data_config(model)
    mean, std = (torch.tensor(config[k], device=device).view(-1, 1, 1) for k in ("mean", "std"))
    found = Spoiled([], [])
    with evaluating(model.to(device)), tapped(model, "pooled") as embed:
        for number, (x, y) in enumerate(batches(model, images, batch_size, device)):
            x = x.to(device)
            if name is not None:
                x = (corrupted(x * std + mean, name, level, seed + number) - mean) / std
            with autocast(device):
                (rows,) = embed(x).values()
            found.features.append(rows.float())
            found.labels.append(y)
            watch(len(x))
    return found


def accuracy(x: Tensor, y: Tensor, clean: Tensor, whole: Moments) -> Measured:
    """Share of corrupted pictures (n, d) nearest to the mean of their class's other pictures."""
    x, y, clean = (some.to(whole.origin.device) for some in (x, y, clean))
    return mean_of(nearest_class_correct, x, y, whole, clean)


def likeness(x: Tensor, clean: Tensor, whole: Moments) -> Tensor:
    """Cosine of each picture's features with the uncorrupted ones, both less the mean: (n,).

    Two that are both at the mean are equal, 1; one alone is unlike, 0.
    """
    mean = whole.mean.cpu()
    a, b = x.double() - mean, clean.double() - mean
    both = (a == 0).all(dim=1) & (b == 0).all(dim=1)
    return F.cosine_similarity(a, b, dim=1).masked_fill(both, 1.0)


def subset(images: Dataset, indices: Tensor) -> Dataset:
    """The pictures at some indices, prepared as before."""
    if isinstance(images, Images):
        return images.subset(indices)
    return View(images, indices.tolist())


class View(Subset):
    """A part of a data set, whose transform timm's loader sets on the whole."""

    @property
    def transform(self):
        return self.dataset.transform

    @transform.setter
    def transform(self, transform) -> None:
        self.dataset.transform = transform
