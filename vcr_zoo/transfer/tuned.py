"""Fine-tuned cells: networks x data sets x methods x seeds, each measured once and written down."""

import copy
import functools
import hashlib
import inspect
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import nn

from vcr_zoo.data import Images, load, load_test
from vcr_zoo.data.load import row_with
from vcr_zoo.features import find_model, load_model, network_sha256, weights_sha256
from vcr_zoo.results import Result, append, closest, paired, read, versions

from .bss import BSS
from .delta import Delta
from .depth import Depth, Scratch
from .dr_tune import DRTune
from .finetune import Finetuner, Settings, Tuned, predict
from .frozen import Blocks
from .gradual import Gradual
from .joined import naive, two_stage
from .l2_sp import L2SP
from .lora import LoRA
from .method import Method
from .scores import scores
from .search import best_depth, climb, narrow

KINDS = (Method, Depth, DRTune, L2SP, Delta, BSS, Gradual, LoRA, Scratch)
METHODS = {kind.name: kind for kind in KINDS}
TWO_STAGE = "two-stage"
LOOP = {f.name for f in fields(Settings)}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One network fine-tuned on one data set by one method.

    Attributes:
        model: a name for `network`, "{seed}" in it standing for the seed; several with + between
            them are joined.
        options: settings of the loop and of the method that are not the defaults, as pairs.
        size: train pictures, drawn by the seed from all classes alike, and at most as many
            validation pictures; None: all.
        test: test pictures, drawn once for all seeds; None: all.
        budget: runs on validation to choose settings with; 1 takes them as they are.
    """

    model: str
    data: str
    method: str = "full"
    seed: int = 0
    options: tuple[tuple[str, object], ...] = ()
    level: str = "fine"
    size: int | None = None
    test: int | None = None
    budget: int = 1

    def __post_init__(self):
        if self.budget < 1:
            raise ValueError(f"--budget {self.budget} must be at least 1")

    @property
    def networks(self) -> tuple[str, ...]:
        """Names that `load_model` takes."""
        name = self.model.replace("{seed}", str(self.seed))
        return (name,) if Path(name).expanduser().exists() else tuple(name.split("+"))

    @property
    def command(self) -> str:
        """Measures this cell alone."""
        words = ["vcr-zoo", "finetune", self.model, "--data", self.data, "--method", self.method]
        words += ["--seeds", str(self.seed)]
        for name, default in (("level", "fine"), ("size", None), ("test", None), ("budget", 1)):
            if getattr(self, name) != default:
                words += [f"--{name}", str(getattr(self, name))]
        if self.options:
            words += ["--set", *words_of(self.options)]
        return shlex.join(words)


def words_of(options) -> list[str]:
    """Options as the words of --set."""
    return [f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in options]


@functools.lru_cache(maxsize=4)
def network(name: str) -> nn.Module:
    """What `load_model` gives, once; not to be changed."""
    return load_model(name)


def method(name: str, **settings) -> Method:
    """A method by its name.

    Raises:
        LookupError: for a name that is none, or a setting that the method has not.
    """
    if name not in METHODS:
        raise LookupError(
            f"no method {name!r}.{closest(name, [*METHODS, TWO_STAGE])} There are "
            f"{', '.join([*METHODS, TWO_STAGE])}"
        )
    kind = METHODS[name]
    known = list(inspect.signature(kind).parameters)
    for key in settings:
        if key not in known:
            there = [*sorted(LOOP), *known]
            raise LookupError(
                f"{name} has no setting {key!r}.{closest(key, there)} Its own are "
                f"{', '.join(known) or 'none'}"
            )
    return kind(**settings)


def belong(method: str, methods: Sequence[str], options: tuple) -> tuple[tuple[str, object], ...]:
    """The options of one of several methods: those of the loop, its own, and METHOD.NAME, which
    goes before NAME.

    Raises:
        LookupError: for an option that is none of any method.
        ValueError: for a value of the wrong type, or places of VCR without its weights.
    """
    own, chosen = {name: hints_of(name) for name in methods}, {}
    for name, value in sorted(options, key=lambda option: "." in option[0]):
        owner, dot, short = name.rpartition(".")
        if dot and owner not in methods:
            raise LookupError(f"--set {name}: {owner!r} is not among the methods that run")
        if short == "seed":
            raise LookupError("seed is no setting here: give --seeds")
        there = own[owner] if dot else {k: v for hints in own.values() for k, v in hints.items()}
        if short not in there:
            which = owner or " and ".join(methods)
            raise LookupError(
                f"{which} has no setting {short!r}.{closest(short, there)} There are "
                f"{', '.join(sorted(there))}"
            )
        check_type(short, value, there[short])
        if (not dot or owner == method) and short in own[method]:
            chosen[short] = value
    if "vcr_layers" in chosen and not any(map(chosen.get, ("vcr_alpha", "vcr_beta"))):
        raise ValueError(
            f"--set vcr_layers={chosen['vcr_layers']} regularizes nothing without weights: give "
            "--vcr-alpha and --vcr-beta too, or leave it out"
        )
    return tuple(sorted(chosen.items()))


def hints_of(method: str) -> dict[str, object]:
    """Settings of the loop and of a method, with the types of their values."""
    kind = METHODS.get("full" if method == TWO_STAGE else method, Method)
    hints = get_type_hints(Settings)
    return hints | {k: v for k, v in get_type_hints(kind.__init__).items() if k != "return"}


def check_type(name: str, value, hint) -> None:
    """Refuse a value that is not of a setting's type, with a ValueError."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is tuple:
            count = len(get_args(kind))
            if isinstance(value, tuple) and len(value) == count and set(map(type, value)) == {int}:
                return
        elif type(value) is kind or (kind is float and type(value) is int):
            return
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    wanted = " or ".join(
        words.get(kind, "three whole numbers, as in [3, 64, 64]")
        for kind in kinds
        if kind is not type(None)
    )
    raise ValueError(f"{name} must be {wanted}, not {value!r}")


