"""Everything that is measured of a network's features, and of two networks side by side."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from vcr_zoo.data import DATASETS, load, sized
from vcr_zoo.data.load import is_own
from vcr_zoo.features import data_config, weights_sha256

from .cka import cka, kernel, kernel_hsic, normalized
from .collapse import disagreement, nearest_class_correct, self_duality
from .corruptions import CORRUPTIONS, LEVELS
from .gather import Gathered, gather
from .imbalance import imbalance
from .information import information
from .measured import Measured, jackknifed, mean_of, measured
from .measures import measure
from .moments import PARTS, Moments
from .robustness import Curve, robustness

SAMPLE = 2000  # pictures that are compared with each other
MAPPED = 1000  # at most of that sample, in the map of CKA
CORRUPTED = 500  # pictures that are made worse, of that sample
SPLITS = ("train", "training", "val", "valid", "validation", "test")  # names that are no classes


@dataclass
class Inspection:
    """One network on some pictures; placements in the order of the forward pass."""

    name: str
    weights: str  # sha256
    pictures: int
    gathered: Gathered
    moments: dict[str, Moments]
    numbers: dict[str, dict[str, Measured]]  # placement -> measure -> value
    noise: dict[str, Curve] = field(default_factory=dict)

    @property
    def last(self) -> str:
        return self.gathered.last


@dataclass
class Comparison:
    """Two networks on the same pictures, or one with itself: the same sample of them."""

    cka: dict[str, dict[str, Measured]]  # placement of the first -> of the second; no intervals
    last: Measured | None = None  # CKA of the last placements, with its interval
    told: Measured | None = None  # information imbalance from the first's last to the second's
    tells: Measured | None = None  # and back


def inspect(
    model: nn.Module,
    images: Dataset,
    *,
    name: str = "network",
    layers: str = "blocks,pooled",
    positions: str = "mean",
    sample: int = SAMPLE,
    corrupted: int = CORRUPTED,
    levels: tuple[int, ...] = LEVELS,
    seed: int = 0,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    watch: Callable[[int], None] = lambda pictures: None,
) -> Inspection:
    """Measure a frozen network at every placement, in one pass and one for each corruption.

    Args:
        layers, positions: see `gather`.
        sample: pictures kept for the measurements that compare pictures with each other, or ask
            about each: a random part of them all.
        corrupted: pictures of that sample that are also shown corrupted; 0 leaves it out.
        watch: is told of every batch how many pictures have passed.

    Raises:
        ValueError: for fewer than two pictures, a sample of fewer than two, fewer than no corrupted
            ones, or features that are not finite.
        LookupError: for a layer that the model has not.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} picture: how features vary takes two or more")
    if sample < 2 or corrupted < 0:
        raise ValueError(
            f"sample={sample}, corrupted={corrupted}: two pictures or more are compared with each "
            "other, and 0 (none) or more of them corrupted"
        )
    options = dict(seed=seed, batch_size=batch_size, device=device)
    found = gather(
        model, images, layers=layers, positions=positions, sample=sample, watch=watch, **options
    )
    moments = {place: parts.whole() for place, parts in found.parts.items()}
    numbers = {place: measure(parts) for place, parts in found.parts.items()}
    for place, m in moments.items():
        numbers[place] |= sampled(found.sample[place].to(m.origin.device), found.y, m)
    numbers[found.last] |= classifier(model, found, moments[found.last])
    curves = {}
    if corrupted and found.last == "pooled":
        few = found.indices[torch.linspace(0, len(found.indices) - 1, corrupted).long().unique()]
        options |= {"levels": levels, "watch": watch}
        curves = robustness(model, images, few, moments["pooled"], **options)
    return Inspection(name, weights_sha256(model), len(images), found, moments, numbers, curves)


def passes(pictures: int, sample: int = SAMPLE, corrupted: int = CORRUPTED, **_) -> int:
    """How many pictures `inspect` shows the network in all."""
    return pictures + min(pictures, sample, corrupted) * (1 + len(CORRUPTIONS) * len(LEVELS))


def sampled(x: Tensor, y: Tensor, m: Moments) -> dict[str, Measured]:
    """What is asked of single pictures: (n, d), (n,)."""
    y = y.to(x.device)
    return {
        "nearest_class": mean_of(nearest_class_correct, x, y, m),
        "information": mean_of(information, x, y),
    }


