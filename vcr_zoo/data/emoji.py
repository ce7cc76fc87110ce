"""The table of emoji and its drawings by several hands: what openart and fluent share."""

import json
from collections.abc import Iterator

from .dataset import Files
from .fetch import Package

TABLE = "emoji-datasource-google/emoji.json"


def drawings(vendor: str, keep: tuple[str, ...], megabytes: float) -> Package:
    """The npm package of one vendor's emoji."""
    name = f"emoji-datasource-{vendor}"
    return Package("npm", name, "package", keep, version="16.0.0", megabytes=megabytes)


def entries(files: Files) -> Iterator[tuple[str, dict]]:
    """Every drawing's file name with the emoji that it shows, skin tones after their emoji.

    Parts of emoji that are no picture of anything ("Component") are left out.
    """
    for emoji in json.loads(files[TABLE].read_text()):
        if emoji["category"] != "Component":
            for drawing in (emoji, *emoji.get("skin_variations", {}).values()):
                yield drawing["image"], emoji
