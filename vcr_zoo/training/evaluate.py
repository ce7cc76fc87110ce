"""How well a classifier does on a split, and what it says of single pictures."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import Dataset

from vcr_zoo.data import is_named, load_test, sized
from vcr_zoo.data.own import PARTS, has_parts
from vcr_zoo.results import closest_path

from .loading import evaluation_loader
from .options import parse
from .sources import class_names, open_split

log = logging.getLogger(__name__)

matplotlib.use("Agg")


@dataclass
class Evaluation:
    """Shares of pictures between 0 and 1, and the counts they come from."""

    top1: float
    top5: float
    recall: list[float]  # of each class: share of its pictures that were recognized; NaN for none
    confusion: Tensor  # int64 (true class, predicted class)
    classes: list[str]
    pictures: int
    images_per_second: float


NO_CLASSIFIER = (
    "this network has no classifier: `vcr-zoo transfer` measures its features, `vcr-zoo finetune` "
    "gives it your classes"
)


def open_pictures(data: str, split: str = "validation", level: str = "fine", channels: int = 3):
    """A split of a named data set, or of a folder of pictures; FOLDER@32 as fine-tuning cuts it.

    Raises:
        ValueError: for neither, a level of labels of a folder, which has none, a test part of one
            that is not cut into parts, or FOLDER@32 of one that is.
    """
    here = Path(data).expanduser()
    data = str(here) if here.is_dir() else sized(data)
    if not is_named(data) and level != "fine":
        raise ValueError(f"--level {level} has no effect on {data}: leave it out")
    if is_named(data) and split == "test":
        images = load_test(data, level=level)
        images.mode = "RGB" if channels == 3 else images.mode
        return images
    if here.is_dir() and split == "test" and not has_parts(here):
        raise ValueError(
            f"{data} has no folder 'test': --data folder/{data} --split test takes those that "
            "fine-tuning leaves for the end"
        )
    where = ["--dataset", data] if is_named(data) else ["--data-dir", data]
    args = parse([*where, "--label-level", level])
    images = open_split(args, split, channels, training=False)
    root = getattr(getattr(images, "reader", None), "root", None)
    alone = root is not None and Path(root) == Path(data)
    if alone and Path(data).name.lower() not in PARTS:
        log.warning(
            "%s has no %s folder: all of its pictures are taken, and a network may have learned "
            "from some; --data folder/%s --split test takes those that fine-tuning leaves for the "
            "end",
            *(data, split, data),
        )
    return images


def evaluate(
    model: nn.Module, images: Dataset, *, batch_size: int = 256, workers: int = 0, device="cpu"
) -> Evaluation:
    """A classifier on pictures, prepared as training prepares its validation split.

    Raises:
        ValueError: if the pictures have more classes than the model tells apart, or others.
    """
    names, outputs = class_names(images), model.num_classes
    if not outputs:
        raise ValueError(NO_CLASSIFIER)
    if len(names) > outputs:
        raise ValueError(f"the data has {len(names)} classes, the model tells {outputs} apart")
    known = [str(name) for name in model.pretrained_cfg.get("label_names") or ()]
    if names and known and names != known:
        differing = sorted(set(names) ^ set(known)) or "in another order"
        raise ValueError(f"the classes of the data are not the model's: {differing[:5]}")
    args = parse(["--batch-size", str(batch_size), "--workers", str(workers)])
    args.rank, args.world_size, args.distributed = 0, 1, False
    data_config = resolve_data_config({}, model=model)
    device = torch.device(device)
    loader = evaluation_loader(args, images, data_config, device, None)
    confusion = torch.zeros(outputs, outputs, dtype=torch.long)
    within_five = 0
    model = model.eval().to(device)
    began = time.perf_counter()
    for logits, y in _logits(model, loader.epoch()):
        ranked = logits.topk(min(5, outputs), dim=1).indices  # (b, 5)
        within_five += (ranked == y[:, None]).any(dim=1).sum().item()
        pairs = y * outputs + ranked[:, 0]
        confusion += torch.bincount(pairs, minlength=outputs**2).view(outputs, outputs)
    seconds, n = time.perf_counter() - began, int(confusion.sum())
    return Evaluation(
        top1=confusion.trace().item() / n,
        top5=within_five / n,
        recall=(confusion.diagonal() / confusion.sum(dim=1)).tolist(),
        confusion=confusion,
        classes=names or [str(label) for label in range(outputs)],
        pictures=n,
        images_per_second=n / seconds,
    )


@torch.inference_mode()
def _logits(model: nn.Module, batches: Iterable) -> Iterable[tuple[Tensor, Tensor]]:
    for x, y in batches:
        output = model(x)
        yield (output[0] if isinstance(output, tuple | list) else output).float().cpu(), y.cpu()


def draw_confusion(result: Evaluation, path: str | Path) -> None:
    """Save the confusion matrix, each true class a row of shares, as a picture."""
    counts = result.confusion[: len(result.classes), : len(result.classes)]
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = 3 + 0.3 * min(len(counts), 40)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"top-1 {100 * result.top1:.2f} %")
    if len(counts) <= 40:
        axes.set_xticks(range(len(counts)), result.classes, rotation=90)
        axes.set_yticks(range(len(counts)), result.classes)
    figure.savefig(path, dpi=120)


def predict(
    model: nn.Module, pictures: Iterable[str | Path], k: int = 5
) -> Iterator[tuple[str, list[tuple[str, float]] | OSError]]:
    """The k likeliest classes of each picture file with their probabilities, likeliest first; or
    why it cannot be read as a picture, with the closest files beside one that is not there.

    Raises:
        ValueError: for a network without a classifier, or a k below 1.
    """
    if not model.num_classes:
        raise ValueError(NO_CLASSIFIER)
    if k < 1:
        raise ValueError(f"k={k}: at least one class is named")
    config = resolve_data_config({}, model=model)
    transform = create_transform(**config)
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    names = list(model.pretrained_cfg.get("label_names") or ())
    classes = model.num_classes
    model.eval()
    device = next(model.parameters()).device
    for path in map(str, pictures):
        try:
            with Image.open(path) as picture:
                x = transform(picture.convert(mode))
        except (OSError, Image.DecompressionBombError) as error:
            yield path, unreadable(path, error)
            continue
        with torch.inference_mode():
            likely = model(x[None].to(device)).float().softmax(dim=1)[0].topk(min(k, classes))
        labels = [names[i] if i < len(names) else str(i) for i in likely.indices.tolist()]
        yield path, list(zip(labels, likely.values.tolist(), strict=True))


def unreadable(path: str, error: Exception) -> OSError:
    """What is wrong with a file that was to be a picture, and what to type instead."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"there is no picture {path}.{closest_path(path, Path.is_file)}")
    if isinstance(error, IsADirectoryError):
        return IsADirectoryError(f"{path} is a folder: name its pictures, {path}/*")
    return OSError(f"{path} cannot be read as a picture: {error}")
