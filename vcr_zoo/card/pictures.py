"""A card's pictures, drawn from recorded results alone. Each carries a stamp of what it shows."""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from matplotlib.ticker import LogLocator
from matplotlib.transforms import offset_copy
from PIL import Image

from vcr_zoo.diagnostics.style import STYLES, plt, role
from vcr_zoo.suite import SHARE, targets
from vcr_zoo.transfer.depth import bar

from .evidence import Evidence
from .stats import stats
from .words import HEADLINES

COST = "accuracy_vs_cost.png"
BESIDE = 8  # points between networks that cost the same
COMPARED = {headline[:2] for headline in HEADLINES.values()}
DRAWN = "VCR numbers"  # key of the stamp in the file
STYLE_VERSION = 3  # to be raised when the drawing changes, so that pictures are drawn again


def pictures(found: Evidence, folder: Path | None = None) -> dict[str, bytes]:
    """PNG files of one card by name."""
    wanted = {
        "transfer.png": (transfer_numbers(found), draw_transfer),
        "spectrum.png": (spectrum_numbers(found), draw_spectrum),
    }
    if curves := depth_numbers(found):
        wanted["depth.png"] = (curves, draw_depths)
    return drawn(wanted, folder)


def overview(founds: Iterable[Evidence], folder: Path | None = None) -> dict[str, bytes]:
    """PNG files of the whole zoo by name."""
    return drawn({COST: (cost_numbers(founds), draw_cost)}, folder)


def drawn(wanted: Mapping[str, tuple[list, Callable]], folder: Path | None) -> dict[str, bytes]:
    """Numbers as their drawers show them. A file in `folder` that shows the same ones is kept as it
    is, because another matplotlib draws the same picture in other bytes."""
    files = {}
    for name, (shown, drawer) in wanted.items():
        stamp = hashlib.sha256(json.dumps([STYLE_VERSION, shown]).encode()).hexdigest()
        path = folder / name if folder else None
        if path and path.exists() and stamp_of(path) == stamp:
            files[name] = path.read_bytes()
        else:
            files[name] = png(drawer(shown), stamp)
    return files


def stamp_of(path: Path) -> str | None:
    """The stamp of a picture that was drawn here; none of one that is not whole."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.info.get(DRAWN)
    except OSError:
        return None


def png(figure, stamp: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={DRAWN: stamp, "Software": None})
    plt.close(figure)
    return content.getvalue()


def transfer_numbers(found: Evidence) -> list[tuple[str, float, float, float, int]]:
    """(label, mean, low, high, seeds) of the main accuracies' paired differences, in points."""
    shown = []
    for gain in found.compared.gains():
        known = gain.measure
        if (gain.protocol, gain.metric) in COMPARED:
            points = gain.difference.scaled(known.factor)
            shown.append((known.label, *(round(v, 4) for v in points[:3]), points.n))
    return shown


def draw_transfer(shown: list[tuple[str, float, float, float, int]]):
    """Differences as dots with their 95 % intervals, one line each."""
    figure, axes = plt.subplots(figsize=(6.4, 1.4 + 0.4 * len(shown)), layout="constrained")
    color = STYLES["vcr"]["color"]
    for line, (_, mean, low, high, _) in enumerate(shown):
        axes.plot([low, high], [line, line], color=color, linewidth=1.5)
        axes.plot(mean, line, "o", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{label}\n({n} seeds)" for label, *_, n in shown])
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel="percentage points, with 95 % intervals")
    axes.set_title("VCR minus control")
    axes.grid(axis="x", alpha=0.3)
    return figure


def spectrum_numbers(found: Evidence) -> list[tuple[str, list[int], list[float]]]:
    """(name, directions, shares of variance) of the control and of the VCR network."""
    shown = []
    for name in found.pair:
        cells = found.published(name)
        shares = sorted(
            (int(metric.removeprefix(SHARE)), result.value)
            for (protocol, _, metric), result in cells.items()
            if protocol == "spectrum" and metric.startswith(SHARE)
        )
        shown.append((name, [k for k, _ in shares], [v for _, v in shares]))
    return shown


def depth_numbers(found: Evidence) -> list[tuple[str, str, list[tuple[int, float, float]]]]:
    """(name, pictures, (depth, mean, standard error) in percent) of what was fine-tuned."""
    return [
        (name, pictures, [(t, 100 * fmean(v), 100 * bar(v)) for t, v in sorted(curve.items())])
        for name in found.pair
        for pictures, curve in found.depths(name).items()
    ]


