"""Pictures of an inspection, each a function from one or two networks to a figure."""

import math
import textwrap
from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .cdnv import centered_means, squared_distances
from .inspect import Comparison, Inspection
from .measured import Measured
from .moments import Moments
from .spectrum import correlations
from .style import MARKERS, SEQUENCE, STYLES, plt, roles

MOST_NAMES = 20  # classes that are named in a picture


def styled(networks: Sequence[Inspection]):
    """Each network with its line's style and its marker."""
    names = [network.name for network in networks]
    for network, role in zip(networks, roles(names), strict=True):
        yield network, {"label": network.name, **STYLES[role]}, MARKERS[role]


def spectra(networks: Sequence[Inspection]) -> Figure:
    """Shares of variance by direction at the last placement, all networks on one axis."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    lowest = 1.0
    for network, style, _ in styled(networks):
        values = network.moments[network.last].eigenvalues.cpu()
        share = values[values > 0] / values.sum()
        if len(share):
            lowest = min(lowest, share.min().item())
            axes.plot(range(1, len(share) + 1), share, **style)
        else:
            axes.plot([], [], **{**style, "label": f"{network.name}: features are constant"})
    axes.set(
        yscale="log",
        ylim=(max(lowest / 2, 1e-9), 1.3),
        xlabel="direction, by falling variance",
        ylabel="share of the features' variance",
        title=f"Covariance spectrum, {networks[0].last} features",
    )
    return finished(figure, axes)


def depth(networks: Sequence[Inspection]) -> Figure:
    """Effective rank along the network, as it is and by the placement's width."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    places = [list(network.numbers) for network in networks]
    alike = all(names == places[0] for names in places)
    for network, style, marker in styled(networks):
        ranks = [numbers["effective_rank"] for numbers in network.numbers.values()]
        widths = [len(m.origin) for m in network.moments.values()]
        where = None if alike else [i / max(len(ranks) - 1, 1) for i in range(len(ranks))]
        along(panels[0], ranks, [1] * len(ranks), style, marker, where)
        along(panels[1], ranks, widths, style, marker, where)
    whats = ("effective rank (directions)", "effective rank / width")
    for axes, what in zip(panels, whats, strict=True):
        if alike:
            axes.set_xticks(range(len(places[0])), thinned(places[0]), rotation=60, ha="right")
            axes.tick_params(axis="x", labelsize=8)
        axes.set_ylabel(what)
        from_zero(axes)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9)
    label = "placement" if alike else "share of the placements passed"
    figure.supxlabel(f"{label}, from the image to the classifier", fontsize=10)
    figure.suptitle("Effective rank along depth, with 95 % intervals over pictures")
    return figure


def along(axes, values: list[Measured], by: list[float], style, marker, where=None) -> None:
    """A line through measured values, each by a number, with a band of their intervals."""
    where = range(len(values)) if where is None else where
    kept = [row for row in zip(where, values, by, strict=True) if row[1].value is not None]
    where = [x for x, _, _ in kept]
    axes.plot(where, [v.value / w for _, v, w in kept], marker=marker, markersize=5, **style)
    low = [(v.value if v.low is None else v.low) / w for _, v, w in kept]
    high = [(v.value if v.high is None else v.high) / w for _, v, w in kept]
    axes.fill_between(where, low, high, color=style["color"], alpha=0.25, linewidth=0)


def from_zero(*panels) -> None:
    """The upward axis from zero to somewhat above the highest line of all panels."""
    highest = max(axes.dataLim.y1 for axes in panels)
    if highest > 0:
        panels[0].set_ylim(0, 1.08 * highest)


def thinned(names: list[str], most: int = 20) -> list[str]:
    """Names of a long axis, only so many of them written out, the last always."""
    step = math.ceil(len(names) / most)
    return [name if (len(names) - 1 - i) % step == 0 else "" for i, name in enumerate(names)]


