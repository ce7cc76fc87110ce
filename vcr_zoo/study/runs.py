"""Networks trained by recipes, each once, several at a time."""

import concurrent.futures
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vcr_zoo.training import parse, train
from vcr_zoo.training.settle import check_recipe
from vcr_zoo.transfer.matrix import outcome, workers

ERRORS = (LookupError, ValueError, OSError, ImportError, RuntimeError, ArithmeticError)
T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One network: a recipe and a seed, and options over the recipe's."""

    name: str
    seed: int
    run: Path  # the folder of its run
    command: str  # gives its numbers again
    options: tuple[str, ...] = ()
    start: bool = False  # it is what the recipe begins with: its options say --stop-epoch 0

    @property
    def arguments(self) -> Namespace:
        """What it is trained with."""
        own = ["--recipe", self.name, "--seed", str(self.seed), "--resume", "auto"]
        own += ["--output", str(self.run.parent), "--experiment", self.run.name]
        return parse([*own, *self.options])


def each(seeds: Sequence[int], jobs: int, options: Sequence[str]) -> list[int]:
    """The seeds, once each.

    Raises:
        ValueError: for none of them or of the jobs, or options that a study sets itself.
    """
    if not seeds or jobs < 1:
        raise ValueError("give at least one of --seeds, and --jobs of 1 or more")
    taken = ("--recipe", "--seed", "--output", "--experiment", "--resume", "--overwrite")
    if ours := [word for word in options if word.split("=")[0] in taken]:
        raise ValueError(f"{ours[0]} is set here for every network: leave it out, or give --seeds")
    return list(dict.fromkeys(seeds))


def trained(task: Task, progress: bool | None = None) -> None:
    """Train a network unless it is there; of its run the weights stay, and no checkpoints. A run
    that was stopped goes on.

    Raises:
        ValueError: if what is there was trained otherwise.
    """
    if (task.run / "args.yaml").exists():
        check_recipe(task.run, task.name, "--seed", str(task.seed), *task.options)
    if not all((task.run / name).exists() for name in ("config.json", "model.safetensors")):
        train(task.arguments, progress)
    for checkpoint in task.run.glob("*.pth.tar"):  # three times the weights each, many times
        checkpoint.unlink()


def carried_out(
    tasks: Sequence[Task], work: Callable[[Task], T], jobs: int = 1
) -> Iterator[tuple[Task, T | Exception]]:
    """Every task trained, with what `work` then makes of it or why there is nothing, as they are
    done.

    Args:
        work: a function of a module, which other processes can import.
        jobs: networks at a time, in processes which share the cores.
    """
    if jobs == 1:
        for task in tasks:
            yield task, attempt(task, work)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with workers(jobs, threads) as pool:
        futures = {pool.submit(attempt, task, work, False): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], outcome(future.result)


def attempt(task: Task, work: Callable[[Task], T], progress: bool | None = None) -> T | Exception:
    """Train, then work."""
    try:
        trained(task, progress)
        return work(task)
    except ERRORS as error:
        return error
