"""One pass of a frozen network over pictures: moments at every placement, and a sample of rows."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vcr_zoo.features import autocast, batches, device_of, evaluating
from vcr_zoo.placement import Placement, find, split

from .moments import Parts

POSITIONS = ("mean", "one")


@dataclass
class Gathered:
    """What one pass found, by placement in the order of the forward pass."""

    parts: dict[str, Parts]
    sample: dict[str, Tensor]  # float32 (m, d): rows of the pictures at `indices`
    y: Tensor  # int64 (m,)
    indices: Tensor  # (m,), rising
    classes: tuple[str, ...]

    @property
    def last(self) -> str:
        """The placement nearest to the classifier."""
        return list(self.parts)[-1]


def gather(
    model: nn.Module,
    images: Dataset,
    *,
    layers: str = "blocks,pooled",
    positions: str = "mean",
    sample: int = 2000,
    seed: int = 0,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    watch: Callable[[int], None] = lambda pictures: None,
) -> Gathered:
    """Moments of all pictures and rows of a random sample of them, at every placement.

    Args:
        layers: as for training: blocks, stages, pooled, modules; several with commas.
        positions: of a map or a sequence of tokens "mean" takes the average, and "one" a single
            position of each picture, another one for each: what the penalty sees, thinned.
        sample: pictures whose rows are kept, for what compares pictures with each other.
        watch: is told of every batch how many pictures have passed.

    Raises:
        ValueError: for no pictures, or features that are not finite.
        LookupError: for a layer that the model has not.
    """
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r}: choose from {', '.join(POSITIONS)}")
    if len(images) == 0:
        raise ValueError("no pictures to compute features of")
    classes = classes_of(images)
    device = device_of(model, device)
    exact = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:sample]
    drawn = drawn.sort().values
    parts, held, labels, seen = {}, {}, [], 0
    with evaluating(model.to(device)), tapped(model, layers, positions) as embed, autocast(device):
        for x, y in batches(model, images, batch_size, device):
            x, y = x.to(device), y.to(exact).long()
            chosen = drawn[(drawn >= seen) & (drawn < seen + len(x))] - seen
            for name, features in embed(x).items():
                features = finite(features.float(), name).to(exact)
                parts.setdefault(name, Parts(len(classes))).add(features, y)
                held.setdefault(name, []).append(features[chosen.to(exact)].cpu())
            labels.append(y.cpu()[chosen])
            seen += len(x)
            watch(len(x))
    sampled = {name: torch.cat(some) for name, some in held.items()}
    return Gathered(parts, sampled, torch.cat(labels), drawn, classes)


def finite(features: Tensor, name: str) -> Tensor:
    """The features, if every one is a number; else a ValueError that names the placement."""
    if not features.isfinite().all():
        raise ValueError(
            f"the features at {name} are not finite: the weights may be damaged, or the pictures "
            "normalized for another network"
        )
    return features


def classes_of(images: Dataset) -> tuple[str, ...]:
    """Names of the labels."""
    if getattr(images, "classes", None):
        return tuple(map(str, images.classes))
    return tuple(str(i) for i in range(1 + max(int(y) for _, y in images)))


@contextlib.contextmanager
def tapped(model: nn.Module, layers: str, positions: str = "mean") -> Iterator[Callable]:
    """A function from images to features (b, d) by placement; `pooled` comes last.

    Pooled features are those of `vcr_zoo.features` where the model can give them.
    """
    words = split(layers)
    heads = "pooled" in words and hasattr(model, "forward_head")
    others = [word for word in words if not (heads and word == "pooled")]
    places = find(model, others) if others else []
    caught = {}
    with contextlib.ExitStack() as hooks:
        for place in places:
            see = partial(keep, caught, place, positions)
            hooks.callback(hooked(model, place, see))

        def embed(x: Tensor) -> dict[str, Tensor]:
            caught.clear()
            if not heads:
                model(x)
                return dict(caught)
            pooled = model.forward_head(model.forward_features(x), pre_logits=True)
            return {**caught, "pooled": pooled}

        yield embed


def hooked(model: nn.Module, place: Placement, see: Callable[[Tensor], None]) -> Callable:
    """Show `see` the tensor that passes at a placement, each time; returns what undoes it."""
    module = model.get_submodule(place.name)

    def hook(_, inputs, output=None) -> None:
        value = inputs if place.side == "input" else output
        see(value[place.item or 0] if isinstance(value, tuple | list) else value)

    if place.side == "input":
        return module.register_forward_pre_hook(hook).remove
    return module.register_forward_hook(hook).remove


def keep(caught: dict[str, Tensor], place: Placement, positions: str, value: Tensor) -> None:
    caught[named(place)] = rows(value, place.dim, positions)


def named(place: Placement) -> str:
    """As reports call it."""
    return "pooled" if place.side == "input" else str(place)


def rows(value: Tensor, dim: int, positions: str) -> Tensor:
    """One row for each picture, the mean or one of its positions: (b, ..., d, ...) -> (b, d)."""
    if value.ndim == 2:
        return value
    maps = value.movedim(dim, 1).flatten(2)  # (b, d, positions)
    if positions == "mean":
        return maps.mean(dim=2)
    b, _, count = maps.shape
    step = max(round(0.618 * count), 1)  # from picture to picture, until all had their turn
    while math.gcd(step, count) > 1:
        step += 1
    where = torch.arange(b, device=maps.device) * step % count
    return maps[torch.arange(b, device=maps.device), :, where]
