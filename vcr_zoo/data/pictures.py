"""From picture files of every kind to arrays of one size: nothing is trusted, all is named."""

import hashlib
import io
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from .dataset import Pictures

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NAMED = 5  # pictures that an error names


class Item(NamedTuple):
    """One picture that is to be read: what it is called, where it is, and what it shows."""

    name: str
    source: Path | bytes | Image.Image | Callable[[], bytes | Image.Image]
    label: str
    group: str


def pack(
    items: Iterable[Item],
    size: int,
    *,
    channels: int = 3,
    ground: tuple[int, int, int] = WHITE,
    at_least: int = 1,
) -> Pictures:
    """Distinct pictures of the classes that have enough of them, as squares of `size` pixels.

    Of pictures that are equal at that size, the first is kept.

    Args:
        ground: the colour behind transparent pictures and beside those that are not square.
        at_least: groups of pictures that a class must have.

    Raises:
        ValueError: naming the first picture that does not decode.
    """
    seen, kept, x = set(), [], []
    for item in tqdm(items, desc="reading", leave=False, disable=None):
        picture = square(opened(item), size, channels, ground)
        digest = hashlib.sha256(picture.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(item)
            x.append(picture)
    count = Counter(label for label, _ in {(item.label, item.group) for item in kept})
    classes = sorted(label for label in count if count[label] >= at_least)
    place = {label: index for index, label in enumerate(classes)}
    chosen = [i for i, item in enumerate(kept) if item.label in place]
    if not chosen:
        raise ValueError(f"no class has the {at_least} groups of pictures that it needs")
    return Pictures(
        x=np.stack([x[i] for i in chosen]),
        y=np.array([place[kept[i].label] for i in chosen], dtype=np.int64),
        classes=tuple(classes),
        groups=np.array([kept[i].group for i in chosen]),
    )


class Labelled(NamedTuple):
    """One picture of a set whose classes are numbered already."""

    name: str
    source: Path | Callable[[], bytes | Image.Image]
    label: int
    part: str = ""  # "train", "validation", "test", or "" where there are no parts


def gathered(items: Sequence[Labelled], classes: Sequence[str], size: int, work: Path) -> Pictures:
    """Photographs as squares of `size` pixels, on disk from the first to the last.

    Resized to `size` by the shorter side and cropped in the middle, as timm evaluates. Equal
    pictures, compared after that, form one group. Its name comes from a file's content, if there is
    one, so that a picture is in the same part at every size.

    Raises:
        ValueError: naming the pictures that do not decode, or the first whose label is no class, or
            if there are no pictures, or fewer than two classes.
        OSError: if there is no space for them.
    """
    if not items or len(set(item.label for item in items)) < 2:
        raise ValueError(f"{len(items)} pictures of {len(classes)} classes; two classes are needed")
    for item in items:
        if item.label not in range(len(classes)):
            raise ValueError(
                f"picture {item.name} has the label {item.label}, which is none of the "
                f"{len(classes)} classes; hidden labels are of no use here"
            )
    shape = (len(items), size, size, 3)
    enough(2 * math.prod(shape), work)  # all of them, and then each part
    x = np.lib.format.open_memmap(work / "all.npy", "w+", dtype=np.uint8, shape=shape)
    names, refused = [], []
    for index, item in enumerate(tqdm(items, desc="reading", leave=False, disable=None)):
        try:
            source = read_source(item)
            x[index] = cropped(opened(Item(item.name, source, "", "")), size)
        except ValueError as error:
            refused.append(str(error))
            continue
        names += content_groups([x[index] if isinstance(source, Image.Image) else source])
    if refused:
        more = f"; and {len(refused) - NAMED:,} more" if len(refused) > NAMED else ""
        raise ValueError(f"{'; '.join(refused[:NAMED])}{more}: mend them or take them away")
    part = np.array([item.part for item in items])
    return Pictures(
        x=x,
        y=np.array([item.label for item in items], dtype=np.int64),
        classes=tuple(classes),
        groups=np.array(first_of_equals(names, content_groups(x))),
        test=part == "test" if "test" in part else None,
        validation=part == "validation" if "validation" in part else None,
    )


def enough(size: int, folder: Path) -> None:
    """Refuse to begin what a disk has no space for: files that are mapped into memory would end
    the process without a word when it is full.

    Raises:
        OSError: saying how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, and the pictures take "
            f"{size / 1e9:.1f}: set VCR_ZOO_CACHE to a folder on a larger disk"
        )


def read_source(item: Labelled) -> bytes | Image.Image:
    """A picture's file, or the picture where it comes without one."""
    with naming(item.name):
        return item.source() if callable(item.source) else item.source.read_bytes()


def first_of_equals(names: Sequence[str], equal: Sequence[str]) -> list[str]:
    """For each picture the smallest name of those that have the same mark in `equal`."""
    first: dict[str, str] = {}
    for name, mark in zip(names, equal, strict=True):
        first[mark] = min(name, first.get(mark, name))
    return [first[mark] for mark in equal]


def cropped(picture: Image.Image, size: int) -> np.ndarray:
    """The middle square of a picture: -> uint8 (size, size, 3)."""
    picture = on_ground(picture, WHITE).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def content_groups(x: Iterable[np.ndarray | bytes]) -> list[str]:
    """A name for each picture, or file, that equal ones share: n of uint8 (...) -> n names."""
    return [hashlib.sha256(bytes(picture)).hexdigest()[:16] for picture in x]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """What goes wrong with a picture, as an error that says which it is.

    Raises:
        ValueError: if it does not decode or is so large when decoded that Pillow takes it for a
            decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"picture {name} is refused: {error}") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names our buffer
        why = "no picture of a format that Pillow knows" if unknown else error
        raise ValueError(f"picture {name} does not decode: {why}") from None


def opened(item: Item) -> Image.Image:
    """The picture in mode RGBA, or L where it is plain gray.

    Raises:
        ValueError: naming the picture, as `naming` does.
    """
    with naming(item.name):
        source = item.source() if callable(item.source) else item.source
        if isinstance(source, Image.Image):
            return source
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.mode[0] in "IF":
                raise ValueError(f"mode {picture.mode}, which Pillow would clip; use 8 bits")
            return picture.convert("RGBA")


def square(picture: Image.Image, size: int, channels: int, ground: tuple) -> np.ndarray:
    """On a plain ground, padded to a square and resized: -> uint8 (size, size, channels)."""
    mode = "L" if channels == 1 else "RGB"
    picture = on_ground(picture, ground)
    side = max(picture.size)
    middle = ((side - picture.width) // 2, (side - picture.height) // 2)
    canvas = Image.new(mode, (side, side), ground[0] if channels == 1 else ground)
    canvas.paste(picture.convert(mode), middle)
    resized = canvas.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized).reshape(size, size, channels)


def on_ground(picture: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """The picture with a plain colour where it is transparent."""
    if picture.mode != "RGBA":
        return picture
    plain = Image.new("RGBA", picture.size, (*ground, 255))
    plain.alpha_composite(picture)
    return plain


def with_parents(found: Pictures, parent_of: Callable[[str], str]) -> Pictures:
    """The same pictures with super-classes, each given by the name of the class."""
    names = [parent_of(label) for label in found.classes]
    coarse = tuple(sorted(set(names)))
    return found._replace(coarse=coarse, parents=tuple(coarse.index(name) for name in names))
