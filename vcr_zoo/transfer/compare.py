"""Networks against a control: paired differences with their intervals, as text and as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vcr_zoo.results import Interval, Result, paired

from .matrix import Cell, groups_of, right

DRAWS = 2000  # resamplings of the test pictures
# Colours of Okabe and Ito, told apart by colour-blind people; the marker says it again.
LOOKS = [
    *zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"), "osD^vP", strict=True)
]


class Row(NamedTuple):
    """One model on one data set under one protocol: mean of the main metric over seeds, its
    difference from the control's, over seeds and over test pictures, and the mean accuracy on
    validation, where the protocol has one: what to choose between networks by."""

    data: str
    protocol: str
    metric: str
    model: str
    value: float
    seeds: Interval | None = None
    pictures: Interval | None = None
    validation: float | None = None


def bootstrap(
    difference: Tensor, groups: Tensor | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Mean difference with the 95 % percentile interval over resampled test pictures: (n,).

    Args:
        groups: numbers of groups (n,) which are resampled whole, as their pictures are alike;
            None: every picture is its own.
    """
    n = len(difference)
    groups = torch.arange(n) if groups is None else groups.long()
    sizes = torch.bincount(groups)
    sums = torch.zeros(len(sizes), dtype=difference.dtype).index_add(0, groups, difference)
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randint(len(sizes), sizes.shape, generator=generator) for _ in range(draws))
    means = [sums[chosen].sum() / sizes[chosen].sum() for chosen in drawn]
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Interval(difference.mean().item(), low.item(), high.item(), n)


def rows(
    measured: dict[Cell, dict[str, Result]], out: str | Path, against: str | None = None
) -> list[Row]:
    """One row for each data set, protocol and model, in the order of the cells.

    A difference is of the same seed, data and pictures; cells whose partner is missing are left
    out of it. An interval over seeds is only of pairs that share no training run: where seeds have
    the same weights, be it the network's or the control's, there is a mean alone.
    """
    found = []
    for data, protocol, model in dict.fromkeys((c.data, c.protocol, c.model) for c in measured):
        mine = select(measured, data, protocol, model)
        metric = next(iter(mine.values())).metric
        value = statistics.fmean(result.value for result in mine.values())
        validation = select(measured, data, protocol, model, "validation_top1").values()
        row = Row(data, protocol, metric, model, value)
        if validation:
            row = row._replace(validation=statistics.fmean(r.value for r in validation))
        if against is not None and model != against:
            row = row._replace(**differences(mine, select(measured, data, protocol, against), out))
        found.append(row)
    return found


def select(
    measured, data: str, protocol: str, model: str, metric: str | None = None
) -> dict[int, Result]:
    """Of every seed the result of a metric, where there is one; None: the main result."""
    return {
        cell.seed: results[metric] if metric else next(iter(results.values()))
        for cell, results in measured.items()
        if (cell.data, cell.protocol, cell.model) == (data, protocol, model)
        and (metric is None or metric in results)
    }


def differences(mine: dict[int, Result], theirs: dict[int, Result], out: str | Path) -> dict:
    """Intervals of the paired difference over seeds and over test pictures."""
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    pairs = [(a, b) for a, b in pairs if a.metric == b.metric and a.fingerprint == b.fingerprint]
    if not pairs:
        return {}
    vectors = [(right(out, a), right(out, b)) for a, b in pairs]
    pictures = None
    if all(a is not None and b is not None for a, b in vectors):
        difference = torch.stack([a - b for a, b in vectors]).mean(dim=0)
        pictures = bootstrap(difference, groups_of(out, pairs[0][0]))
    values = [a.value - b.value for a, b in pairs]
    if any(len({r.weights for r in side}) < len(pairs) for side in zip(*pairs, strict=True)):
        values = [statistics.fmean(values)]
    return {"seeds": paired(values), "pictures": pictures}


def table(found: Sequence[Row], against: str | None = None) -> str:
    """Rows as aligned text; accuracies and their differences in percent."""
    head = ["data", "protocol", "metric", "model", "value"]
    chosen = any(row.validation is not None for row in found)
    head += ["on validation"] if chosen else []
    if against is not None:
        head += [f"minus {against}, over seeds", "over test pictures"]
    lines = [head]
    for row in found:
        unit = 1 if row.protocol == "scores" else 100
        line = [row.data, row.protocol, row.metric, row.model, f"{unit * row.value:.2f}"]
        if chosen:
            line.append("" if row.validation is None else f"{100 * row.validation:.2f}")
        for interval in (row.seeds, row.pictures) if against is not None else ():
            line.append("" if interval is None else format(interval.scaled(unit)))
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def draw(found: Sequence[Row], path: str | Path, against: str | None = None) -> None:
    """Accuracies as dots or, with a control, differences from it with both intervals.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from vcr_zoo.diagnostics.style import plt

    found = [row for row in found if row.protocol != "scores"]
    if not found:
        raise ValueError("no accuracies to draw: choose a protocol other than scores")
    found = [row for row in found if against is None or row.seeds is not None]
    if not found:
        raise ValueError(
            f"nothing to draw: no network was measured on the same seed and data as {against}"
        )
    models = list(dict.fromkeys(row.model for row in found))
    groups = list(dict.fromkeys((row.data, row.protocol, row.metric) for row in found))
    height = 1.2 + 0.22 * len(groups) * (len(models) + 1)
    figure, axes = plt.subplots(figsize=(7, height), layout="constrained")
    for m, model in enumerate(models):
        (color, marker), label = LOOKS[m % len(LOOKS)], model
        for row in (row for row in found if row.model == model):
            place = groups.index((row.data, row.protocol, row.metric)) + 0.7 * (
                (m + 0.5) / len(models) - 0.5
            )
            value = 100 * (row.value if against is None else row.seeds.mean)
            axes.plot(value, place, marker, color=color, label=label)
            label = None
            for interval, width, alpha in ((row.pictures, 5, 0.35), (row.seeds, 1.5, 1)):
                if interval is not None and interval.n > 1:
                    bounds = [100 * interval.low, 100 * interval.high]
                    look = {"color": color, "linewidth": width, "alpha": alpha}
                    axes.plot(bounds, [place] * 2, solid_capstyle="butt", **look)
    if against is not None:
        axes.axvline(0, color="black", linewidth=0.8)
    names = ["\n".join((data, f"{protocol} {metric}")) for data, protocol, metric in groups]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    note = "thin: 95 % over seeds, broad: over test pictures" if against is not None else ""
    axes.set(
        xlabel="accuracy in %" if against is None else f"points above {against}\n({note})",
        title="Transfer of frozen features",
    )
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