def draw_depths(shown: list[tuple[str, str, list[tuple[int, float, float]]]]):
    """Accuracy against the number of frozen blocks, of the control and of the VCR network."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    kinds = list(dict.fromkeys(pictures for _, pictures, _ in shown))
    for name, pictures, points in shown:
        depth, mean, error = zip(*points, strict=True)
        look = {**STYLES[role(name) or "other"], "marker": "osD^v"[kinds.index(pictures) % 5]}
        bars = error if error[0] == error[0] else None  # of one seed there are none
        axes.errorbar(depth, mean, yerr=bars, capsize=3, label=f"{name}, {pictures}", **look)
    axes.set(xlabel="blocks frozen", ylabel="accuracy in %, ± standard error")
    axes.set_title("Fine-tuned behind frozen blocks")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


class Cost(NamedTuple):
    """A VCR network and its control in the picture of accuracies, in percent, against costs."""

    sets: str  # that features were probed on
    name: str
    macs: float  # millions of multiply-accumulates a picture
    control: float
    vcr: float
    low: float  # bounds of VCR's, from those of its gain
    high: float


def cost_numbers(founds: Iterable[Evidence]) -> list[Cost]:
    """Mean probe accuracies on other sets of every VCR network."""
    shown = []
    for found in founds:
        gain = found.compared.headline(*HEADLINES["linear probe, other sets"])
        if found.entry.control and gain:
            bounds = (gain.control + gain.difference.low, gain.control + gain.difference.high)
            accuracies = (100 * v for v in (gain.control, gain.vcr, *bounds))
            sets = ", ".join(targets(found.compared.source))
            shown.append(Cost(sets, found.entry.name, stats(found.entry).macs / 1e6, *accuracies))
    return shown


def draw_cost(shown: list[Cost]):
    """Accuracy on other sets against what a picture costs, a panel for all that were probed on the
    same sets: the VCR network joined to its control, with the 95 % interval of the gain. Names
    stand at the right, in the order of their networks' accuracies."""
    panels = list(dict.fromkeys(one.sets for one in shown)) or [""]
    most = max((sum(one.sets == sets for one in shown) for sets in panels), default=0)
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(1 + 6.4 * len(panels), max(4.6, 0.4 * most)),
        squeeze=False,
        layout="constrained",
    )
    for panel, sets in zip(axes[0], panels, strict=True):
        here = sorted((one for one in shown if one.sets == sets), key=lambda one: one.vcr)
        places = []
        for i, one in enumerate(here):
            shift = BESIDE * sum(as_dear(one, other) for other in here[:i])
            aside = offset_copy(panel.transData, figure, x=shift, units="points")
            thin = {"color": "gray", "linewidth": 0.8, "zorder": 1, "transform": aside}
            panel.plot([one.macs] * 2, [one.control, one.vcr], **thin)
            for value, style, mark in ((one.control, "control", "o"), (one.vcr, "vcr", "s")):
                color = STYLES[style]["color"]
                panel.plot(one.macs, value, mark, color=color, transform=aside)
            bounds = {"colors": STYLES["vcr"]["color"], "transform": aside}
            panel.vlines(one.macs, one.low, one.high, **bounds)
            panel.update_datalim([(one.macs, v) for v in (one.control, one.low, one.high)])
            places.append(aside)
        panel.set(
            xscale="log",
            xlabel="million multiply-accumulates a picture (equal ones moved apart)",
            title=sets,
        )
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
        panel.autoscale_view(scalex=False)
        costs = [one.macs for one in here] or [1]
        panel.set_xlim(min(costs) / 1.5, 2 * max(costs))
        panel.grid(alpha=0.3)
        low, high = panel.get_ylim()
        heights = spread([(one.vcr - low) / (high - low) for one in here], 0.05)
        line = {"arrowstyle": "-", "color": "gray", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 4}
        for one, aside, height in zip(here, places, heights, strict=True):
            panel.annotate(
                one.name,
                (one.macs, one.vcr),
                xycoords=aside,
                xytext=(1.03, height),
                textcoords="axes fraction",
                va="center",
                fontsize=8,
                arrowprops=line,
            )
    axes[0, 0].set_ylabel("linear probe, mean of these sets, %")
    for kind, mark, label in (
        ("control", "o", "control"),
        ("vcr", "s-", "VCR, interval of its gain"),
    ):
        axes[0, 0].plot([], [], mark, color=STYLES[kind]["color"], label=label)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def spread(heights: list[float], gap: float) -> list[float]:
    """Ascending heights between 0 and 1 moved apart until no two are nearer than `gap`, if there is
    room: each up from the one below it, then down from what would lie above 1."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    above = 1 + gap
    for i in reversed(range(len(found))):
        found[i] = above = min(found[i], above - gap)
    return found


def as_dear(one: Cost, other: Cost) -> bool:
    """Whether two networks would stand at one place of the axis."""
    return math.isclose(one.macs, other.macs, rel_tol=0.02)


def draw_spectrum(shown: list[tuple[str, list[int], list[float]]]):
    """Shares of variance against the direction's place, both on logarithmic axes."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for (name, directions, shares), style in zip(shown, ("control", "vcr"), strict=True):
        axes.plot(directions, shares, label=name, marker=".", **STYLES[style])
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="direction, by falling variance", ylabel="share of the features' variance")
    axes.set_title("Spectrum of the features' covariance")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
