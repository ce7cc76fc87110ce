"""What a search measures of a network: on validation pictures, to choose by; of what was chosen, on
test parts."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from vcr_zoo.card import chosen
from vcr_zoo.data import Images, load, load_test
from vcr_zoo.features import features, load_model, weights_sha256
from vcr_zoo.results import Result, append, read, versions
from vcr_zoo.suite import Job, measured, targets
from vcr_zoo.transfer.probe import choose, probe

from .runs import Task

RESULTS, TESTED = "search.jsonl", "chosen.jsonl"
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


def tested(task: Task, space: str, recipes: Sequence[str], options: Sequence[str]) -> list[Result]:
    """The same on test parts, of a setting of a space that was chosen for all of the recipes; C is
    chosen on validation. `options` are those that were given beside the setting."""
    args, setting = task.arguments, " ".join(task.options[len(options) :])
    about = {"setting": setting, "options": " ".join(options)}
    if setting:  # what a recipe is as it stands depends on no search
        about |= {"space": space, "recipes": " ".join(recipes)}
    level = {"level": args.label_level}
    own = Result(task.name, args.dataset, chosen.CHOSEN, chosen.OWN, 0.0, task.seed, about | level)
    probes = [
        replace(own, data=data, metric=metric, settings=about | PROBING)
        for metric, names in ((chosen.OTHER, targets(args.dataset)), (chosen.PROBE, [args.dataset]))
        for data in names
    ]

    def value(model: nn.Module, wanted: Result) -> float:
        if wanted.metric == chosen.OWN:
            return measured(Job("eval", args.dataset, args.label_level), str(task.run))[0].value
        parts = (*known(model, wanted.data), features(model, load_test(wanted.data)))
        return probe(*parts, strengths=STRENGTHS)["top1"]

    return filled([own, *probes], task, task.run.parent.parent / TESTED, value)


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
    """One line of a network's accuracies."""
    source, *others, probe_of_source = results
    shown = f"source {100 * source.value:.2f}, its probe {100 * probe_of_source.value:.2f}, others "
    return shown + f"{100 * fmean(r.value for r in others):.2f}"