def divided(name: str, options: dict) -> tuple[Method, Settings]:
    """A method and the loop's settings from one set of names and values."""
    loop = {key: value for key, value in options.items() if key in LOOP}
    if name == L2SP.name:
        loop.setdefault("weight_decay", 0.0)  # it has its own
    if loop.get("head_epochs", 0) and loop["head_epochs"] >= loop.get("epochs", Settings.epochs):
        raise ValueError(
            f"head_epochs={loop['head_epochs']} of {loop.get('epochs', Settings.epochs)} epochs "
            "leaves none for the rest of the network: lower it, or raise --epochs"
        )
    own = {key: value for key, value in options.items() if key not in LOOP}
    return method("full" if name == TWO_STAGE else name, **own), Settings(**loop)


def enough(size: int | None, classes: int, option: str) -> None:
    """Refuse fewer pictures than classes, with a ValueError."""
    if size is not None and size < classes:
        raise ValueError(f"{size} pictures are too few for {classes} classes: raise {option}")


def drawn(images: Images, size: int | None, seed: int) -> Images:
    """So many pictures, of all classes as nearly alike as there are, at random by the seed.

    Raises:
        ValueError: for fewer than there are classes.
    """
    if size is None or size >= len(images):
        return images
    enough(size, len(images.classes), "--size")
    order = np.random.default_rng(seed).permutation(len(images))
    place = np.empty(len(images), dtype=np.int64)  # among the pictures of its class
    for label in range(len(images.classes)):
        members = order[np.asarray(images.y)[order] == label]
        place[members] = np.arange(len(members))
    rank = np.empty(len(images), dtype=np.int64)
    rank[order] = np.arange(len(images))
    return images.subset(np.sort(np.lexsort((rank, place))[:size]))


@functools.lru_cache(maxsize=8)
def part_of(data: str, part: str, level: str) -> Images:
    """`load` or, after every choice, `load_test`; once."""
    return load_test(data, level=level) if part == "test" else load(data, part, level=level)


def pictures(cell: Cell) -> tuple[Images, Images]:
    """Train and validation pictures of a cell.

    Raises:
        ValueError: for more train pictures than there are.
    """
    train, validation = (part_of(cell.data, part, cell.level) for part in ("train", "validation"))
    if cell.size is not None and cell.size > len(train):
        raise ValueError(
            f"--size {cell.size}: {cell.data} has {len(train)} train pictures; leave it out for all"
        )
    return drawn(train, cell.size, cell.seed), drawn(validation, cell.size, cell.seed)


