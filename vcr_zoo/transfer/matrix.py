"""Many cells of networks x data sets x protocols x seeds, each measured once and written down."""

import concurrent.futures
import contextlib
import hashlib
import multiprocessing
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vcr_zoo.data import Images, load, load_test
from vcr_zoo.data.load import row_with
from vcr_zoo.features import (
    Features,
    features,
    find_model,
    load_model,
    network_sha256,
    weights_sha256,
)
from vcr_zoo.results import Result, append, closest, read, versions

from .check import check
from .coarse_to_fine import levels, parents
from .fewshot import choose_ridges, fewshot_right
from .knn import knn_votes
from .probe import choose
from .prototype import nearest_mean
from .rankme import participation, rankme
from .scores import per_class, scores, softmax
from .transferability import h_score, logme

Test = Callable[[], Features]  # reads the test split: called last, after every choice
Outcome = tuple[dict[str, float], Tensor | None]  # metrics, first the main one; right (n,) of test


@dataclass(frozen=True)
class Cell:
    """One measurement to make. "{seed}" in the model's name stands for the seed."""

    model: str
    data: str
    protocol: str
    seed: int = 0
    level: str = "fine"

    @property
    def weights(self) -> str:
        """The name that `load_model` takes."""
        return self.model.replace("{seed}", str(self.seed))

    @property
    def command(self) -> str:
        """Measures this cell alone."""
        level = "" if self.level == "fine" else f" --level {self.level}"
        return (
            f"vcr-zoo transfer {shlex.quote(self.weights)} --data {shlex.quote(self.data)} "
            f"--protocol {self.protocol} --seeds {self.seed}{level}"
        )