def classifier(model: nn.Module, found: Gathered, m: Moments) -> dict[str, Measured]:
    """NC3 and NC4, of a linear classifier that tells these very classes apart."""
    head = model.get_classifier() if hasattr(model, "get_classifier") else None
    known = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    x = found.sample[found.last]
    because = ""
    if found.last != "pooled":
        because = f"features at {found.last} are not what the classifier sees: add pooled to layers"
    elif not isinstance(head, nn.Linear) or head.in_features != x.shape[1]:
        because = "the network has no linear classifier of these features"
    elif head.out_features != len(found.classes):
        because = f"the network tells {head.out_features} classes apart, not {len(found.classes)}"
    elif known and tuple(map(str, known)) != found.classes:
        because = "the network tells other classes apart"
    if because:
        undefined = Measured(None, because=f"undefined because {because}")
        return {"self_duality": undefined, "disagreement": undefined}
    device = m.origin.device
    with torch.inference_mode():
        decided = head(x.to(head.weight)).argmax(dim=1).to(device)
    weight = head.weight.detach().to(device)
    parts = found.parts[found.last]
    return {
        "self_duality": jackknifed(lambda m: self_duality(m, weight), m, parts.without()),
        "disagreement": mean_of(disagreement, x.to(device), decided, m),
    }


def compare(first: Inspection, second: Inspection) -> Comparison:
    """Two networks placement by placement, on the sample that both kept; one with itself too.

    Raises:
        ValueError: if they did not see the same pictures.
    """
    if not torch.equal(first.gathered.indices, second.gathered.indices):
        raise ValueError("the two networks did not see the same pictures")
    a, b = first.gathered.sample, second.gathered.sample
    table = cka_map(a, b)
    if first is second:
        return Comparison(table)
    x, y = a[first.last], b[second.last]
    return Comparison(table, alike(x, y), mean_of(imbalance, x, y), mean_of(imbalance, y, x))


def cka_map(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, dict[str, Measured]]:
    """CKA of every placement with every other, on MAPPED pictures of the sample."""
    left, right = ({p: kernel(x[:: stride(x)]) for p, x in each.items()} for each in (a, b))
    own = [{p: measured(kernel_hsic, k, k) for p, k in each.items()} for each in (left, right)]

    def one(p: str, q: str) -> Measured:
        undefined = [m for m in (own[0][p], own[1][q]) if m.value is None]
        if undefined:
            return undefined[0]
        both = kernel_hsic(left[p], right[q])
        return measured(normalized, both, own[0][p].value, own[1][q].value)

    return {p: {q: one(p, q) for q in right} for p in left}


def stride(x: Tensor) -> int:
    return -(-len(x) // MAPPED)


def alike(a: Tensor, b: Tensor, parts: int = 2 * PARTS) -> Measured:
    """Debiased CKA of features (n, d) and (n, e), with its interval from leaving out parts.

    A bootstrap would draw pictures twice, which are alike under any network.
    """
    parts = min(parts, len(a) // 2)
    part = torch.arange(len(a)) % max(parts, 1)
    without = [(a[part != k], b[part != k]) for k in range(parts)]
    return jackknifed(lambda pair: cka(*pair), (a, b), without).within(-math.inf, 1.0)


def pictures(
    data: str, split: str, level: str, model: nn.Module, limit: int | None, seed: int = 0
) -> Dataset:
    """At most `limit` pictures, drawn at random, of a named set or a folder as `model` takes them;
    FOLDER@32 as fine-tuning cuts it.

    A folder has a subfolder for each class, or for the split and in it for each class.

    Raises:
        LookupError: for what is neither, or a folder that has other parts than `split`.
        ValueError: for a limit below two, or a level of labels of a folder, which has none.
    """
    if limit is not None and limit < 2:
        raise ValueError(f"pictures={limit}: how features vary takes two or more")
    root = Path(data).expanduser()
    by_name = data in DATASETS or is_own(data) or not root.is_dir()
    if by_name:  # or neither, which `load` refuses
        images = load(sized(data), split, level)
    elif level != "fine":
        raise ValueError(f"--level {level} has no effect on {data}: leave it out")
    else:
        mode = "L" if data_config(model)["input_size"][0] == 1 else "RGB"
        images = ImageFolder(part_of(root, split))
        images.loader = lambda path: opened(path, mode)
    if limit is None or limit >= len(images):
        return images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:limit]
    chosen = chosen.sort().values
    if by_name:
        return images.subset(chosen)
    images.samples = [images.samples[i] for i in chosen.tolist()]
    return images


def part_of(root: Path, split: str) -> Path:
    """The folder of a split, or the whole where there are no splits.

    Raises:
        LookupError: for a folder that has other splits only.
    """
    if (root / split).is_dir():
        return root / split
    there = sorted(path.name for path in root.iterdir() if path.is_dir())
    parts = [name for name in there if name.lower() in SPLITS]
    if parts:
        raise LookupError(
            f"{root} has no {split}, but {', '.join(parts)}: give --split {parts[-1]}, or a folder "
            "with one subfolder for each class"
        )
    return root


def opened(path: str, mode: str) -> Image.Image:
    """A picture; an OSError that names it if it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    except (OSError, ValueError) as error:
        raise OSError(f"{path} is not a readable picture: {error}") from error