def deviations(networks: Sequence[Inspection]) -> Figure:
    """Standard deviations of all features at the last placement, sorted, and the hinge's target."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for network, style, _ in styled(networks):
        std = network.moments[network.last].covariance.diagonal().sqrt().cpu()
        std = std.sort(descending=True).values
        axes.plot([(i + 0.5) / len(std) for i in range(len(std))], std, **style)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":", label="target of VCR's hinge")
    axes.set(
        xlabel="share of the features, by falling deviation",
        ylabel="standard deviation over pictures",
        title=f"Spread of each feature, {networks[0].last} features",
        xlim=(0, 1),
    )
    from_zero(axes)
    return finished(figure, axes)


def finished(figure: Figure, axes) -> Figure:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def correlation(networks: Sequence[Inspection]) -> Figure:
    """Absolute correlations between features, those alike side by side; one panel each."""
    figure, panels = side_by_side(networks, 4.6)
    shown = None
    for axes, network in zip(panels, networks, strict=True):
        size = correlations(network.moments[network.last].covariance).abs().cpu()
        if len(size) < 2:
            blank(axes, "fewer than two features vary")
            continue
        order = ordered(size)
        image = size[order][:, order]
        shown = axes.imshow(image.numpy(), cmap=SEQUENCE, vmin=0, vmax=1, interpolation="nearest")
        value = network.numbers[network.last]["correlation"].value
        axes.set_title(f"{network.name}\nmean off the diagonal {value:.3f}", fontsize=10)
        axes.set(xlabel="feature, in order of likeness", ylabel="feature, in the same order")
    if shown is not None:
        figure.colorbar(shown, ax=panels, shrink=0.8, label="absolute correlation")
    return figure


def blank(axes, words: str) -> None:
    """A panel that says why it is empty."""
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, transform=axes.transAxes)
    axes.set_axis_off()


def ordered(likeness: Tensor) -> Tensor:
    """An order that puts alike features side by side: (d, d) -> (d,).

    The leaves of average linkage: the two groups that are most alike become one, end to end.
    """
    d = len(likeness)
    groups, sizes = [[i] for i in range(d)], torch.ones(d, dtype=likeness.dtype)
    table = likeness.clone().fill_diagonal_(-1)
    for _ in range(d - 1):
        a, b = divmod(int(table.argmax()), d)
        groups[a] = joined(groups[a], groups[b], likeness)
        table[a] = (sizes[a] * table[a] + sizes[b] * table[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        table[:, a] = table[a]
        table[a, a] = -1
        table[b], table[:, b] = -1, -1
        groups[b] = []
    return torch.tensor(max(groups, key=len))


def joined(a: list[int], b: list[int], likeness: Tensor) -> list[int]:
    """Two groups end to end, turned so that the ends which meet are the most alike."""
    ways = [(x, y) for x in (a, a[::-1]) for y in (b, b[::-1])]
    x, y = max(ways, key=lambda way: likeness[way[0][-1], way[1][0]].item())
    return x + y


def cka_map(first: Inspection, second: Inspection, found: Comparison) -> Figure:
    """CKA of every placement of one network with every one of the other."""
    rows, columns = list(found.cka), list(next(iter(found.cka.values())))
    wide, high = (3.2 + 0.3 * min(len(names), 30) for names in (columns, rows))
    figure, axes = plt.subplots(figsize=(wide + 1.4, high), layout="constrained")
    axes.set_facecolor("0.85")
    table = [[found.cka[p][q].value for q in columns] for p in rows]
    values = torch.tensor([[math.nan if v is None else v for v in row] for row in table])
    shown = axes.imshow(values.numpy(), cmap=SEQUENCE, vmin=0, vmax=1, aspect="auto")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="debiased CKA (1: equal up to rotation)")
    if len(rows) * len(columns) <= 200:
        for i, row in enumerate(table):
            for j, value in enumerate(row):
                text = "undefined" if value is None else f"{value:.2f}"
                dark = value is not None and value < 0.6
                color = "white" if dark else "black"
                axes.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(columns)), thinned(columns, 30), rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), thinned(rows, 30), fontsize=8)
    axes.set_xlabel(f"placement of {second.name}")
    axes.set_ylabel(f"placement of {first.name}", labelpad=8)
    axes.set_title("Likeness of placements", fontsize=11)
    return figure


def side_by_side(networks: Sequence[Inspection], height: float):
    """A figure with a panel for each network, titled: yields each with its panel."""
    figure, panels = plt.subplots(
        1, len(networks), figsize=(5 * len(networks), height), layout="constrained", squeeze=False
    )
    for axes, network in zip(panels[0], networks, strict=True):
        axes.set_title(network.name, fontsize=10)
    return figure, panels[0]


def classes(networks: Sequence[Inspection]) -> Figure:
    """Class means in the plane where they differ most, each with its pictures' spread."""
    figure, panels = side_by_side(networks, 5.2)
    for axes, (network, style, marker) in zip(panels, styled(networks), strict=True):
        m = network.moments[network.last]
        cdnv = network.numbers[network.last]["cdnv"]
        if cdnv.value is not None:
            axes.set_title(f"{network.name}\nCDNV {cdnv:.3f}", fontsize=10)
        if distinct(m):
            plane(axes, network, m, style, marker)
        else:
            blank(axes, same(m))
    return figure


