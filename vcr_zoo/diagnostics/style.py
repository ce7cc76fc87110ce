"""How every picture of this project looks: one place for colours, so that they mean the same."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# From the palette of Okabe and Ito, which colour-blind people tell apart; line style and marker
# say it again in black and white.
STYLES = {
    "control": {"color": "#E69F00", "linestyle": "--"},
    "vcr": {"color": "#0072B2", "linestyle": "-"},
}
MARKERS = {"control": "s", "vcr": "o"}
SEQUENCE = "cividis"  # of pictures that show a matrix: rises in brightness, for all eyes
DPI = 150
plt.rcParams["savefig.facecolor"] = "white"  # legible on dark pages too


def role(name: str, second: bool = False) -> str:
    """Whose style a network has: a tag `base_` is a control, `vcr_` is VCR; else by place."""
    tag = name.rpartition(".")[2]
    if tag.startswith(("base_", "vcr_")):
        return "vcr" if tag.startswith("vcr_") else "control"
    return "control" if second else "vcr"


def roles(names: list[str]) -> list[str]:
    """Styles of one or two networks, never the same for both."""
    given = [role(name, second=i > 0) for i, name in enumerate(names)]
    return given if len(set(given)) == len(given) else ["vcr", "control"][: len(names)]


def save(figure: Figure, path: str | Path) -> None:
    """Write a picture with nothing clipped, and let go of it."""
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
