"""The field's standard sets, through torchvision's own readers and downloads.

torchvision checks what it downloads (and CIFAR, SVHN, STL-10 and Flowers each time they are read)
against MD5 sums of its own. A folder that the user names is torchvision's `root`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torchvision.datasets

from . import cifar100
from .cache import home, say
from .dataset import Dataset, Pictures
from .pictures import Labelled, gathered, with_parents


class Standard(NamedTuple):
    """One of torchvision's classification sets."""

    name: str
    reader: str  # torchvision's class
    shows: str
    train: tuple[dict, ...]  # arguments of its train part; joined, if several
    test: dict | None  # of its test part; None: cut by group hash
    counts: tuple[int, int]  # official train and test pictures
    classes: int
    size: int  # pixels in the cache
    licence: str
    attribution: str


SPLIT = ({"split": "train"}, {"split": "val"})
DONE = "complete"  # a file beside what torchvision has downloaded and unpacked
OPEN, ASK = "CC BY-SA 4.0", "for research; see its page"
SETS = (
    Standard("cifar10", "CIFAR10", "photographs of ten kinds of things", ({"train": True},),
             {"train": False}, (50_000, 10_000), 10, 32, ASK, "Alex Krizhevsky"),
    Standard("cifar100", "CIFAR100", "photographs of a hundred kinds of things",
             ({"train": True},), {"train": False}, (50_000, 10_000), 100, 32, ASK,
             "Alex Krizhevsky"),
    Standard("flowers102", "Flowers102", "photographs of flowers", SPLIT, {"split": "test"},
             (2_040, 6_149), 102, 256, ASK, "Maria-Elena Nilsback and Andrew Zisserman"),
    Standard("pets", "OxfordIIITPet", "photographs of cats and dogs", ({"split": "trainval"},),
             {"split": "test"}, (3_680, 3_669), 37, 256, OPEN, "Omkar Parkhi and others"),
    Standard("dtd", "DTD", "photographs of textures", SPLIT, {"split": "test"}, (3_760, 1_880), 47,
             256, ASK, "Mircea Cimpoi and others"),
    Standard("food101", "Food101", "photographs of dishes", ({"split": "train"},),
             {"split": "test"}, (75_750, 25_250), 101, 256, ASK, "Lukas Bossard and others"),
    Standard("aircraft", "FGVCAircraft", "photographs of aircraft", ({"split": "trainval"},),
             {"split": "test"}, (6_667, 3_333), 100, 256, ASK, "Subhransu Maji and others"),
    Standard("cars", "StanfordCars", "photographs of cars", ({"split": "train"},),
             {"split": "test"}, (8_144, 8_041), 196, 256, ASK, "Jonathan Krause and others"),
    Standard("svhn", "SVHN", "photographs of house numbers", ({"split": "train"},),
             {"split": "test"}, (73_257, 26_032), 10, 32, ASK, "Yuval Netzer and others"),
    Standard("eurosat", "EuroSAT", "satellite pictures of land", ({},), None, (27_000, 0), 10, 64,
             "MIT", "Patrick Helber and others"),
    Standard("stl10", "STL10", "photographs of ten kinds of things", ({"split": "train"},),
             {"split": "test"}, (5_000, 8_000), 10, 96, ASK, "Adam Coates and others"),
)  # fmt: skip


def make(name: str, work: Path, folder: Path | None) -> Pictures:
    """Read one of the sets, downloaded first unless the user has it in a folder.

    Raises:
        OSError: if torchvision cannot give it; what to do is said.
        ImportError: if its files need SciPy, which is not there.
    """
    known = next(one for one in SETS if one.name == name)
    root = folder or home() / "packages" / "torchvision" / name
    if folder is None and not (root / DONE).exists():
        without_half_unpacked(root)
    parts = [("train", options) for options in known.train]
    parts += [("test", known.test)] if known.test is not None else []
    readers = [(part, reader(known, root, folder is None, options)) for part, options in parts]
    say(f"{name}: " + (f"from the folder {folder}" if folder else "torchvision's download"))
    if folder is None:
        (root / DONE).touch()
    first = readers[0][1]
    classes = getattr(first, "classes", None) or [str(label) for label in range(known.classes)]
    items = [item for part, one in readers for item in labelled(name, part, one)]
    found = gathered(items, [str(label) for label in classes], known.size, work)
    return with_parents(found, cifar100.PARENT.__getitem__) if name == "cifar100" else found


def without_half_unpacked(root: Path) -> None:
    """Remove all but archives: torchvision takes any folder for a complete one, but checks these.

    So that a download that was killed goes on with the archives that had arrived.
    """
    root.mkdir(parents=True, exist_ok=True)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix not in (".gz", ".tgz", ".zip"):
            path.unlink()


def reader(known: Standard, root: Path, download: bool, options: dict):
    """torchvision's own object for one part of a set."""
    try:
        kind = getattr(torchvision.datasets, known.reader)
        return kind(str(root), download=download, **options)
    except ModuleNotFoundError as error:
        raise ImportError(f"{known.name} needs {error.name}: pip install {error.name}") from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).split(" You can use")[0].strip()
        way = "torchvision's download" if download else f"the folder {root}"
        raise FileNotFoundError(
            f"{known.name} could not be obtained. Tried:\n  {way}: {reason}\nLay it out as "
            f"torchvision.datasets.{known.reader} does below a folder and type: "
            f"vcr-zoo data get {known.name} --folder FOLDER"
        ) from error


def labelled(name: str, part: str, one) -> Iterator[Labelled]:
    """Every picture of a part; labels without decoding, where torchvision keeps them apart."""
    kept = next(
        (
            getattr(one, attribute)
            for attribute in ("targets", "_labels", "labels")
            if getattr(one, attribute, None) is not None
        ),
        None,
    )
    if kept is None:  # StanfordCars keeps pairs
        kept = [label for _, label in one._samples]
    for index, label in enumerate(kept):
        yield Labelled(f"{index} of {name}'s {part} part", partial(picture, one, index), int(label),
                       part)  # fmt: skip


def picture(one, index: int):
    return one[index][0]


def row(known: Standard) -> Dataset:
    """A standard set's row."""
    train, test = known.counts
    levels = {"fine": known.classes} | ({"coarse": 20} if known.name == "cifar100" else {})
    return Dataset(
        name=known.name,
        shows=known.shows,
        pictures={"train and validation": train, "test": test},
        shape=(known.size, known.size, 3),
        levels=levels,
        licence=known.licence,
        attribution=known.attribution,
        publishable=known.licence not in (ASK, OPEN),
        group="equal pictures",
        make=partial(make, known.name),
    )


ROWS = tuple(row(known) for known in SETS)