def angles(networks: Sequence[Inspection]) -> Figure:
    """Cosines between centered class means; -1 / (k - 1) off the diagonal is collapse."""
    figure, panels = side_by_side(networks, 5)
    shown = None
    for axes, network in zip(panels, networks, strict=True):
        m = network.moments[network.last]
        if distinct(m):
            shown = cosine_table(axes, network, m)
        else:
            blank(axes, same(m))
    if shown is not None:
        label = "cosine between centered class means"
        figure.colorbar(shown, ax=panels, shrink=0.7, label=label)
    return figure


def same(m: Moments) -> str:
    """Why class means cannot be shown."""
    return "only one class" if len(m.present) < 2 else "no two class means differ"


def distinct(m: Moments) -> bool:
    """Whether any two class means differ."""
    return len(m.present) > 1 and bool(squared_distances(m).any())


def cosine_table(axes, network: Inspection, m: Moments):
    """One panel of `angles`."""
    direction = torch.nn.functional.normalize(centered_means(m).cpu(), dim=1)
    cosine = direction @ direction.T
    shown = axes.imshow(cosine.numpy(), cmap=SEQUENCE, vmin=-1, vmax=1, interpolation="nearest")
    names = [short(network.gathered.classes[i]) for i in m.present.tolist()]
    step = math.ceil(len(names) / MOST_NAMES)
    ticks = range(0, len(names), step)
    axes.set_xticks(ticks, names[::step], rotation=60, ha="right", fontsize=8)
    axes.set_yticks(ticks, names[::step], fontsize=8)
    if len(names) <= 12:
        for i, row in enumerate(cosine.tolist()):
            for j, value in enumerate(row):
                color = "white" if value < 0.2 else "black"
                axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=color, fontsize=7)
    return shown


def short(name: str, most: int = 20) -> str:
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def plane(axes, network: Inspection, m: Moments, style: dict, marker: str) -> None:
    """One panel of `classes`: sample pictures as dots, class means with ellipses and names."""
    means = (m.class_means - m.mean).cpu()
    directions = torch.linalg.svd(means, full_matrices=False).Vh[:2]
    if len(directions) < 2 or m.origin.numel() < 2:
        directions = torch.cat([directions[:1], torch.zeros_like(directions[:1])])
    x = (network.gathered.sample[network.last].double() - m.mean.cpu()) @ directions.T
    at = means @ directions.T
    unit = x.std(dim=0, correction=0).max().clamp(min=1e-12)
    x, at = x / unit, at / unit
    axes.scatter(*x[:1000].T.numpy(), s=3, color="0.75", linewidths=0, zorder=1)
    for k, label in enumerate(m.present.tolist()):
        own = x[network.gathered.y == label]
        if len(own) > 2:
            axes.add_patch(ellipse(at[k], own, style["color"]))
    axes.scatter(
        *at.T.numpy(), s=45, color=style["color"], marker=marker, edgecolors="black", zorder=3
    )
    if len(at) <= MOST_NAMES:
        names = [short(network.gathered.classes[i]) for i in m.present.tolist()]
        spread(axes, at, names, extent=(x.amax(dim=0) - x.amin(dim=0)).max().item())
    axes.set(xlabel="1st direction between class means", ylabel="2nd direction")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    axes.margins(0.08)