def fit(
    cell: Cell, options: dict, folder: str | Path | None = None, **more
) -> tuple[Tuned, Settings]:
    """Fine-tune as a cell says, with these options."""
    chosen, settings = divided(cell.method, options)
    settings = replace(settings, seed=cell.seed)
    train, validation = pictures(cell)
    networks = [network(name) for name in cell.networks]
    more = {"folder": folder, **more}
    if cell.method == TWO_STAGE:
        return two_stage(networks, train, validation, settings, **more), settings
    model = networks[0] if len(networks) == 1 else naive(networks, train, settings.input_size)
    return Finetuner(model, train, validation, chosen, settings, **more).run(), settings


def tried(cell: Cell, options: dict, out: str | Path) -> float:
    """Validation accuracy of one trial on seed 0, from the file if it is there."""
    trial = replace(cell, seed=0)
    result = blank(trial, options)
    result = replace(result, protocol=f"{result.protocol} trial", metric="validation_top1")
    for known in read(out):
        if known.cell() == result.cell():
            return known.value
    try:
        value = fit(trial, options, progress=sys.stderr.isatty())[0].validation_top1
    except FloatingPointError:  # settings that diverge are bad ones
        value = 0.0
    append(out, replace(result, value=value))
    return value


def chosen(cell: Cell, out: str | Path) -> dict:
    """Options for a cell, chosen with its budget of runs: of seed 0, on validation pictures.

    For "depth" first the depth, then its rate; for others what their `tuned` names.
    """
    options = dict(cell.options)
    if cell.budget <= 1:
        return options
    spent = 0
    if cell.method == Depth.name and "depth" not in options:
        last = len(depths(cell))

        def at(t: int) -> float:
            return tried(cell, {**options, "depth": t}, out)

        wanted = (last + 1) // 3 if last >= 5 else last + 1
        values = narrow(at, last, max(min(wanted, cell.budget - 1), 1))
        options["depth"], spent = best_depth(values), len(values) - 1
    kind = METHODS.get(cell.method, Method)
    own, settings = divided(cell.method, options)
    start = {name: getattr(settings, name, getattr(own, name, None)) for name in kind.tuned}
    best, _ = climb(
        lambda found: tried(cell, {**options, **found}, out),
        start,
        kind.tuned,
        cell.budget - spent,
    )
    return {**options, **best}


def depths(cell: Cell) -> list[str]:
    """Names of the blocks of a cell's network."""
    options = dict(cell.options)
    model = copy.deepcopy(network(cell.networks[0]))
    model.reset_classifier(2)
    return Blocks(model, options.get("input_size")).names


def blank(cell: Cell, options: dict) -> Result:
    """A cell's result without metric and value."""
    own, settings = divided(cell.method, options)
    train, validation = pictures(cell)
    test = part_of(cell.data, "test", cell.level)
    digest = " ".join(part.fingerprint for part in (train, validation, test))
    kept = {**asdict(replace(settings, seed=cell.seed)), **own.settings()}
    del kept["seed"], kept["device"]
    if kept["input_size"]:
        kept["input_size"] = list(kept["input_size"])
    return Result(
        model=cell.model,
        data=cell.data,
        protocol=f"finetune {cell.method}",
        metric="",
        value=0.0,
        seed=cell.seed,
        settings={"level": cell.level, "size": cell.size, "test": cell.test, **kept},
        weights=fingerprint(cell.networks, weights_sha256),
        network=fingerprint(cell.networks, network_sha256),
        fingerprint=hashlib.sha256(digest.encode()).hexdigest(),
        versions=versions(),
        command=cell.command,
    )


@functools.lru_cache(maxsize=8)
def fingerprint(networks: tuple[str, ...], of: Callable[[nn.Module], str]) -> str:
    """sha256 of the weights of a network, or of what else makes it, or of several joined."""
    each = [of(network(name)) for name in networks]
    return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()


def measure(
    cell: Cell, out: str | Path, *, folder: str | Path | None = None, **more
) -> dict[str, Result]:
    """Results of a cell by metric, top1 on test first; measured unless `out` holds them.

    Settings are chosen on validation, then the network is fine-tuned, then the test part is read.

    Args:
        folder: where the run is left; then it is always run.
        more: arguments of `Finetuner`.
    """
    enough(cell.test, len(part_of(cell.data, "train", cell.level).classes), "--test")
    options = chosen(cell, out)
    result = blank(cell, options)
    known = {r.metric: r for r in read(out) if replace(r, metric="").cell() == result.cell()}
    if "top1" in known and folder is None:
        return {"top1": known.pop("top1"), **known}
    tuned, settings = fit(cell, options, folder, **more)
    test = drawn(part_of(cell.data, "test", cell.level), cell.test, 0)
    metrics = {**scores(*predict(tuned.model, test, settings))}
    metrics |= {"validation_top1": tuned.validation_top1, "epoch": float(tuned.epoch)}
    results = {name: replace(result, metric=name, value=v) for name, v in metrics.items()}
    for one in reversed(results.values()):
        if one.metric not in known:
            append(out, one)
    return results


