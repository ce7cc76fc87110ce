"""Sweet Home 3D's catalogue: renders of furniture, 64 x 64, colour, labelled by room or kind."""

import re
import zipfile
from functools import partial

from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import Item, pack


def read(files: Files) -> Pictures:
    items = [item for key, path in sorted(files.items()) for item in catalogue(key, path)]
    return pack([item for item in items if item.label != "Miscellaneous"], 64, at_least=15)


def catalogue(key: str, path) -> list[Item]:
    """The pieces of one library, a zip file with a table of properties and an icon each."""
    library = zipfile.ZipFile(path)  # stays open: the icons are read when they are needed
    table = library.read("PluginFurnitureCatalog.properties").decode("latin1")
    column = {
        name: dict(re.findall(rf"^{name}#(\d+)=(.*)$", table, re.MULTILINE))
        for name in ("category", "icon")
    }
    items = []
    for number, icon in column["icon"].items():
        inside = icon.strip().lstrip("/")
        group = re.sub(r"\d+", "", inside.removesuffix(".png"))
        label = column["category"][number].strip()
        items.append(Item(f"{key} {inside}", partial(library.read, inside), label, group))
    return items


ROW = Dataset(
    name="furniture",
    shows="renders of furniture",
    pictures={"train": 386, "validation": 93, "test": 193},
    shape=(64, 64, 3),
    levels={"fine": 10},
    licence="CC BY 3.0 and CC0",
    attribution="Sweet Home 3D furniture: Scopia, Kator Legaz, Reallusion, Blend Swap contributors",
    publishable=True,
    group="file name without number",
    read=read,
    packages=(
        Package(
            "debian",
            "sweethome3d-furniture",
            "usr/share/sweethome3d/furniture",
            ("*.sh3f",),
            megabytes=120,
        ),
    ),
    sha256=("d9e1d22fe0ba9d5f942803a486a69702c2dbea1e20431881d0e3a6f425241be8",),
    validation_share=0.2,
)
