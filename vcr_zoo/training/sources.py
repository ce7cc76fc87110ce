"""The pictures of a run: named data sets of ours, or anything that timm opens, checked first."""

import argparse
import copy
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image, ImageMode
from timm.data import MultiLabelTarget, create_dataset
from torch.utils.data import Dataset, IterableDataset

from vcr_zoo.data import DATASETS, is_named, load
from vcr_zoo.data.load import meant
from vcr_zoo.results import closest

from .options import SELF_SUPERVISED

PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")
PACKAGES = {  # of timm's readers: module, and what to install for it
    "hfds": ("datasets", "'vcr_zoo[hfds]'"),
    "hfids": ("datasets", "'vcr_zoo[hfds]'"),
    "wds": ("webdataset", "'vcr_zoo[wds]'"),
    "tfds": ("tensorflow_datasets", "tensorflow tensorflow-datasets"),
}
HEADERS_READ = 20_000  # pictures whose headers are looked at before training starts
SPLITS = ("train", "training", "val", "validation", "eval", "evaluation")  # in any folder, to timm
MODES = {1: "L", 3: "RGB"}  # of PIL, by channels

SKIPPED = logging.getLogger("timm.data.dataset")  # says of a broken picture that it is skipped
log = logging.getLogger(__name__)


def open_split(args: argparse.Namespace, split: str, channels: int, training: bool) -> Dataset:
    """The pictures of one split, without transform.

    Raises:
        ValueError: for a name that is no data set, an empty folder or a single class.
        ImportError: naming the extra that the kind of data set needs.
    """
    if is_named(args.dataset):
        images = load(args.dataset, split, level=args.label_level, folder=args.data_dir)
        if channels == 3:
            images.mode = "RGB"
    else:
        images = _timm_dataset(args, split, channels, training)
    wanted = args.train_num_samples if training else args.val_num_samples
    if wanted and not isinstance(images, IterableDataset):
        images = portion(images, wanted)
    return images


def _timm_dataset(args, split: str, channels: int, training: bool) -> Dataset:
    if args.dataset and not args.dataset.lower().startswith(PREFIXES):
        named = ", ".join(sorted(DATASETS))
        raise ValueError(
            f"no data set '{args.dataset}'.{meant(args.dataset)} Named sets: {named}; "
            f"timm's begin with {', '.join(PREFIXES)}; for a folder give its path, or folder/PATH."
        )
    if not args.dataset and not args.data_dir:
        raise ValueError("no data: give --data-dir FOLDER, or --dataset NAME")
    if not args.dataset and not Path(args.data_dir).exists():
        near = meant(args.data_dir)
        raise ValueError(
            f"{args.data_dir} does not exist.{near} Give a folder with train/CLASS and "
            "validation/CLASS, one of classes alone as folder/PATH@PIXELS, or a data set by its "
            "name (`vcr-zoo data list`)"
        )
    if not args.dataset:
        _check_split(Path(args.data_dir), split)
    _installed(args.dataset)
    torchvision = args.dataset.lower().startswith("torch/")
    optional = {"num_samples": args.train_num_samples if training else args.val_num_samples}
    if torchvision:
        optional = {}  # torchvision's classes would not know what to do with the rest
    else:
        optional |= {
            "class_map": args.class_map,
            "input_img_mode": picture_mode(args, channels),
            "input_key": args.input_key,
            "target_key": args.target_key,
            "trust_remote_code": args.dataset_trust_remote_code,
        }
    try:
        images = create_dataset(
            args.dataset,
            root=args.data_dir,
            split=split,
            is_training=training,
            download=args.dataset_download,
            batch_size=args.batch_size,
            seed=args.seed,
            repeats=args.epoch_repeats if training else 0,
            **optional,
        )
    except (AssertionError, RuntimeError) as error:
        hint = "; that is --dataset-download" if "download=True" in str(error) else ""
        raise ValueError(f"cannot open the data: {error}{hint}") from error
    if torchvision:
        _same_channels(images, channels, args.dataset)
    return images


def _check_split(folder: Path, split: str) -> None:
    """Refuse a split without a folder, for which timm would take all that there is."""
    name = split.partition("[")[0]
    if name in SPLITS or not folder.is_dir() or (folder / name).exists():
        return
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    raise ValueError(f"{folder} has no folder '{name}'.{closest(name, [*there, *SPLITS])}")


def _installed(dataset: str) -> None:
    """Refuse a kind of data set whose package is not installed, naming what brings it."""
    module, install = PACKAGES.get(dataset.partition("/")[0].lower(), ("", ""))
    if module and find_spec(module) is None:
        raise ImportError(f"'{dataset}' needs {module}, not installed here: pip install {install}")


def picture_mode(args: argparse.Namespace, channels: int) -> str:
    """PIL's mode that pictures are converted to: --input-img-mode, or RGB, or L at one channel.

    Raises:
        ValueError: for a mode that does not exist, or not of as many channels.
    """
    mode = args.input_img_mode or MODES.get(channels)
    if mode is None:
        raise ValueError(f"pictures of {channels} channels need --input-img-mode, RGBA for example")
    try:
        found = len(ImageMode.getmode(mode).bands)
    except KeyError:
        raise ValueError(f"--input-img-mode {mode} does not exist; PIL has L, RGB, RGBA") from None
    if found != channels:
        raise ValueError(
            f"--input-img-mode {mode} gives pictures of {found} channels, but the network takes "
            f"{channels}: pass --in-chans {found}"
        )
    return mode


