"""All that is known of one set of weights, and what a card still lacks."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from vcr_zoo.data.load import row_of
from vcr_zoo.results import Interval, Result, closest, paired, read
from vcr_zoo.training import parse
from vcr_zoo.zoo import Entry, manifest

CARDS = Path(__file__).parents[2] / "model_cards"  # in a checkout of the repository
NAME = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
REPRODUCE = "vcr-zoo reproduce "  # the command of every number measured on the published weights


@dataclass(frozen=True)
class Evidence:
    """One set of weights with its partner: the control of a VCR network, or the VCR network that
    a control stands beside."""

    entry: Entry
    partner: Entry | None
    recipe: dict  # every option of the training run
    results: tuple[Result, ...]  # of both

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the control and of the VCR network."""
        names = (self.entry.name, self.partner.name)
        return names[::-1] if self.entry.control else names

    def published(self, name: str) -> dict[tuple[str, str, str], Result]:
        """What was measured on a published file itself: (protocol, data, metric) -> result."""
        found = (r for r in self.results if r.model == name and r.command.startswith(REPRODUCE))
        return {(r.protocol, r.data, r.metric): r for r in found}

    def gains(self) -> list["Gain"]:
        """VCR less control over training runs, paired by seed, settings and data."""
        control, vcr = ({key(r): r for r in self.runs(name)} for name in self.pair)
        cells: dict[tuple, list[tuple[Result, Result]]] = {}
        for both in (both for both in vcr if both in control):
            ours, theirs = vcr[both], control[both]
            cell = (ours.protocol, ours.data, ours.metric, ours.fingerprint, settings(ours))
            cells.setdefault(cell, []).append((theirs, ours))
        return [Gain.of(pairs) for pairs in cells.values()]

    def runs(self, name: str) -> list[Result]:
        """What was measured on training runs by the recipe, seed by seed."""
        return [r for r in self.results if r.model == name and not r.command.startswith(REPRODUCE)]


class Gain(NamedTuple):
    """Means over seeds of one measurement, and the paired difference."""

    protocol: str
    data: str
    metric: str
    control: float
    vcr: float
    difference: Interval
    seeds: tuple[int, ...]

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
        )


def key(result: Result) -> tuple:
    """What a VCR run's number and its control's must have in common."""
    r = result
    return (r.protocol, r.data, r.metric, r.seed, r.fingerprint, settings(r))


def settings(result: Result) -> str:
    return json.dumps(result.settings, sort_keys=True)


def evidence(
    name: str,
    entries: Mapping[str, Entry] | None = None,
    results: Sequence[Result] | None = None,
) -> Evidence:
    """What is known of a set of weights.

    Args:
        entries: of a manifest; the packaged one if None.
        results: of every network; those of `model_cards/results.jsonl` if None.

    Raises:
        LookupError: for a name without an entry or a recipe, with the closest that have one.
        ValueError: if something that a card must state is lacking, naming all of it.
    """
    entries = manifest() if entries is None else entries
    if name not in entries:
        raise LookupError(f"no weights are called {name!r}.{closest(name, entries)}")
    entry = entries[name]
    beside = entry.control or next((e.name for e in entries.values() if e.control == name), None)
    partner = entries[beside] if beside else None
    results = read(CARDS / "results.jsonl") if results is None else results
    both = {name, beside}
    found = Evidence(
        entry=entry,
        partner=partner,
        recipe=vars(parse(["--recipe", name])),
        results=tuple(r for r in results if r.model in both),
    )
    if missing := lacking(found):
        raise ValueError(f"no card can be made of {name}: " + "; ".join(missing))
    return found


def lacking(found: Evidence) -> list[str]:
    """What a card must state and cannot, in words."""
    entry, missing = found.entry, []
    if not NAME.fullmatch(entry.name):
        missing.append(f"{entry.name!r} is no name of letters, digits, '_' and one '.'")
    if not LICENSE.fullmatch(str(entry.license)):
        missing.append(f"its license {entry.license!r} is no licence's identifier, as mit is")
    if not SHA256.fullmatch(str(entry.sha256)):
        missing.append("its sha256 is not one of 64 digits")
    if not row_of(found.recipe["dataset"]).publishable:
        missing.append(f"weights trained on {found.recipe['dataset']} must not be published")
    if found.partner is None:
        return [*missing, "it has no control, and is none of a VCR network"]
    theirs = vars(parse(["--recipe", found.partner.name]))
    other = {key for key in theirs if theirs[key] != found.recipe[key]} - {"given", "recipe"}
    if other - {"vcr_alpha", "vcr_beta"}:
        missing.append(
            f"its recipe and {found.partner.name}'s differ in {', '.join(sorted(other))}"
        )
    if not found.gains():
        missing.append("no results of it and its control under the same seed")
    stated = found.published(entry.name).values()
    if any(result.weights != entry.sha256 for result in stated):
        missing.append(
            f"results of other weights than its own: `{REPRODUCE}{entry.name} --record` helps"
        )
    elif not stated:
        missing.append(f"no results of its own: `{REPRODUCE}{entry.name} --record` measures them")
    return missing


def hardware() -> str:
    """What a number was measured on, as its card states it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        models = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores"
