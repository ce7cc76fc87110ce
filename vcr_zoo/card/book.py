"""results.jsonl of model_cards: the numbers that cards are made of."""

import json
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict
from pathlib import Path

from vcr_zoo.data.cache import lock
from vcr_zoo.results import Result, key_of, read
from vcr_zoo.zoo import replaced

from .bearing import JOINT, STARVED, STEP, TRIED
from .chosen import CHOSEN
from .evidence import CARDS, DEPTHS, REPRODUCE, SCRATCH
from .gains import PAIR, declared, recipe_of
from .words import MEASURES

log = logging.getLogger(__name__)

PUBLISHED = (REPRODUCE, "vcr-zoo finetune ", "vcr-zoo depth ")  # commands that take weights by name


def add(results: Iterable[Result], path: Path = CARDS / "results.jsonl") -> int:
    """Enter results; one of the same measurement, of whatever weights, is replaced, and what was
    recorded of weights that a name, or a seed of a pair, no longer has is left out. How many.

    Raises:
        FileNotFoundError: outside of a checkout, which alone has `model_cards/`.
        ValueError: for a part of the seeds of a pair that was trained anew, which would be paired
            with those of the earlier training.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no {path.parent}: results are entered in a checkout of the repository, "
            "installed with pip install -e ."
        )
    with lock(path.parent / ".lock", "entering results"):
        content, count = entered(list(results), path)
        replaced(path, content)
    return count


def entered(results: list[Result], path: Path) -> tuple[bytes, int]:
    """The book with results in it, and how many of them are: see `add`."""
    weights = {network(r): r.weights for r in results if network(r)}  # the latest

    def old(r: Result) -> bool:
        return r.weights != weights.get(network(r), r.weights)

    before = read(path)
    check_whole(before, {r.model for r in before if old(r) and r.command.startswith(PAIR)}, weights)
    anew = {r.model for r in before if old(r) and r.command.startswith(REPRODUCE)}  # packaged
    new = {same(r): r for r in results if not old(r)}
    kept = [r for r in before if not (same(r) in new or old(r))]
    if tuned := [r for r in kept if of_file(r) & anew]:
        names = ", ".join(sorted(anew))
        log.warning("%s: %d results of fine-tuning other weights left out", names, len(tuned))
        kept = [r for r in kept if not of_file(r) & anew]
    content = [json.dumps(asdict(r), sort_keys=True) + "\n" for r in [*kept, *new.values()]]
    return "".join(content).encode(), len(new)


def check_whole(before: Iterable[Result], anew: Set[str], weights: Mapping[tuple, str]) -> None:
    """Refuse to let runs of recipes that were trained anew be paired with those of before."""
    before = [r for r in before if r.command.startswith(PAIR)]
    for vcr, control in declared(before).items():
        seeds = {network(r) for r in before if r.model in (vcr, control)}
        if {vcr, control} & anew and (lacking := sorted(seeds - weights.keys())):
            model, _, seed = lacking[0]
            raise ValueError(
                f"{vcr} or {control} was trained anew, but of seed {seed} of {model} there are "
                f"only numbers of the earlier training: `{PAIR}{vcr} --against {control} --seeds "
                f"{' '.join(map(str, sorted({s for *_, s in seeds})))}` measures the rest"
            )


def add_file(source: Path, names: Iterable[str], path: Path = CARDS / "results.jsonl") -> int:
    """Enter the results of a file, those that cards show.

    Raises:
        ValueError: if it holds none of those names, pairs that were trained with other options
            than their recipes', or paths of this machine, which would be published.
    """
    if not source.exists():
        raise FileNotFoundError(
            f"there is no {source}: `vcr-zoo pair` writes runs/pairs/results.jsonl, and `search "
            "--confirm` runs/search/chosen.jsonl"
        )
    names = set(names)
    nameless = (JOINT, STARVED, STEP)
    found = [r for r in read(source) if shown(r) and (named(r) <= names or r.protocol in nameless)]
    for r in found:
        if more := beside(r):
            raise ValueError(
                f"{source}: {r.model} was trained with {more} over its recipe; cards are "
                "of recipes as they stand: write one of its own"
            )
        if word := absolute(r):
            raise ValueError(
                f"{source}: {word!r} is a path of this machine, which would be published: measure "
                "again with one relative to the checkout"
            )
    if not found:
        raise ValueError(
            f"{source} holds no results that cards or claims show: give what `vcr-zoo pair`, "
            f"search --confirm, depth, finetune, concat, starvation or bench step wrote, of "
            f"{', '.join(sorted(names))}"
        )
    return add(found, path)


def beside(result: Result) -> str:
    """Options that a pair was given beside its recipes."""
    return shlex.join(shlex.split(result.command)[7:]) if result.command.startswith(PAIR) else ""


def absolute(result: Result) -> str:
    """The first word of a result that says where on a machine something lies."""
    words = (result.data, result.model, *shlex.split(result.command))
    begins = re.compile(r"(?:^|[+:=])(?:(?:folder|wds|hfds)/)?/")  # of A+B, local-dir:A, name=A
    return next(filter(begins.search, words), "")


def named(result: Result) -> set[str]:
    """The networks that it is of, by their recipes; several are joined by +."""
    return {recipe_of(name) for name in result.model.split("+")}


def shown(result: Result) -> bool:
    """Whether cards or claims have a place for it."""
    protocol, metric = result.protocol, result.metric
    if protocol == DEPTHS and not re.search(r"\sdepth=\d", result.command):
        return False  # a depth that was looked for is no point of a curve
    if (protocol, metric) in MEASURES:  # of the pair or of the published file, not of a look at it
        return result.command.startswith((PAIR, REPRODUCE))
    return protocol == CHOSEN or metric in TRIED.get(protocol, ())


def published(result: Result) -> str:
    """The command that measured it, if that takes weights by name; else nothing."""
    return next((start for start in PUBLISHED if result.command.startswith(start)), "")


def of_file(result: Result) -> set[str]:
    """The names that stand for the weights it was measured on."""
    known = published(result) and result.protocol != SCRATCH
    return set(result.model.split("+")) if known else set()


def network(result: Result) -> tuple:
    """What has one set of weights: a published name, a run, or a seed of a pair; else nothing."""
    if result.command.startswith(PAIR):
        return (result.model, PAIR, result.seed)
    name = result.model.replace("{seed}", str(result.seed))
    return (name, published(result)) if published(result) else ()


def same(result: Result) -> tuple:
    r = result
    return (r.model, r.protocol, r.data, r.metric, r.seed, key_of(r.settings), published(r))
