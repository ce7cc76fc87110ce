"""A recipe and its control, both trained with several seeds and measured alike."""

import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vcr_zoo.card.gains import PAIR, START, Paired, comparison
from vcr_zoo.features import load_model, weights_sha256
from vcr_zoo.results import Result, append, hardware, read
from vcr_zoo.suite import Job, measured, slow, suite
from vcr_zoo.training import parse
from vcr_zoo.training.options import continues

from .runs import Task, carried_out, each

RESULTS = "results.jsonl"
OF_START = ("spectrum", "probe")  # protocols, of the weights that both networks began with


def pair(
    name: str,
    against: str,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    folder: Path = Path("runs/pairs"),
    jobs: int = 1,
    quick: bool = False,
    options: Sequence[str] = (),
    tell: Callable[[str], None] = tqdm.write,
) -> int:
    """Train a recipe and its control with every seed, measure them and compare; where they
    continue from weights, with those as they are too.

    What is trained is not trained again, nor a probe fitted that was; a run that was stopped goes
    on. Every number lands in results.jsonl of `folder`, which `vcr-zoo card --add` takes.

    Args:
        name, against: recipes, which differ in VCR's coefficients alone.
        jobs: networks at a time, which share the cores.
        quick: leave probes on many pictures out, see `slow`; without it they are added later.
        options: of training, over those of both recipes.
        tell: receives a line for each network, and the table.

    Returns:
        How many networks could not be trained or measured.

    Raises:
        LookupError: for a recipe that does not exist.
        ValueError: for recipes that differ in anything else, or no seeds.
    """
    check_pair(name, against, options)
    seeds = each(seeds, jobs, options)
    tasks = [
        Task(
            which,
            seed,
            folder / f"{which}-seed{seed}",
            command(name, against, seed, options),
            tuple(options),
        )
        for seed in seeds
        for which in (against, name)
    ]
    if continues(parse(["--recipe", against, *options])):
        tasks.append(
            Task(
                against,
                0,  # which draws a new head, and nothing that is measured
                folder / f"{against}-start",
                command(name, against, 0, options),
                (*options, "--stop-epoch", "0"),
                start=True,
            )
        )
    failed = 0
    outcomes = carried_out(tasks, partial(evaluated, quick=quick), jobs)
    bar = tqdm(outcomes, total=len(tasks), unit="network", disable=jobs == 1)  # one shows its own
    for done, (task, outcome) in enumerate(bar, start=1):
        told = outcome if isinstance(outcome, Exception) else brief(outcome)
        failed += isinstance(outcome, Exception)
        tell(f"{done} of {len(tasks)}, {task.run.name}: {told}")
    tell(f"\n{table(folder, name, against, seeds, options)}\n\n{folder / RESULTS}")
    return failed


def check_pair(name: str, against: str, options: Sequence[str] = ()) -> None:
    """Refuse recipes of which VCR is not the only difference."""
    ours, theirs = (vars(parse(["--recipe", which, *options])) for which in (name, against))
    differ = {key for key in ours if ours[key] != theirs[key]} - {"given", "recipe"}
    if wrong := sorted(key for key in differ if key not in ("vcr_alpha", "vcr_beta")):
        raise ValueError(f"{name} and {against} differ in {', '.join(wrong)}, not in VCR alone")
    if theirs["vcr_alpha"] or theirs["vcr_beta"]:
        raise ValueError(f"{against} is no control: its coefficients are not zero")
    if not (ours["vcr_alpha"] or ours["vcr_beta"]):
        raise ValueError(f"{name} has no VCR: its coefficients are zero, as its control's")


def command(name: str, against: str, seed: int, options: Sequence[str]) -> str:
    words = [*PAIR.split(), name, "--against", against, "--seeds", str(seed), *options]
    return shlex.join(words)


def evaluated(task: Task, quick: bool = False) -> list[Result]:
    """Measure a network with the suite, all of it or what is quick, and write down what is not
    there yet; of a start only `OF_START`."""
    model = task.name + START if task.start else task.name
    path, cells = (task.run.parent / name for name in (RESULTS, "cells.jsonl"))
    own = (model, task.seed, weights_sha256(load_model(task.run)), task.command)
    known = [r for r in read(path) if (r.model, r.seed, r.weights, r.command) == own]
    found = []
    with tempfile.TemporaryDirectory() as cache:  # of features that nobody asks for again
        for job in suite(task.arguments):
            if (quick and slow(job)) or (task.start and job.protocol not in OF_START):
                continue
            there = [r for r in known if of_job(r, job)]
            if not there:
                new = measured(job, str(task.run), seed=task.seed, cache=cache, cells=cells)
                for r in new:
                    versions = {**r.versions, "hardware": hardware()}
                    there.append(replace(r, model=model, command=task.command, versions=versions))
                append(path, *there)
            found += there
    return found


def of_job(result: Result, job: Job) -> bool:
    """Whether an evaluation gave it; what states no level of labels is of any."""
    level = result.settings.get("level", job.level)
    return (result.protocol, result.data, level) == job


def brief(results: Sequence[Result]) -> str:
    """One line of a network's accuracies."""
    shown = [r for r in results if r.metric == "top1"]
    return ", ".join(f"{r.protocol} {r.data} {100 * r.value:.2f}" for r in shown)


def table(folder: Path, name: str, against: str, seeds: Sequence[int], options=()) -> str:
    """What was measured of both, with the mean over the data sets that are not the source; where
    they continue from weights, a second table of VCR and those."""
    measured = [r for r in read(folder / RESULTS) if r.seed in seeds or r.model == against + START]
    measured = [r for r in measured if r.command == command(name, against, r.seed, options)]
    weights = {(r.model, r.seed): r.weights for r in measured}  # of the latest training
    known = tuple(r for r in measured if r.weights == weights[r.model, r.seed])
    found = Paired(against, name, parse(["--recipe", name, *options]).dataset, known)
    shown = filter(None, [found, found.over_start(name)])
    return "\n\n".join(comparison(one.gains(), one.control, name) for one in shown)
