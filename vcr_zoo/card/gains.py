"""VCR less control: means over seeds and paired differences, from recorded results."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from vcr_zoo.results import Interval, Result, key_of, paired
from vcr_zoo.suite import targets

from .words import MEASURES, Measure, measure, rows

PAIR = "vcr-zoo pair "  # the command of every number of a pair trained anew
START = " at the start"  # after a control's name: the weights that both networks began with
SEEDS = 5  # fewer are no evidence
OTHERS = "mean of {} other sets"  # what stands for a data set where several were averaged


class Gain(NamedTuple):
    """Means over seeds of one measurement, and the paired difference."""

    protocol: str
    data: str
    metric: str
    control: float
    vcr: float
    difference: Interval
    seeds: tuple[int, ...]
    level: str | None = None  # of the labels

    @classmethod
    def of(cls, pairs: Sequence[tuple[Result, Result]]) -> "Gain":
        """From (control, VCR) of every seed; runs with the same weights are one run."""
        runs: dict[tuple[str, str], tuple[Result, Result]] = {}
        for control, vcr in pairs:
            runs.setdefault((control.weights, vcr.weights), (control, vcr))
        control, vcr = ([r.value for r in side] for side in zip(*runs.values(), strict=True))
        one = pairs[0][1]
        return cls(
            *(one.protocol, one.data, one.metric, fmean(control), fmean(vcr)),
            paired(v - c for c, v in zip(control, vcr, strict=True)),
            tuple(sorted(control.seed for control, _ in runs.values())),
            one.settings.get("level"),
        )

    @property
    def measure(self) -> Measure:
        """How it is shown."""
        return measure(self.protocol, self.metric, self.data, self.level)

    @property
    def difference_shown(self) -> str:
        """The interval in the measure's own unit; of accuracies, in points."""
        return format(self.difference.scaled(self.measure.factor), self.measure.digits)


@dataclass(frozen=True)
class Paired:
    """A control and a VCR network, both trained by `vcr-zoo pair` with several seeds."""

    control: str
    vcr: str
    source: str  # data set that they were trained on
    results: tuple[Result, ...]

    def gains(self) -> list[Gain]:
        """VCR less control, paired by seed, settings and data; first the means over the data sets
        that are not the source."""
        others = targets(self.source)
        control, vcr = (self.runs(name) for name in (self.control, self.vcr))
        return gains([*means(control, others), *control], [*means(vcr, others), *vcr])

    def seeds(self) -> set[int]:
        """That both networks were trained with."""
        control, vcr = ({r.seed for r in self.runs(name)} for name in (self.control, self.vcr))
        return control & vcr

    def headline(self, protocol: str, metric: str, on_source: bool) -> Gain | None:
        """The gain on the source, or the mean one on the other data sets; None without the seeds
        that make it evidence."""
        data = self.source if on_source else OTHERS.format(len(targets(self.source)))
        wanted = (protocol, metric, data)
        found = (g for g in self.gains() if (g.protocol, g.metric, g.data) == wanted)
        return next((g for g in found if g.difference.n >= SEEDS), None)

    def over_start(self, name: str) -> "Paired | None":
        """One of both networks, and what it began with in the control's place, once for every
        seed; nothing if that was random, or is not known."""
        ours, start = self.runs(name), self.control + START
        theirs = [replace(r, seed=s) for r in self.runs(start) for s in {o.seed for o in ours}]
        return Paired(start, name, self.source, (*ours, *theirs)) if theirs else None

    def runs(self, name: str) -> list[Result]:
        """What was measured on training runs by a recipe, seed by seed."""
        mine = (r for r in self.results if r.model == name and r.command.startswith(PAIR))
        return [r for r in mine if (r.protocol, r.metric) in MEASURES]


def recipe_of(model: str) -> str:
    """The recipe that made a network: its own name, or what its run's folder is called by."""
    return Path(model.strip().removesuffix(START)).name.partition("-")[0]


def declared(results: Iterable[Result]) -> dict[str, str]:
    """Pairs that were trained: VCR network -> control, as their commands say."""
    commands = dict.fromkeys(r.command for r in results if r.command.startswith(PAIR))
    return {words[2]: words[4] for words in map(shlex.split, commands)}


def mean_gain(found: Sequence[Gain]) -> Gain:
    """The first of several pairs' gains, with the mean difference and its interval over pairs."""
    return found[0]._replace(difference=paired(gain.difference.mean for gain in found))


def gains(control: Iterable[Result], vcr: Iterable[Result]) -> list[Gain]:
    """Every measurement that both have, paired by seed, settings and data."""
    theirs, ours = ({key(r): r for r in side} for side in (control, vcr))
    cells: dict[tuple, list[tuple[Result, Result]]] = {}
    for both in (both for both in ours if both in theirs):
        one = ours[both]
        cell = (one.protocol, one.data, one.metric, one.fingerprint, key_of(one.settings))
        cells.setdefault(cell, []).append((theirs[both], one))
    return [Gain.of(pairs) for pairs in cells.values()]


def means(results: Iterable[Result], data: Sequence[str]) -> list[Result]:
    """For each network, seed, protocol and metric the mean over several data sets, where all of
    them have it; its `data` says how many, its settings all that it is made of."""
    cells: dict[tuple, dict[str, Result]] = {}
    for r in results:
        if r.data in data:
            cells.setdefault((r.model, r.weights, r.seed, r.protocol, r.metric), {})[r.data] = r
    return [
        replace(
            found[data[0]],
            data=OTHERS.format(len(data)),
            value=fmean(r.value for r in found.values()),
            fingerprint=" ".join(found[one].fingerprint for one in data),
            settings={one: found[one].settings for one in data},
        )
        for found in cells.values()
        if len(found) == len(data)
    ]


def key(result: Result) -> tuple:
    """What a VCR run's number and its control's must have in common."""
    r = result
    return (r.protocol, r.data, r.metric, r.seed, r.fingerprint, key_of(r.settings))


def comparison(found: Iterable[Gain], control: str, vcr: str) -> str:
    """A line for each gain: both means, the difference with its interval, how many seeds."""
    body = []
    for gain in found:
        known = gain.measure
        shown = [known.show(gain.control), known.show(gain.vcr), gain.difference_shown]
        body.append([known.label, *shown, str(len(gain.seeds))])
    return rows(["", control, vcr, "difference [95 %]", "seeds"], body)
