"""Every data set we know by name. A newcomer is one file with a row, and a line here."""

from dataclasses import replace

from . import (
    digits8,
    fluent,
    fmnist,
    furniture,
    glyphs,
    mnist,
    openart,
    silhouettes,
    stamps,
    standard,
    textures,
)
from .dataset import Dataset


def thinned(row: Dataset, ratio: int) -> Dataset:
    """A long-tailed version: same files, same test part, classes thinned exponentially."""
    shows = f"{row.shows}, classes thinned exponentially to 1/{ratio}"
    return replace(
        row, name=f"{row.name}_lt{ratio}", shows=shows, pictures={}, tail=ratio, base=row.name
    )


ROWS = (
    fmnist.ROW,
    *(thinned(fmnist.ROW, ratio) for ratio in (10, 50, 100)),
    openart.ROW,
    mnist.ROW,
    silhouettes.ROW,
    glyphs.ROW,
    digits8.ROW,
    stamps.ROW,
    furniture.ROW,
    textures.ROW,
    fluent.ROW,
    *standard.ROWS,
    *(thinned(row, 100) for row in standard.ROWS if row.name.startswith("cifar")),
)
DATASETS: dict[str, Dataset] = {row.name: row for row in ROWS}