def cells(
    models: Sequence[str],
    data: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    options: tuple = (),
    level: str = "fine",
    **more,
) -> list[Cell]:
    """Every combination, once.

    Args:
        options: settings of the loop or of methods; one written METHOD.NAME is of that alone.

    Raises:
        LookupError: for an unknown network, data set, label level, method or setting.
        OSError: for a folder of pictures that is not there.
        ValueError: for one network in two stages, several to a depth, or a value of another type.
    """
    models, data, methods, seeds = map(dict.fromkeys, (models, data, methods, seeds))
    for name in methods:
        if name != TWO_STAGE:
            method(name)
    if TWO_STAGE in methods and (alone := [name for name in models if "+" not in name]):
        raise ValueError(f"two-stage joins networks, as in {alone[0]}+{alone[0]}: name two or more")
    if "depth" in methods:
        if joined := [name for name in models if "+" in name]:
            raise ValueError(f"depths are of one network, and {joined[0]} are several joined")
        known = {name.removeprefix("depth.") for name, _ in options}
        if "depth" not in known and more.get("budget", 1) < 2:
            raise ValueError(
                "--method depth needs to know how deep: --set depth=2, or --budget 6 to look for "
                "it; vcr-zoo depth MODEL --data NAME shows all depths"
            )
    own = {way: belong(way, methods, options) for way in methods}
    for name in data:
        row_with(name, level)
    wanted = [
        Cell(model, name, way, seed, own[way], level, **more)
        for model in models
        for name in data
        for way in methods
        for seed in seeds
    ]
    tuning = [replace(cell, seed=0) for cell in wanted if cell.budget > 1]
    for name in dict.fromkeys(name for cell in (*wanted, *tuning) for name in cell.networks):
        find_model(name)
    return wanted


def run(
    wanted: Sequence[Cell], out: str | Path, **more
) -> Iterator[tuple[Cell, dict[str, Result] | Exception]]:
    """`measure` every cell; one cell's failure does not stop the others."""
    for cell in wanted:
        try:
            yield cell, measure(cell, out, **more)
        except (LookupError, ValueError, OSError, ImportError, ArithmeticError) as error:
            yield cell, error
        except (RuntimeError, AssertionError, TypeError) as error:  # of torch and timm: memory, say
            log.debug("%s", cell, exc_info=True)
            yield cell, error


def table(
    measured: dict[Cell, dict[str, Result]], first: str = "full", against: str | None = None
) -> str:
    """Mean test accuracy over seeds in percent, how many they are, and paired differences, of fewer
    where it is said; without an interval where one side was one pretraining run and the other
    several. Networks of one run each are compared over draws of pictures, which is said.

    Args:
        first: the method that others of the same network are compared with.
        against: the network that others are compared with instead, by the same method.
    """
    keys = dict.fromkeys((c.model, c.data, c.method) for c in measured)
    drawn = against and not any("{seed}" in name for name, *_ in keys)
    minus = f"minus {against or first} [95 %{' over draws, of one pretraining run' * bool(drawn)}]"
    lines = [["model", "data", "method", "test top1", "seeds", minus]]
    for name, data, way in keys:
        mine = by_seed(measured, name, data, way)
        other = (against, data, way) if against else (name, data, first)
        base = by_seed(measured, *other) if other != (name, data, way) else {}
        gaps = [mine[s] - base[s] for s in mine if s in base]
        some = f" of {len(gaps)}" if gaps and len(gaps) < len(mine) else ""
        if gaps and ("{seed}" in name) != ("{seed}" in other[0]):
            gaps = [fmean(gaps)]
        gap = f"{paired(gaps).scaled(100)}{some}" if gaps else ""
        top1 = f"{100 * fmean(mine.values()):.2f}"
        lines.append([name, data, way, top1, str(len(mine)), gap])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def by_seed(measured, model: str, data: str, way: str) -> dict[int, float]:
    return {
        cell.seed: results["top1"].value
        for cell, results in measured.items()
        if (cell.model, cell.data, cell.method) == (model, data, way)
    }