def _same_channels(images: Dataset, channels: int, name: str) -> None:
    """Refuse pictures of other channels than the network's, where nothing converts them."""
    picture = images[0][0]
    if isinstance(picture, Image.Image) and (found := len(picture.getbands())) != channels:
        raise ValueError(
            f"pictures of {name} have {found} channel(s), but the network takes {channels}: "
            f"pass --in-chans {found}"
        )


def portion(images: Dataset, count: int) -> Dataset:
    """`count` pictures chosen once and for all, in their own order, whatever the run's seed.

    Raises:
        ValueError: if there are fewer.
    """
    if count > len(images):
        raise ValueError(f"{count} pictures were asked for, of {len(images)}")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    chosen = chosen.sort().values
    return images.subset(chosen) if hasattr(images, "subset") else Portion(images, chosen.tolist())


class Portion(Dataset):
    """Some pictures of a data set, still with the transform and the file names of the whole."""

    def __init__(self, images: Dataset, indices: list[int]):
        self.images, self.indices = images, indices

    def __copy__(self) -> "Portion":  # with a transform of its own
        return Portion(copy.copy(self.images), self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):
        return self.images[self.indices[index]]

    def __getattr__(self, name: str):
        if name == "images":
            raise AttributeError(name)
        return getattr(self.images, name)

    def __setattr__(self, name: str, value) -> None:
        own = name in ("images", "indices")
        super().__setattr__(name, value) if own else setattr(self.images, name, value)

    def filename(self, index: int, **style) -> str:
        return self.images.filename(self.indices[index], **style)


class Readable(Dataset):
    """A timm image data set that names the picture which cannot be read, instead of skipping it."""

    def __init__(self, images: Dataset):
        self.images = images
        images._max_retries = 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        SKIPPED.disabled = True  # it is not
        try:
            return self.images[index]
        except RuntimeError as error:
            if "Failed to load" not in str(error):
                raise
            raise unreadable(self.images, index) from None
        finally:
            SKIPPED.disabled = False

    @property
    def transform(self):
        return self.images.transform

    @transform.setter
    def transform(self, transform) -> None:
        self.images.transform = transform


class UnreadableError(OSError):
    """One line, also where torch hands over a loader worker's whole traceback as the message."""

    def __init__(self, text: str):
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


def unreadable(images: Dataset, index: int) -> UnreadableError:
    """The error that names a picture which is none."""
    name = images.filename(index, absolute=True)
    return UnreadableError(
        f"{name} cannot be read as a picture: mend or remove it; training takes --on-bad-image skip"
    )


def class_names(images: Dataset) -> list[str]:
    """Names of the classes where the data set knows them."""
    reader = getattr(images, "reader", None)
    by_name = (
        getattr(reader, "class_to_idx", None)
        or getattr(reader, "class_name_to_idx", None)  # of tar files
        or getattr(images, "class_to_idx", None)
    )
    if by_name:
        return [str(name) for name in sorted(by_name, key=by_name.get)]
    return [str(name) for name in getattr(images, "classes", [])]


def check(args: argparse.Namespace, train: Dataset, validation: Dataset | None) -> None:
    """Refuse, before training starts, data that could only disappoint later.

    Raises:
        ValueError: for a single class, or class folders that differ between the splits.
        OSError: naming a picture that cannot be read (unless --on-bad-image skip).
    """
    names = class_names(train)
    if not args.class_map:  # which may leave out folders on purpose
        for images in (train, validation):
            _warn_of_empty_folders(images)
    if names and len(names) < 2 and args.task not in SELF_SUPERVISED:
        raise ValueError(f"only one class, '{names[0]}': a classifier needs two folders or more")
    other = names if validation is None else class_names(validation)
    unlabelled = args.task in SELF_SUPERVISED and 1 in (len(names), len(other))
    if names and other != names and not unlabelled:
        missing, extra = sorted(set(names) - set(other)), sorted(set(other) - set(names))
        raise ValueError(
            "the classes of training and validation differ: "
            f"only in training {missing[:5]}, only in validation {extra[:5]}"
        )
    for images in (train, validation):
        if args.on_bad_image == "error" and hasattr(getattr(images, "reader", None), "samples"):
            _read_headers(images)


def _warn_of_empty_folders(images: Dataset | None) -> None:
    """Say which folders are no classes, because they hold no picture."""
    reader = getattr(images, "reader", None)
    root = Path(str(getattr(reader, "root", "")))
    folders = hasattr(reader, "class_to_idx") and hasattr(reader, "samples")
    if not folders or not root.is_dir():  # a stream, or tar files
        return
    used = {Path(path).relative_to(root).parts[0] for path, _ in reader.samples}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in used and not folder.name.startswith("."):
            log.warning("%s holds no pictures: it is no class", folder)


def _read_headers(images: Dataset) -> None:
    """Open every picture (the first 20,000) without decoding it."""
    whole = getattr(images, "images", images)
    if not Path(str(whole.reader.samples[0][0])).exists():
        return  # inside a tar file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(min(len(images), HEADERS_READ)):
            try:
                Image.open(images.filename(index, absolute=True)).close()
            except OSError:
                raise unreadable(images, index) from None


def as_multilabel(args: argparse.Namespace, images: Dataset) -> None:
    """Let a data set give dense targets, from lists of class numbers or multi-hot vectors.

    Raises:
        ValueError: if the number of classes was not stated, or labels cannot be transformed.
    """
    if "num_classes" not in args.given:
        raise ValueError("--task multilabel needs --num-classes")
    if not hasattr(images, "target_transform"):
        raise ValueError(f"{type(images).__name__} has no several labels a picture")
    dense = args.target_format == "multihot" or "," in (args.target_key or "")
    images.target_transform = MultiLabelTarget(args.num_classes, dense=dense)
