"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): photographs of clothing, 28 x 28, gray."""

from pathlib import Path

from . import idx
from .dataset import Dataset, Files, Pictures
from .fetch import Package

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker")
CLASSES += ("bag", "ankle boot")
COARSE = ("tops", "trousers", "footwear", "bags")
PARENTS = (0, 1, 0, 0, 0, 2, 0, 2, 3, 2)  # class -> super-class


def read(files: Files) -> Pictures:
    return idx.official(files, CLASSES, coarse=COARSE, parents=PARENTS)


def download(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    return Path(FashionMNIST(folder, download=True).raw_folder)


ROW = Dataset(
    name="fmnist",
    shows="photographs of clothing",
    pictures={"train": 54_000, "validation": 6_000, "test": 10_000},
    shape=(28, 28, 1),
    levels={"fine": 10, "coarse": 4},
    licence="MIT",
    attribution="Fashion-MNIST, Zalando SE",
    publishable=True,
    group="equal pictures",
    read=read,
    packages=(
        Package(
            "debian",
            "dataset-fashion-mnist",
            "usr/share/datasets/fashion-mnist",
            ("*-ubyte", "*-ubyte.gz"),
            megabytes=31,
            also=("FashionMNIST/raw", "raw"),
        ),
    ),
    download=download,
    sha256=("12786f5c2acc3f869fa27155331c67cfd3a786e7d65434835ba932b40a2f4d0f",),
    mean=(0.2860,),
    std=(0.3530,),
)
