"""Pictures of one's own: `folder/PATH`, `wds/PATH` (webdataset shards) and `hfds/NAME`.

Any of them may end in @PIXELS, the size to keep pictures at (224 unless told). Parts are taken as
they come: folders, shards or splits called train, validation (or val) and test. Where there is a
validation part but no test part, it becomes the test part, as is usual with ImageNet, and ours is
cut from train; where there are no parts, both are cut by hash, a share of each class.
"""

import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from .cache import say
from .dataset import Dataset, Pictures
from .pictures import Labelled, gathered
from .split import share_of_each_class

SIZE = 224
# How parts are made; what is cached under another way is read again.
CUT = "each class; Train is train; by content of files"
TEST_SHARE = 0.3
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"}
PARTS = {  # what folders and shards of parts are called, by timm too
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def has_parts(folder: Path) -> bool:
    """Whether a folder is cut into parts already, by folders of their names."""
    return any(path.is_dir() and path.name.lower() in PARTS for path in folder.iterdir())


def row(name: str) -> Dataset:
    """The row of a source of one's own, by its name.

    Raises:
        OSError: if a path does not exist.
        ValueError: if the size is no number of pixels.
    """
    (kind, place, size), marks = parsed(name), (CUT,)
    here = Path(place).is_dir() or (kind == "wds" and Path(place).is_file())
    if not here and kind != "hfds":
        raise FileNotFoundError(f"{name}: there is no folder {place}")
    if here:
        marks += (listing(Path(place)),)
    return replace(described(name), make=partial(make, kind, place, size), sha256=marks)


def parsed(name: str) -> tuple[str, str, int]:
    """Kind, place and size in pixels.

    Raises:
        ValueError: if the size is no number of pixels.
    """
    kind, _, place = name.partition("/")
    size = str(SIZE)
    if "@" in place and not Path(place).exists():  # else the @ is the folder's own
        place, _, size = place.rpartition("@")
    if not (size.isdigit() and int(size)):
        raise ValueError(f"{name}: expected a number of pixels after @, got {size!r}")
    return kind, place, int(size)


def described(name: str) -> Dataset:
    """The row of a source of one's own, without a look at it: for cards, on any machine."""
    kind, place, size = parsed(name)
    of_the_hub = kind == "hfds" and not Path(place).is_dir()
    where = place if of_the_hub else Path(place).absolute()
    digest = hashlib.sha256(os.fsencode(f"{kind} {where} {size}"))
    return Dataset(
        name=f"{kind}-{digest.hexdigest()[:16]}",
        shows=kind,
        pictures={},
        shape=(size, size, 3),
        levels={"fine": 0},
        licence="the user's own",
        attribution="pictures of its maker's own",
        publishable=kind == "folder",  # their owner says so, who gives the weights a licence
        group="equal pictures",
        validation_share=0.1,
    )


def listing(place: Path) -> str:
    """sha256 of the names, sizes and times of a folder's files, or of one file's."""
    total = hashlib.sha256()
    paths = below(place) if place.is_dir() else [place]
    for path in filter(Path.is_file, paths):
        stat = path.stat()
        line = f"{path.relative_to(place)} {stat.st_size} {stat.st_mtime_ns}\n"
        total.update(os.fsencode(line))
    return total.hexdigest()


def below(place: Path) -> list[Path]:
    """Files of a folder and of folders in it, those behind links too; without hidden ones, which
    programs leave for themselves.

    Raises:
        ValueError: for a link to a folder that it lies in, which has no end.
    """
    found = []
    for folder, folders, names in os.walk(place, followlinks=True):
        real = Path(folder).resolve()
        above = [path.resolve() for path in Path(folder).parents if path.is_relative_to(place)]
        if any(real == one or real in one.parents for one in above):
            raise ValueError(f"{folder} is a link to a folder that it lies in: remove it")
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def make(kind: str, place: str, size: int, work: Path, folder: Path | None) -> Pictures:
    """Read a source; `folder` is not used, since the name says where it is."""
    sources = {"folder": from_folder, "wds": from_shards, "hfds": from_hub}
    classes, items = sources[kind](place)
    say(f"{kind}/{place}: read into the cache at {size} pixels")
    found = gathered(official(items), classes, size, work)
    if found.test is None and found.validation is None:  # and every class is small, perhaps
        test = share_of_each_class(found.y, found.groups, TEST_SHARE, "test")
        found = found._replace(test=test)
    return found


def official(items: list[Labelled]) -> list[Labelled]:
    """With the validation part as the test part, where there is only the former."""
    parts = {item.part for item in items}
    if "validation" in parts and "test" not in parts:
        return [i._replace(part="test" if i.part == "validation" else i.part) for i in items]
    return items


def from_folder(place: str) -> tuple[list[str], list[Labelled]]:
    """A folder for each class, or one for each part with those below it.

    Raises:
        ValueError: if there are no pictures below folders, or parts and none to train on.
    """
    root = Path(place)
    tops = [p.name for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    parts = {top: PARTS[top] for top in tops if top in PARTS}
    if all(top.lower() in PARTS for top in tops):  # else one called Train may be a class
        parts = {top: PARTS[top.lower()] for top in tops}
    beside = [top for top in tops if parts and top not in parts and pictures(below(root / top))]
    trained = [p for top in parts if parts[top] == "train" for p in (root / top).iterdir()]
    if beside and pictures(trained) and not any(path.is_dir() for path in trained):
        parts = {}  # classes, one of them called train
    elif beside and "train" in parts.values():
        say(f"{root}: {', '.join(beside)} left out, beside the folders of parts")
    if "train" not in parts.values():
        if parts and len(parts) == len(tops):
            raise ValueError(f"{root} has {', '.join(parts)} and no train folder: name one train")
        parts = {"": ""}
    found, empty, others = [], [], Counter()
    for top, part in parts.items():
        for folder in sorted(path for path in (root / top).iterdir() if path.is_dir()):
            if folder.name.startswith("."):  # what programs leave for themselves
                continue
            files = below(folder)
            paths = pictures(files)
            others.update(path.suffix for path in files if path.suffix.lower() not in ENDINGS)
            found += [(path, folder.name, part) for path in paths]
            empty += [folder] if not paths and part in ("", "train") else []
    classes = sorted({label for _, label, _ in found})
    if not classes:
        raise ValueError(f"{root} holds no pictures in folders; expected {root}/CLASS/NAME.png")
    if empty:
        raise ValueError(
            f"{', '.join(map(str, empty[:5]))}{' and others' if empty[5:] else ''}: a class "
            f"without pictures (files ending in {', '.join(sorted(ENDINGS))}); add some, or remove "
            "the folder"
        )
    if others:
        counted = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in others.items())
        say(f"{root}: {counted} left out, since pictures end in {', '.join(sorted(ENDINGS))}")
    number = {label: index for index, label in enumerate(classes)}
    items = [Labelled(str(path), path, number[label], part) for path, label, part in found]
    return classes, items


def pictures(paths: Iterable[Path]) -> list[Path]:
    """Those that end as pictures do."""
    return [path for path in paths if path.suffix.lower() in ENDINGS]


def from_shards(place: str) -> tuple[list[str], list[Labelled]]:
    """Tar files of KEY.jpg (or another picture) and KEY.cls, a number; read where they lie.

    Raises:
        ValueError: naming the shard or the key, if it is damaged or incomplete.
    """
    root = Path(place)
    items = []
    shards = [path for path in below(root) if path.suffix == ".tar"] if root.is_dir() else [root]
    for shard in shards:
        words = [*re.split("[-_.]", shard.name), shard.parent.name]
        part = next((PARTS[word.lower()] for word in words if word.lower() in PARTS), "")
        try:
            items += [item._replace(part=part) for item in samples(shard)]
        except tarfile.TarError as error:
            raise ValueError(f"{shard} is truncated or damaged: {error}") from None
    return [str(label) for label in range(max((i.label for i in items), default=-1) + 1)], items


def samples(shard: Path) -> Iterator[Labelled]:
    """The pictures of one shard with their labels."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            if member.isfile() and stem:  # hidden files are no samples
                files = found.setdefault(str(path.with_name(stem)), {})
                files[f".{ending.lower()}"] = (member.offset_data, member.size)
    for key, files in found.items():
        picture = next((span for ending, span in files.items() if ending in ENDINGS), None)
        if picture is None or ".cls" not in files:
            raise ValueError(f"{shard}: {key} has no picture or no .cls, only {', '.join(files)}")
        label = stretch(shard, *files[".cls"]).strip()
        if not label.isdigit():
            raise ValueError(f"{shard}: {key}.cls is no class number: {label[:20]!r}")
        yield Labelled(f"{key} of {shard}", partial(stretch, shard, *picture), int(label))


def stretch(path: Path, start: int, size: int) -> bytes:
    """Some bytes of a file."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def from_hub(name: str) -> tuple[list[str], list[Labelled]]:
    """A data set of the Hub, or a folder in its format, with a picture and a class-label column.

    Raises:
        ImportError: without the extra.
        ValueError: if a column is missing, with those there are.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("hfds/ needs datasets: pip install 'vcr_zoo[hfds]'") from error
    splits = datasets.load_dataset(name)
    features = next(iter(splits.values())).features
    pictures = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not pictures or not labels:
        raise ValueError(f"hfds/{name} lacks an Image or a ClassLabel column: {features}")
    items = []
    for split, table in splits.items():
        table = table.cast_column(pictures[0], datasets.Image(decode=False))
        for index, label in enumerate(table[labels[0]]):
            source = partial(from_table, table, index, pictures[0])
            what = f"{index} of {name}'s {split} split"
            items.append(Labelled(what, source, label, PARTS.get(split.lower(), "train")))
    return features[labels[0]].names, items


def from_table(table, index: int, column: str) -> bytes:
    cell = table[index][column]
    return cell["bytes"] or Path(cell["path"]).read_bytes()
