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
    """The stamp of a picture that was drawn here."""
    with Image.open(path) as picture:
        return picture.info.get(DRAWN)


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
    same sets: the VCR network joined to its control, with the 95 % interval of the gain."""
    panels = list(dict.fromkeys(one.sets for one in shown)) or [""]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1 + 5.6 * len(panels), 4.6), squeeze=False, layout="constrained"
    )
    for panel, sets in zip(axes[0], panels, strict=True):
        here = sorted((one for one in shown if one.sets == sets), key=lambda one: one.vcr)
        for i, (one, side) in enumerate(zip(here, sides(here), strict=True)):
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
            shift += 8 if side == "left" else -8
            place = {"xytext": (shift, 0), "textcoords": "offset points", "va": "center"}
            place["bbox"] = {"color": "white", "alpha": 0.8, "pad": 1}  # over others' intervals
            panel.annotate(one.name, (one.macs, one.vcr), ha=side, fontsize=8, **place)
        panel.set(
            xscale="log",
            xlabel="million multiply-accumulates a picture, equal ones side by side",
            title=sets,
        )
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
        panel.autoscale_view(scalex=False)
        costs = [one.macs for one in here] or [1]
        panel.set_xlim(min(costs) / 3, 4 * max(costs))  # names have room
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("linear probe, mean of these sets, %")
    for kind, mark, label in (
        ("control", "o", "control"),
        ("vcr", "s-", "VCR, interval of its gain"),
    ):
        axes[0, 0].plot([], [], mark, color=STYLES[kind]["color"], label=label)
    axes[0, 0].legend()
    return figure


def sides(here: list[Cost]) -> list[str]:
    """How to align the names of networks, sorted by accuracy: towards the middle, but the last of
    those that cost the same to the right of its mark and the others to the left; and so the dearer
    and the cheaper of two that are nearly as good."""
    if not here:
        return []
    near = 0.06 * (here[-1].vcr - here[0].vcr)
    middle = fmean(math.log(one.macs) for one in here)
    found = ["left" if math.log(one.macs) <= middle else "right" for one in here]
    for i, one in enumerate(here):
        others = [k for k, other in enumerate(here) if k != i and as_dear(one, other)]
        if others:
            found[i] = "left" if max(others) < i else "right"
        elif i and one.vcr - here[i - 1].vcr < near:
            cheaper = one.macs < here[i - 1].macs
            found[i - 1 : i + 1] = ["left", "right"] if cheaper else ["right", "left"]
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
