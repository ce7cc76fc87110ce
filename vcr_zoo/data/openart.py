"""Drawings that anyone may use: emoji by Google and Twitter, and clip art. 64 x 64, colour.

Naturally long-tailed, two label levels: 9 groups of emoji and some folders of clip art above their
subgroups and subfolders.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from .dataset import Dataset, Files, Pictures
from .emoji import drawings, entries
from .fetch import Package
from .pictures import Item, pack, with_parents

VENDORS = {"google": 74, "twitter": 62}  # with the megabytes of their packages
CLIPART = "openclipart-png/"
LARGE = 4_000_000  # pixels; 20 files above hold two thirds of all pixels


def read(files: Files) -> Pictures:
    found = pack([*emoji(files), *clipart(files)], 64, at_least=8)
    return with_parents(found, parents(files).__getitem__)


def parents(files: Files) -> dict[str, str]:
    """Subgroup or subfolder -> the group of emoji or folder of clip art that it is in."""
    groups = {
        f"emoji {entry['subcategory']}": f"emoji {entry['category']}" for _, entry in entries(files)
    }
    folders = {item.label for item in clipart(files)}
    return groups | {label: label.split("/")[0] for label in folders}


def emoji(files: Files) -> Iterator[Item]:
    """All vendors' drawings of an emoji, in all skin tones, are one group."""
    for vendor in VENDORS:
        for image, entry in entries(files):
            key = f"emoji-datasource-{vendor}/img/{vendor}/64/{image}"
            if key in files:
                label = f"emoji {entry['subcategory']}"
                yield Item(key, files[key], label, group(entry["unified"]))


def group(code: str) -> str:
    """The group of an emoji, by its code points without skin tone ("1F44D")."""
    return f"emoji {code}"


def clipart(files: Files) -> Iterator[Item]:
    """Labelled by subfolder; drawings whose names differ in a number only are one group."""
    for key, path in sorted(files.items()):
        if not key.startswith(CLIPART):
            continue
        *folders, name = key.removeprefix(CLIPART).split("/")
        if folders[0] in ("unsorted", "special") or folders[:2] == ["shapes", "stars"]:
            continue
        if pixels(path) <= LARGE:
            stem = re.sub(r"[\d_-]+.*$", "", name.removesuffix(".png"))
            label = f"clipart {'/'.join(folders[:2])}"
            yield Item(key, path, label, f"clipart {'/'.join(folders)}/{stem}")


def pixels(path: Path) -> int:
    """Width times height by a PNG file's header; the largest drawing has 623 million."""
    with path.open("rb") as png:
        width, height = struct.unpack(">16x2I", png.read(24))
    return width * height


ROW = Dataset(
    name="openart",
    shows="emoji by two vendors, and clip art",
    pictures={"train": 7_403, "validation": 754, "test": 3_486},
    shape=(64, 64, 3),
    levels={"fine": 123, "coarse": 26},
    licence="Apache-2.0 (Google), CC BY 4.0 (Twitter), public domain (clip art)",
    attribution="Noto Emoji, Google; Twemoji, Twitter and contributors; Open Clip Art Library",
    publishable=True,
    group="emoji without skin tone; clip art's name without number",
    read=read,
    packages=(
        drawings("google", ("emoji.json", "img/google/64/*"), VENDORS["google"]),
        drawings("twitter", ("img/twitter/64/*",), VENDORS["twitter"]),
        Package(
            "debian", "openclipart-png", "usr/share/openclipart/png", ("*.png",), megabytes=131
        ),
    ),
    sha256=("e2e2c8c6f16af96bd3ccf7373ca5c4abd2774449004111fd88e247ff4b4a4c78",),
)
