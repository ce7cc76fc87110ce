"""From a name to pictures: the train and validation parts for everyone, the test part apart."""

import hashlib
from pathlib import Path

import numpy as np

from vcr_zoo.results import closest, closest_path

from . import cache, own
from .dataset import Dataset
from .images import Images, Rows
from .registry import DATASETS
from .split import long_tail
from .weights import BASELINES, baseline

SPLITS = ("train", "validation", "train+validation")


def is_named(name: str) -> bool:
    """Whether training takes pictures of this name from `load`: a row of DATASETS, or folder/PATH.
    (wds/ and hfds/ are timm's there.)"""
    return name in DATASETS or name.startswith("folder/")


def named(where: str | Path) -> str:
    """The name that `load` takes of a folder's path, my/pictures or my/pictures@32: folder/PATH;
    anything else as it is."""
    if str(where) in DATASETS or str(where) in BASELINES or is_own(str(where)):
        return str(where)
    path = str(Path(where).expanduser())
    place, at, size = path.rpartition("@")
    there = Path(path).is_dir() or (at and size.isdigit() and Path(place).is_dir())
    return f"folder/{path}" if there else str(where)


def sized(where: str) -> str:
    """`named` of my/pictures@32 as fine-tuning cuts it, if it is not cut into parts already.

    Raises:
        ValueError: if it is: as it lies, its parts are others than those of folder/PATH.
    """
    name = named(where)
    if name == where:
        return name
    _, folder, _ = own.parsed(name)
    if own.has_parts(Path(folder)):
        raise ValueError(
            f"{folder} has parts of its own: --data {folder} takes them as they are, "
            f"--data {name} as fine-tuning does, to which validation/ is the test part if there is "
            "no other"
        )
    return name


def described(name: str) -> Dataset:
    """The row of a name, as `row_of`, but pictures of one's own need not be there."""
    return own.described(name) if is_own(name) else row_of(name)


def is_own(name: str) -> bool:
    """Whether a name is a source of one's own."""
    return name.split("/")[0] in ("folder", "hfds", "wds") and "/" in name


def row_of(name: str) -> Dataset:
    """The row of a name.

    Raises:
        LookupError: if there is none, with the closest names.
    """
    if is_own(name):
        return own.row(name)
    if name not in DATASETS:
        if Path(name).is_dir():
            raise LookupError(f"{name!r} is a folder and no data set's name: give folder/{name}")
        place, at, size = name.rpartition("@")
        if at and place and not size.isdigit() and Path(place).is_dir():
            raise LookupError(f"{name}: expected a number of pixels after @, got {size!r}")
        raise LookupError(
            f"no data set {name!r}, and no folder.{meant(name)} `vcr-zoo data list` "
            "shows all; your own are folder/PATH, wds/PATH or hfds/NAME"
        )
    return DATASETS[name]


def meant(name: str) -> str:
    """What comes near, for an error: a data set's name, of a path a folder beside it.

    Weights are named after super-classes as `fmnist4`, which is a level of a data set and none.
    """
    if "/" in name:
        return closest_path(name.partition("@")[0], Path.is_dir)
    for known, row in DATASETS.items():
        if name == f"{known}{row.levels.get('coarse')}":
            return (
                f" In weights' names that is {known} by its super-classes: --dataset {known} "
                f"--label-level coarse in training, --data {known} --level coarse elsewhere."
            )
    return closest(name, DATASETS)


def row_with(name: str, level: str) -> Dataset:
    """The row of a name whose pictures have labels of this level.

    Raises:
        LookupError: if there is none, or the level is none of its own.
    """
    row = row_of(name)
    if level not in row.levels:
        raise LookupError(f"{name} has no label level {level!r}: it has {', '.join(row.levels)}")
    return row


def load(
    name: str, split: str = "train", level: str = "fine", folder: str | Path | None = None
) -> Images:
    """Pictures to train on and to choose with: "train", "validation" or "train+validation".

    The validation part is cut from the official train part by a hash of each picture's group.

    Raises:
        LookupError: for an unknown name or level.
        ValueError: for another part; the test part is `load_test`'s.
        OSError: if the set is not here and no route leads to it.
    """
    if split == "test":
        raise ValueError(
            "the test part is read by load_test(name), once, after every choice; for anything else "
            f"there are {', '.join(SPLITS)}"
        )
    if split not in SPLITS:
        raise ValueError(f"no part {split!r}: there are {', '.join(SPLITS)}")
    return _open(name, split, level, folder)


