"""Tux Paint's stamps: cut-out drawings and photographs, 64 x 64, colour, labelled by subject."""

import re

from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import Item, pack

MIRRORED = ("_mirror.png", "_flip.png", "_mirror_flip.png")


def read(files: Files) -> Pictures:
    """Letters, coins and signs ("symbols") are left out, and ready-made mirror images."""
    items = []
    for key, path in sorted(files.items()):
        inside = key.split("/", 1)[1]
        label = inside.split("/")[0]
        if label != "symbols" and not key.endswith(MIRRORED):
            group = re.sub(r"[_-]?\d.*$", "", inside.removesuffix(".png"))
            items.append(Item(key, path, label, group))
    return pack(items, 64, at_least=15)


ROW = Dataset(
    name="stamps",
    shows="cut-out drawings and photographs",
    pictures={"train": 263, "validation": 72, "test": 140},
    shape=(64, 64, 3),
    levels={"fine": 8},
    licence="GPL-2",
    attribution="Tux Paint stamps, Bill Kendrick and contributors",
    publishable=False,
    group="file name without number",
    read=read,
    packages=(
        Package(
            "debian",
            "tuxpaint-stamps-default",
            "usr/share/tuxpaint/stamps",
            ("*.png",),
            megabytes=161,
        ),
    ),
    sha256=("ccbccea2606177c20a99e8a981e656fa943f189fea10912b65455c2669450cc1",),
    validation_share=0.2,
)
