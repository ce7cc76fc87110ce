"""What a search measures of a network, on validation pictures: it chooses by that."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from vcr_zoo.card import chosen
from vcr_zoo.data import Images, load
from vcr_zoo.features import features, load_model, weights_sha256
from vcr_zoo.results import Result, append, read, versions
from vcr_zoo.suite import targets
from vcr_zoo.transfer.probe import choose

from .runs import Task

RESULTS = "search.jsonl"
PICTURES = 5_000  # that a probe is fitted on at most
STRENGTHS = tuple(10.0**k for k in range(-5, 3))  # values of C
PROBING = {"pictures": PICTURES, "C": list(STRENGTHS)}
OWN, PROBE = "validation_top1", "probe_validation_top1"  # metrics


def validated(task: Task) -> list[Result]:
    """Validation accuracies of a network on its source, by its own classifier, and of probes on
    other data sets and on the source."""
    source, options = task.arguments.dataset, {"options": " ".join(task.options)}
    own = Result(task.name, source, "search", OWN, 0.0, task.seed, options)
    probes = [
        replace(own, data=data, metric=PROBE, settings=options | PROBING)
        for data in (*targets(source), source)
    ]

    def value(model: nn.Module, wanted: Result) -> float:
        if wanted.metric == OWN:
            return last_accuracy(task.run)
        return choose(*known(model, wanted.data), strengths=STRENGTHS)[1]["validation_top1"]

    return filled([own, *probes], task, task.run.parent / RESULTS, value)


def filled(
    wanted: Sequence[Result], task: Task, path: Path, value: Callable[[nn.Module, Result], float]
) -> list[Result]:
    """Results with their values: from a file, or measured and entered there."""
    model, found = load_model(task.run), []
    stamp = {"weights": weights_sha256(model), "versions": versions(), "command": task.command}
    there = {r.cell(): r for r in read(path)}
    for one in (replace(each, **stamp) for each in wanted):
        if one.cell() not in there:
            one = replace(one, value=value(model, one))
            append(path, one)
        found.append(there.get(one.cell(), one))
    return found


def known(model: nn.Module, data: str):
    """Features of PICTURES train pictures at most, the same each time, and of validation's."""
    train: Images = load(data, "train")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return features(model, train.subset(order[:PICTURES])), features(
        model, load(data, "validation")
    )


def last_accuracy(run: Path) -> float:
    """Of the last epoch, on validation pictures."""
    with (run / "summary.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["eval_top1"]) / 100


def brief(results: Sequence[Result]) -> str:
    """One line of a network's accuracies: of its own classifier, if it has one, and of probes."""
    *others, probe_of_source = (r for r in results if r.metric not in (OWN, chosen.OWN))
    own = "".join(f"source {100 * r.value:.2f}, " for r in results if r.metric in (OWN, chosen.OWN))
    shown = f"{own}probe of the source {100 * probe_of_source.value:.2f}, others "
    return shown + f"{100 * fmean(r.value for r in others):.2f}"
