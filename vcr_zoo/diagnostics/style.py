"""How every picture of this project looks: one place for colours, so that they mean the same."""

import re
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
    "other": {"color": "#009E73", "linestyle": "-."},  # neither says of itself that it is
}
MARKERS = {"control": "s", "vcr": "o", "other": "^"}
SEQUENCE = "cividis"  # of pictures that show a matrix: rises in brightness, for all eyes
DPI = 150
plt.rcParams["savefig.facecolor"] = "white"  # legible on dark pages too


def role(name: str) -> str | None:
    """What a network's name, or a folder that it lies in, says: vcr, control, or nothing.

    A tag `vcr_` or a word vcr is VCR; a tag `base_`, a word control, and random weights are not.
    """
    for part in reversed(name.lower().split("/")):
        part = re.sub("vcr[-_]zoo", "", part)  # this project, not its penalty
        words = re.findall("[a-z]+", part)
        control = re.search(r"^random:|(^|\.)base_", part) or "control" in words
        if bool(control) != ("vcr" in words):
            return "control" if control else "vcr"
    return None


def roles(names: list[str]) -> list[str]:
    """Styles of one or two networks, never the same for both: by name, else by place."""
    said = [role(name) for name in names]
    if said == [None, None]:
        return ["vcr", "control"]
    if None in said:
        said[said.index(None)] = "control" if "vcr" in said else "other"
    return [said[0], "other"] if said[1:] == said[:1] else said


def save(figure: Figure, path: str | Path) -> None:
    """Write a picture with nothing clipped, and let go of it."""
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
