"""Fluent Emoji, rendered in three dimensions: the emoji whose code points openart never shows.

64 x 64, colour; the same groups of emoji as openart's coarse level, in another look.
"""

import numpy as np

from . import openart
from .dataset import Dataset, Files, Pictures
from .emoji import drawings, entries
from .fetch import Package
from .pictures import Item, pack
from .split import position


def read(files: Files) -> Pictures:
    shown = {key(image): entry for image, entry in entries(files)}
    items = []
    for name, path in sorted(files.items()):
        entry = shown.get(key(name.rsplit("/", 1)[-1])) if name.endswith(".webp") else None
        if entry and held_out(entry["unified"]):
            items.append(Item(name, path, entry["category"], f"fluent {entry['unified']}"))
    return pack(items, 64, at_least=10)


def key(image: str) -> str:
    """A drawing's code points as both packages write them, without the sign for colour."""
    return image.rsplit(".", 1)[0].lower().replace("-fe0f", "")


def held_out(code: str) -> bool:
    """Whether an emoji is in openart's test part, so that training there has not seen it."""
    return position(np.array([openart.group(code)]), "test")[0] < openart.ROW.test_share


ROW = Dataset(
    name="fluent",
    shows="emoji rendered in 3D, those that openart holds out",
    pictures={"train": 529, "validation": 151, "test": 363},
    shape=(64, 64, 3),
    levels={"fine": 9},
    licence="MIT",
    attribution="Fluent Emoji, Microsoft; packaged by LobeHub",
    publishable=True,
    group="emoji without skin tone",
    read=read,
    packages=(
        drawings("google", ("emoji.json",), 74),
        Package(
            "npm",
            "@lobehub/fluent-emoji-3d",
            "package",
            ("assets/*.webp",),
            version="1.1.0",
            megabytes=16,
        ),
    ),
    sha256=("185888bbea0ade2659c2d823ebb150b57a73dba42a251778595f3ef2454aad89",),
    validation_share=0.2,
)
