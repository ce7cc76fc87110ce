"""Recipes run again: the published weights to the bit, and their pair's intervals."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from vcr_zoo.card.evidence import REPRODUCE, evidence
from vcr_zoo.card.gains import Paired
from vcr_zoo.results import Result, hardware, read, versions
from vcr_zoo.study.pair import RESULTS, pair
from vcr_zoo.training import parse, train
from vcr_zoo.zoo import half

RUNS = Path("runs/reproduce")  # of pairs


def retrained(name: str, published: Path, weights: str) -> tuple[list[Result], bool]:
    """The recipe run again: its time and accuracy, and whether its weights, in the precision
    that was published, are the published ones to the bit."""
    args = ["--recipe", name, "--experiment", name, "--workers", "0"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(parse([*args, "--output", folder]))
        seconds = time.perf_counter() - start
        ours, theirs = load_file(run.folder / "model.safetensors"), load_file(published)
    fits = {value.dtype for value in theirs.values()}
    ours = {k: half(k, v) if theirs[k].dtype != v.dtype else v for k, v in ours.items()}
    same = fits and all(ours[key].equal(value) for key, value in theirs.items())
    recipe = parse(["--recipe", name])
    blank = Result(model=name, data=recipe.dataset, protocol="train", metric="", value=0.0)
    blank = replace(blank, seed=recipe.seed, settings={"epochs": recipe.epochs}, weights=weights)
    blank = replace(blank, versions={**versions(), "hardware": hardware()})
    blank = replace(blank, command=f"{REPRODUCE}{name} --retrain")
    values = {"seconds": seconds, "top1": run.metrics["eval_top1"] / 100}
    return [replace(blank, metric=metric, value=value) for metric, value in values.items()], same


def intervals_agree(
    name: str, book: Sequence[Result], *, quick: bool, jobs: int, tell: Callable[[str], None]
) -> bool:
    """Train a pair anew with the seeds of its card: the stated differences beside those found, and
    whether every two intervals overlap. What was stopped goes on.

    Args:
        name: of either network.
        book: what the card was made of.
    """
    stated = evidence(name, results=book).compared
    seeds = sorted(stated.seeds())
    tell(f"\n{stated.vcr} and {stated.control}, seeds {', '.join(map(str, seeds))}, in {RUNS}")
    more = {"folder": RUNS, "jobs": jobs, "quick": quick, "tell": tell}
    failed = pair(stated.vcr, stated.control, seeds=seeds, **more)
    found = replace(stated, results=tuple(read(RUNS / RESULTS)))
    return overlapping(stated, found, tell) and not failed


def overlapping(stated: Paired, found: Paired, tell: Callable[[str], None]) -> bool:
    """Differences with their intervals, stated and found, and whether every two overlap; what was
    not measured again is told."""
    again = {(g.protocol, g.data, g.metric): g for g in found.gains()}
    tell(f"\n{'VCR less control':56}{'stated':>26}{'found':>26}")
    agree = True
    for one in stated.gains():
        start = f"{one.measure.label:56}{one.difference_shown:>26}"
        other = again.get((one.protocol, one.data, one.metric))
        if other is None:
            tell(f"{start}  not measured")
            continue
        mine, theirs = one.difference, other.difference
        fits = mine.low <= theirs.high and theirs.low <= mine.high
        agree = agree and fits
        tell(f"{start}{other.difference_shown:>26}  {'overlap' if fits else 'DO NOT OVERLAP'}")
    return agree
