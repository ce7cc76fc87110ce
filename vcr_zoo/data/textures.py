"""UFO: Alien Invasion's textures, mostly photographs: 64 x 64, colour, labelled by material."""

import re
import zipfile
from functools import partial

from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import Item, pack

LIGHTING = re.compile(r"_(nm|sm|gm|rm)\.\w+$")  # maps for the game's lights, not pictures
NO_MATERIAL = {"", "ab", "art", "c", "e", "rail", "sign", "ufo"}
SAME = {"metall": "metal"}


def read(files: Files) -> Pictures:
    """The material is the file's name up to its first digit or underscore."""
    (path,) = files.values()
    items = []
    with zipfile.ZipFile(path) as pack_file:
        for name in sorted(pack_file.namelist()):
            stem, _, ending = name.rsplit("/", 1)[-1].rpartition(".")
            label = re.sub(r"[\d_]+.*$", "", stem)
            label = SAME.get(label, label)
            if ending in ("png", "jpg") and not LIGHTING.search(name) and label not in NO_MATERIAL:
                # wall003_red and snow's wall003 are wall003 again
                group = re.sub(r"(\d)\D.*$", r"\1", stem)
                items.append(Item(name, partial(pack_file.read, name), label, group))
        return pack(items, 64, at_least=15)


ROW = Dataset(
    name="textures",
    shows="surfaces, mostly photographs",
    pictures={"train": 433, "validation": 114, "test": 229},
    shape=(64, 64, 3),
    levels={"fine": 16},
    licence="GPL-2+, CC BY-SA 3.0 and others, by file",
    attribution="UFO: Alien Invasion and contributors",
    publishable=False,
    group="texture's name, whatever its colour",
    read=read,
    packages=(
        Package(
            "debian",
            "ufoai-textures",
            "usr/share/games/ufoai/base",
            ("0textures.pk3",),
            megabytes=336,
        ),
    ),
    sha256=("2c974e414b575d5925b46ac7fc84d10684d5df588a47b0f4eaccb054877cde25",),
    validation_share=0.2,
)