def by_probe(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """`probe.probe` with its defaults."""
    classifier, how = choose(train, validation)
    last = checked(train, test())
    p = softmax(classifier.logits(last.x)[0])
    return {**scores(p, last.y), **how}, p.argmax(dim=1) == last.y


def by_knn(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """`knn.knn`, validation pictures among the neighbors."""
    both, last = joined(train, validation), checked(train, test())
    votes = knn_votes(both, last.x)
    right = votes.argmax(dim=1) == last.y
    return {"top1": right.double().mean().item(), "per_class": per_class(votes, last.y)}, right


def by_prototype(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """`prototype.prototype`, with the means of train and validation."""
    both, last = joined(train, validation), checked(train, test())
    right = nearest_mean(both, last.x) == last.y
    return {"top1": right.double().mean().item()}, right


def by_fewshot(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """`fewshot.fewshot`; the main metric is that of the most shots."""
    ridges = choose_ridges(train, validation, seed=cell.seed)
    right = fewshot_right(train, checked(train, test()), ridges, seed=cell.seed)
    accuracy = {f"{k}-shot": right[k].mean().item() for k in reversed(right)}
    return accuracy | {f"ridge_{k}": ridges[k] for k in right}, right[max(right)]


def by_coarse_to_fine(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """`coarse_to_fine.coarse_to_fine`; the main metric is within_top1."""
    family = parents(train.y, torch.as_tensor(load(cell.data, "train", level="coarse").y))
    classifier, how = choose(train, validation)
    last = checked(train, test())
    metrics, told = levels(classifier.logits(last.x)[0], last.y, family)
    return {**metrics, **how}, told


def by_scores(train: Features, validation: Features, test: Test, cell: Cell) -> Outcome:
    """Scores that need no classifier and no test split."""
    check(train=train)
    measures = (logme, h_score, rankme, participation)
    return {measure.__name__: measure(train) for measure in measures}, None


PROTOCOLS = {
    "probe": by_probe,
    "knn": by_knn,
    "prototype": by_prototype,
    "fewshot": by_fewshot,
    "coarse-to-fine": by_coarse_to_fine,
    "scores": by_scores,
}


def checked(train: Features, test: Features) -> Features:
    check(train=train, test=test)
    return test


def joined(train: Features, validation: Features) -> Features:
    x, y = torch.cat([train.x, validation.x]), torch.cat([train.y, validation.y])
    return Features(x, y, train.classes)


def cells(models, data, protocols, seeds, level="fine") -> list[Cell]:
    """Every combination, once.

    Raises:
        LookupError: for an unknown protocol, data set, label level or model.
        ValueError: for coarse-to-fine of the coarse classes.
    """
    models, data, protocols, seeds = map(dict.fromkeys, (models, data, protocols, seeds))
    for name in protocols:
        if name not in PROTOCOLS:
            raise LookupError(
                f"no protocol {name!r}.{closest(name, PROTOCOLS)} There are {', '.join(PROTOCOLS)}"
            )
    for name in data:
        for wanted in (level, *(("coarse", "fine") if "coarse-to-fine" in protocols else ())):
            row_with(name, wanted)
    if level != "fine" and "coarse-to-fine" in protocols:
        raise ValueError(f"coarse-to-fine is of the fine classes: leave out --level {level}")
    found = [
        Cell(model, name, protocol, seed, level)
        for model in models
        for name in data
        for protocol in protocols
        for seed in seeds
    ]
    for weights in dict.fromkeys(cell.weights for cell in found):
        find_model(weights)
    return found


def measure(cell: Cell, out: str | Path, cache: str | Path | None = None) -> dict[str, Result]:
    """Measure one cell unless `out` holds it already; its results by metric, the main one first.

    Results are appended to the jsonl file `out`, the main one last: where it stands, the cell is
    finished. Which test pictures were right is kept beside it (`right_file`).
    """
    model = load_model(cell.weights)
    train, validation = (
        load(cell.data, part, level=cell.level) for part in ("train", "validation")
    )
    last = load_test(cell.data, level=cell.level)  # whose pictures nobody looks at before `test`
    blank = Result(
        model=cell.weights,
        data=cell.data,
        protocol=cell.protocol,
        metric="",
        value=0.0,
        seed=cell.seed,
        settings={"level": cell.level, **SETTINGS.get(cell.protocol, {})},
        weights=weights_sha256(model),
        network=network_sha256(model),
        fingerprint=fingerprint(train, validation, last),
        versions=versions(),
        command=cell.command,
    )
    if known := finished(out, blank):
        return known
    parts = [features(model, images, cache=cache) for images in (train, validation)]

    def test() -> Features:
        return features(model, last, cache=cache)

    metrics, right = PROTOCOLS[cell.protocol](*parts, test, cell)
    results = {
        name: Result(**{**vars(blank), "metric": name, "value": float(value)})
        for name, value in metrics.items()
    }
    if right is not None:
        path = right_file(out, next(iter(results.values())))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        kept = {"right": right.to(torch.float16).cpu().contiguous()}
        if len(right) == len(last):  # coarse-to-fine leaves pictures out
            kept["groups"] = group_numbers(last)
        save_file(kept, partial)
        partial.replace(path)
    for result in reversed(results.values()):
        append(out, result)
    return results


def group_numbers(images: Images) -> Tensor:
    """A number for every picture that pictures of its group share: int32 (n,)."""
    return torch.from_numpy(np.unique(images.groups, return_inverse=True)[1].astype(np.int32))


def fingerprint(*parts: Images) -> str:
    """sha256 of the parts of a data set, test too: known beforehand, no picture is looked at."""
    return hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest()


def finished(out: str | Path, blank: Result) -> dict[str, Result]:
    """Results of a cell that the file holds, the main one first; none if it is not complete."""
    same = {}
    for result in read(out):
        if identity(result) == identity(blank):
            same[result.metric] = result
    last = next(reversed(same.values()), None)
    if last is None or last.metric not in MAIN[blank.protocol]:
        return {}
    if blank.protocol != "scores" and not right_file(out, last).exists():
        return {}  # few shots were written down, and then it was stopped
    return dict(reversed(same.items()))


# What the protocols are run with, their functions' defaults, to stand beside every number.
SETTINGS = {
    "probe": {"C": "45 values, 1e-6 to 1e5", "tolerance": 1e-5},
    "coarse-to-fine": {"C": "45 values, 1e-6 to 1e5", "tolerance": 1e-5},
    "knn": {"k": 20, "temperature": 0.07},
    "fewshot": {"draws": 5, "ridge": "7 values, 0.01 to 10"},
}
MAIN = {
    "probe": ("top1",),
    "knn": ("top1",),
    "prototype": ("top1",),
    "coarse-to-fine": ("within_top1",),
    "fewshot": ("25-shot", "10-shot", "5-shot", "1-shot"),
    "scores": ("logme",),
}


def identity(result: Result) -> str:
    """What was measured, whichever metric of it."""
    return Result(**{**vars(result), "metric": ""}).cell()


def right_file(out: str | Path, main: Result) -> Path:
    """Where the shares of right answers for every test picture of a cell lie."""
    key = hashlib.sha256(main.cell().encode()).hexdigest()[:32]
    return Path(out).with_suffix(".right") / f"{key}.safetensors"


def right(out: str | Path, main: Result) -> Tensor | None:
    """Shares of right answers for every test picture (n,) float64, where the protocol has them."""
    path = right_file(out, main)
    return load_file(path)["right"].double() if path.exists() else None


def groups_of(out: str | Path, main: Result) -> Tensor | None:
    """Numbers of the groups of the test pictures of `right` (n,), where they are known."""
    path = right_file(out, main)
    return load_file(path).get("groups") if path.exists() else None


def run(
    wanted: Sequence[Cell],
    out: str | Path,
    *,
    cache: str | Path | None = None,
    jobs: int = 1,
    launcher: str | None = None,
) -> Iterator[tuple[Cell, dict[str, Result] | Exception]]:
    """Measure cells and give each with its results as soon as it is done, or with its error:
    one cell's failure does not stop the others.

    Args:
        jobs: processes on this machine.
        launcher: "slurm" or "local": hand the cells to submitit, `jobs` at a time.

    Raises:
        ImportError: for a launcher without submitit.
    """
    if launcher:
        yield from submitted(wanted, out, cache, jobs, launcher)
    elif jobs <= 1:
        for cell in wanted:
            yield cell, attempt(cell, out, cache)
    else:
        with workers(jobs, max(1, (os.cpu_count() or 1) // jobs)) as pool:
            futures = {pool.submit(attempt, cell, out, cache): cell for cell in wanted}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], outcome(future.result)


@contextlib.contextmanager
def workers(jobs: int, threads: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Processes with so many threads each, which end with this one; what waits when the block is
    left does not begin."""
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), begin, (threads,)
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begin(threads: int) -> None:
    """What a worker does first: if its parent is killed, nobody else would tell it to stop."""
    torch.set_num_threads(threads)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def attempt(cell: Cell, out: str | Path, cache: str | Path | None) -> dict | Exception:
    """`measure`, with what it raises on bad input given back instead."""
    try:
        return measure(cell, out, cache)
    except (LookupError, ValueError, OSError, ImportError, RuntimeError) as error:
        return error


def outcome(result: Callable[[], dict | Exception], hint: str = "") -> dict | Exception:
    """What `attempt` gave, or why there is nothing: its process was killed, its task failed."""
    try:
        return result()
    except Exception as error:  # whatever a pool or a cluster raises: the others go on
        why = str(error) or type(error).__name__
        return RuntimeError(f"its process ended without a result: {why}{hint}")


def submitted(wanted, out, cache, jobs: int, launcher: str) -> Iterator:
    """`run` through submitit: each cell a task of one array on a cluster, or a local process.

    The folder of `out` must be one that the cluster's machines see; the tasks' logs lie in it.

    Raises:
        RuntimeError: if nothing can be submitted from here.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError("--launcher needs submitit: pip install 'vcr_zoo[slurm]'") from error
    out, cache = Path(out).absolute(), Path(cache).absolute() if cache else None
    logs = out.with_suffix(".jobs")
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=launcher)
        executor.update_parameters(
            name="vcr-zoo-transfer", cpus_per_task=4, timeout_min=240, slurm_array_parallelism=jobs
        )
        with executor.batch():
            tasks = [executor.submit(attempt, cell, out, cache) for cell in wanted]
    except Exception as error:  # sbatch is not here, or refuses
        raise RuntimeError(
            f"nothing could be submitted to {launcher!r}: {error}. Run it where sbatch works, or "
            "without --launcher, with --jobs"
        ) from error
    for cell, task in zip(wanted, tasks, strict=True):
        yield cell, outcome(task.result, f"; its log is in {logs}")
