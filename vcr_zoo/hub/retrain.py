"""Recipes run again: the published weights to the bit, and their pair's intervals."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vcr_zoo.card.evidence import REPRODUCE, Evidence
from vcr_zoo.card.gains import START, Gain
from vcr_zoo.results import Result, hardware, read, versions
from vcr_zoo.study.pair import RESULTS, pair
from vcr_zoo.training import parse, train
from vcr_zoo.zoo import half, tensors

RUNS = Path("runs/reproduce")  # of pairs, while they are trained


def trained_again(name: str, weights: str) -> list[Result]:
    """The recipe run for its card: how long it takes, and its accuracy on validation.

    Args:
        weights: sha256 of the published file.
    """
    args = ["--recipe", name, "--experiment", name, "--workers", "0"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(parse([*args, "--output", folder]))
        seconds = time.perf_counter() - start
    recipe = parse(["--recipe", name])
    blank = Result(model=name, data=recipe.dataset, protocol="train", metric="", value=0.0)
    blank = replace(blank, seed=recipe.seed, settings={"epochs": recipe.epochs}, weights=weights)
    blank = replace(blank, versions={**versions(), "hardware": hardware()})
    blank = replace(blank, command=f"{REPRODUCE}{name} --record --retrain")
    values = {"seconds": seconds, "top1": run.metrics["eval_top1"] / 100}
    return [replace(blank, metric=metric, value=value) for metric, value in values.items()]


def pair_again(
    found: Evidence, published: Path, *, quick: bool, jobs: int, tell: Callable[[str], None]
) -> int:
    """Train a pair anew with the seeds of its card: whether the recipe's own seed gives the
    published weights to the bit, and the stated differences beside those found. What was stopped
    goes on; what was compared is removed, so that the next time trains again.

    Args:
        published: file of the weights.

    Returns:
        0 if every two intervals overlap, 1 if some do not, 2 if something could not be had.
    """
    stated, name = found.compared, found.entry.name
    seeds, folder = sorted(stated.seeds()), RUNS / stated.vcr
    tell(f"\n{stated.vcr} and {stated.control}, seeds {', '.join(map(str, seeds))}, in {folder}")
    more = {"folder": folder, "jobs": jobs, "quick": quick, "tell": tell}
    failed = pair(stated.vcr, stated.control, seeds=seeds, **more)
    run = folder / f"{name}-seed{found.recipe['seed']}" / "model.safetensors"
    if run.exists():
        same = "" if same_weights(run, published) else "not "
        tell(f"the recipe's weights are {same}the published ones to the bit")
    known = read(folder / RESULTS)
    again = replace(stated, results=tuple(r for r in known if r.seed in seeds or START in r.model))
    status = overlapping(stated.gains(), again.gains(), tell)
    before, since = (one.over_start(stated.vcr) for one in (stated, again))
    if before:
        since = since.gains() if since else []
        status = worse(status, overlapping(before.gains(), since, tell, "the start"))
    if failed:
        tell(f"{failed} networks lack, as told above; the same command goes on from there")
        return status or 2
    shutil.rmtree(folder)
    return status


def same_weights(run: Path, published: Path) -> bool:
    """Whether a run's weights, in the precision that was published, are the published ones."""
    ours, theirs = tensors(run), tensors(published)
    fits = {value.dtype for value in theirs.values()}
    ours = {k: half(k, v) if theirs[k].dtype != v.dtype else v for k, v in ours.items()}
    return bool(fits) and all(ours[key].equal(value) for key, value in theirs.items())


def worse(one: int, other: int) -> int:
    """Of two verdicts a difference, or else that something could not be had."""
    return 1 if 1 in (one, other) else max(one, other)


def overlapping(
    stated: Sequence[Gain],
    found: Sequence[Gain],
    tell: Callable[[str], None],
    less: str = "control",
) -> int:
    """Differences with their intervals, stated and found: 0 if every two overlap, 1 if some do
    not, 2 if there are none. What was not measured again is told."""
    again = {(g.protocol, g.data, g.metric): g for g in found}
    width = max((len(g.measure.label) for g in stated), default=0) + 2
    tell(f"\n{f'VCR less {less}':{width}}{'stated':>26}{'found':>26}")
    verdicts = []
    for one in stated:
        other = again.get((one.protocol, one.data, one.metric))
        start = f"{one.measure.label:{width}}{one.difference_shown:>26}"
        start += f"{other.difference_shown if other else '':>26}  "
        if other is None:
            tell(f"{start}not measured")
        elif one.difference.n < 2 or other.difference.n < 2:
            tell(f"{start}one seed has no interval")
        else:
            mine, theirs = one.difference, other.difference
            verdicts.append(mine.low <= theirs.high and theirs.low <= mine.high)
            tell(f"{start}{'overlap' if verdicts[-1] else 'DO NOT OVERLAP'}")
    tell(f"{sum(verdicts)} of {len(verdicts)} overlap")
    return 0 if verdicts and all(verdicts) else 1 if verdicts else 2
