"""Small pictures made from a seed, and command lines for small runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw_pictures(folder: Path, classes: int, each: int, size: int = 32) -> Path:
    """A folder of noise pictures whose class is the brightest third of the picture."""
    draws = np.random.default_rng(0)
    for split, count in (("train", each), ("validation", max(2, each // 4))):
        for label in range(classes):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 160, (size, size, 3), dtype=np.uint8)
                pixels[label * size // classes : (label + 1) * size // classes] += 90
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """3 classes, 14 training and 3 validation pictures each."""
    return draw_pictures(tmp_path_factory.mktemp("pictures"), classes=3, each=14)


@pytest.fixture
def small(pictures, tmp_path):
    """Arguments of a run of seconds, written under the test's own folder."""

    def arguments(*more: str, experiment: str = "run") -> list[str]:
        return [
            str(pictures),
            *("--model", "test_resnet", "--num-classes", "3", "--input-size", "3", "32", "32"),
            *("--epochs", "3", "--batch-size", "8", "--lr", "0.05", "--warmup-epochs", "0"),
            *("--workers", "0", "--device", "cpu"),
            *("--output", str(tmp_path), "--experiment", experiment),
            *more,
        ]

    return arguments


def pytest_collection_modifyitems(items):
    """timm's folder reader leaves it to Python to close the pictures that it opens."""
    quiet = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(quiet)