def ellipse(center: Tensor, x: Tensor, color: str):
    """One standard deviation of pictures (n, 2) around a class mean."""
    from matplotlib.patches import Ellipse

    values, vectors = torch.linalg.eigh(x.T.cov(correction=0))
    angle = math.degrees(math.atan2(*vectors[:, 1].flip(0).tolist()))
    short, long = (2 * values.clamp(min=0).sqrt()).tolist()
    return Ellipse(
        center.tolist(), long, short, angle=angle, fill=False, color=color, lw=1.3, zorder=2
    )


def spread(axes, at: Tensor, names: list[str], extent: float) -> None:
    """Names beside points (k, 2), lifted where they would cover each other.

    `extent` is about what the panel shows, from side to side.
    """
    taken, middle = [], (at[:, 0].min() + at[:, 0].max()) / 2
    for i in at[:, 1].argsort().tolist():
        x, y = (at[i] / extent).tolist()
        lift = 0.0
        while any(abs(x - a) < 0.25 and abs(y + lift - b) < 0.045 for a, b in taken):
            lift += 0.01
        taken.append((x, y + lift))
        side = 1 if at[i, 0] <= middle else -1  # towards the middle of the panel
        axes.annotate(
            names[i],
            at[i].tolist(),
            xytext=(side * 14, 3 + 300 * lift),  # in points; the panel is some 300 high
            ha="left" if side > 0 else "right",
            textcoords="offset points",
            fontsize=8,
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.6},
        )


def noise(networks: Sequence[Inspection]) -> Figure | None:
    """Accuracy of nearest class means against the level of every corruption."""
    figure = curves(networks, "accuracy", 100, "accuracy of nearest\nclass means (%)")
    if figure is not None:
        from_zero(*figure.axes)
    return figure


def likeness(networks: Sequence[Inspection]) -> Figure | None:
    """Cosine of corrupted with uncorrupted features against the level of every corruption."""
    return curves(networks, "likeness", 1, "cosine with\nuncorrupted features")


def curves(networks: Sequence[Inspection], what: str, factor: float, label: str) -> Figure | None:
    """One panel for each corruption, the legend in the one that is left."""
    networks = [network for network in networks if network.noise]
    if not networks:
        return None
    names = list(networks[0].noise)
    columns = 4
    rows = -(-(len(names) + 1) // columns)
    figure, panels = plt.subplots(
        *(rows, columns), figsize=(10, 2.5 * rows), layout="constrained", sharey=True, squeeze=False
    )
    panels = panels.flatten()
    for network, style, marker in styled(networks):
        for axes, name in zip(panels, names, strict=False):
            values = getattr(network.noise[name], what)
            along(axes, values, [1 / factor] * len(values), style, marker)
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name, fontsize=10)
        reasons = [v.because for n in networks for v in getattr(n.noise[name], what)]
        if all(reasons):
            blank(axes, textwrap.fill(reasons[0], 24))
            continue
        axes.set_xticks(range(len(getattr(networks[0].noise[name], what))))
        axes.grid(alpha=0.3)
    for axes in panels[: len(names) : columns]:
        axes.set_ylabel(label)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    panels[len(names)].legend(handles, labels, loc="center", fontsize=9)
    figure.supxlabel("level of corruption (0: none, 5: strongest)", fontsize=10)
    return figure


PICTURES: dict[str, tuple[Callable, str]] = {
    "spectra": (spectra, "How the variance of the features is spread over directions."),
    "depth": (depth, "How many directions the features use, placement by placement."),
    "deviations": (deviations, "How much each feature varies over pictures."),
    "correlation": (correlation, "How alike the features are: bright off the diagonal is shared."),
    "classes": (
        classes,
        "Class means where they differ most, in units of the larger deviation shown; ellipses are "
        "one standard deviation of a class's pictures.",
    ),
    "angles": (angles, "Which class means point the same way; in a collapsed network none do."),
    "noise": (noise, "How far decisions hold when pictures get worse."),
    "likeness": (likeness, "How far features stay what they were when pictures get worse."),
}
