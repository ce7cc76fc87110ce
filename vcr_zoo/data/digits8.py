"""Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998): 8 x 8, gray."""

import io

import numpy as np

from .cache import content
from .dataset import Dataset, Files, Pictures
from .fetch import Package
from .pictures import content_groups


def read(files: Files) -> Pictures:
    """Rows of 64 levels, 0 to 16, and a label."""
    table = np.loadtxt(io.BytesIO(content(files["scikit-learn/digits.csv"])), delimiter=",")
    x = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    groups = np.array(content_groups(x))
    return Pictures(x, table[:, 64].astype(np.int64), tuple("0123456789"), groups)


ROW = Dataset(
    name="digits8",
    shows="handwritten digits, tiny",
    pictures={"train": 1_037, "validation": 258, "test": 502},
    shape=(8, 8, 1),
    levels={"fine": 10},
    licence="CC BY 4.0",
    attribution="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI",
    publishable=True,
    group="equal pictures",
    read=read,
    packages=(
        Package("pypi", "scikit-learn", "sklearn/datasets/data", ("digits.csv.gz",), megabytes=9),
    ),
    sha256=("2f64283b4968d5af34c6b0d357dd50ea0f078945a383c958cab66084ee902f72",),
    validation_share=0.2,
)