def load_test(name: str, level: str = "fine", folder: str | Path | None = None) -> Images:
    """The test part, for the one final measurement; nothing may be chosen with it."""
    return _open(name, "test", level, folder)


def get(name: str, folder: str | Path | None = None) -> str:
    """Fetch and build a set into the cache unless it is there; says what it holds and where.

    What is there is compared with its checksums, which `load` does not do.

    Raises:
        LookupError: for an unknown name.
        ValueError: for a folder given to pictures whose name says where they lie.
        OSError: if the set cannot be had, or what is in the cache is damaged.
    """
    if folder is not None and is_own(name):
        raise ValueError(f"{name} says where it lies: leave --folder out")
    if name in BASELINES:
        count = len(baseline(name, folder))
        return f"{name}: {count} tensors, {BASELINES[name].licence}, {BASELINES[name].attribution}"
    row = row_of(name)
    place = cache.built(DATASETS[row.base] if row.base else row, folder, row.base or name)
    cache.verify(place, name)
    parts = cache.header(place)["pictures"]
    counts = {part: len(_piece(place, part, row, name)[1]) for part in parts}
    return f"{name}: {', '.join(f'{count:,} {part}' for part, count in counts.items())} in {place}"


def listing() -> str:
    """Every row of DATASETS, to be printed."""
    lines = []
    for row in DATASETS.values():
        counts = ", ".join(f"{count:,} {part}" for part, count in row.pictures.items())
        classes = " > ".join(str(count) for count in reversed(row.levels.values()))
        shape = " x ".join(map(str, row.shape))
        weights = "may be published" if row.publishable else "stay with their maker"
        sources = [str(package) for package in row.packages]
        sources += ["torchvision"] if row.download or row.make else []
        lines += [
            f"{row.name}: {row.shows}",
            f"    pictures of {shape}, {classes} classes; {counts or 'thinned when loaded'}",
            f"    {row.licence}; {row.attribution}; weights trained on it {weights}",
            f"    undivided: {row.group}; from: {', '.join(sources)}",
        ]
        lines += [f"    sha256 of its files: {' or '.join(row.sha256)}"] if row.sha256 else []
    for row in BASELINES.values():
        lines += [
            f"{row.name}: {row.shows}, to be compared with",
            f"    {row.licence}; {row.attribution}; from: {row.packages[0]}",
            f"    sha256 of its file: {row.sha256[0]}",
        ]
    return "\n".join(lines)


def _open(name: str, split: str, level: str, folder: str | Path | None) -> Images:
    row = row_with(name, level)
    place = cache.built(DATASETS[row.base] if row.base else row, folder, row.base or name)
    header = cache.header(place)
    pieces = [_piece(place, part, row, name) for part in split.split("+")]
    x, y, groups = pieces[0]
    if len(pieces) > 1:
        xs, ys, names = zip(*pieces, strict=True)
        y, groups = np.concatenate(ys), np.concatenate(names)
        x = Rows(xs, np.arange(len(y)))
    sums = " ".join(header["sha256"][part] for part in split.split("+"))
    source = name if name in DATASETS else "own"  # wherever one's own pictures lie
    digest = hashlib.sha256(f"{source} {split} {level} {row.tail} {sums}".encode())
    return Images(
        x,
        np.asarray(header["parents"])[y] if level == "coarse" else np.asarray(y),
        header["classes"][level],
        groups,
        name=name,
        split=split,
        level=level,
        fingerprint=digest.hexdigest(),
        mean=header["mean"],
        std=header["std"],
    )


def _piece(place: Path, part: str, row: Dataset, name: str) -> tuple:
    """One part's arrays as they lie in the cache, thinned if the row says so."""
    try:
        x, y, groups = (
            np.load(place / f"{part}.{array}.npy", mmap_mode="r", allow_pickle=False)
            for array in ("x", "y", "groups")
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"the cache of {name} is damaged ({error}); remove {place} and load it again"
        ) from None
    if row.tail == 1 or part == "test":
        return x, y, groups
    keep = long_tail(np.asarray(y), np.asarray(groups), row.tail)
    return Rows([x], keep), y[keep], groups[keep]
