"""What `vcr-zoo finetune` and `vcr-zoo depth` do with their arguments."""

import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from vcr_zoo.features import resized
from vcr_zoo.results import read

from .depth import Scratch, draw, likeness
from .finetune import Finetuner, settings_from
from .search import best_depth, narrow
from .tuned import (
    LOOP,
    Cell,
    belong,
    cells,
    chosen,
    depths,
    drawn,
    measure,
    network,
    part_of,
    pictures,
    run,
    table,
)

FEWEST = 100  # pictures on which likeness is worth looking at
FEW_UPDATES = 100  # fewer are worth a word


def options_of(words: Sequence[str], given: dict) -> tuple[tuple[str, object], ...]:
    """Settings from NAME=VALUE words and from options that were given.

    Raises:
        ValueError: for a word without a value.
    """
    found = {name: value for name, value in given.items() if value is not None}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--set {word}: expected NAME=VALUE, as in lr=1e-3")
        try:
            value = float(text)
            value = int(value) if value.is_integer() and "." not in text else value
        except ValueError:
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ValueError(
                    f"--set {word}: {text!r} is no value; quote a list with spaces, as in "
                    "'input_size=[3, 64, 64]'"
                ) from None
        owner, dot, short = name.rpartition(".")
        key = owner + dot + short.replace("-", "_")
        found[key] = tuple(value) if isinstance(value, list) else value
    return tuple(sorted(found.items()))


def finetune(
    models: Sequence[str],
    data: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    against: str | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    **more,
) -> int:
    """Measure every combination and print the table; how many failed.

    Args:
        against: a network to measure too, which others are compared with instead of methods.
        folder: keeps each run, in NETWORK-DATA-METHOD-SEED below it or, of one run, in itself.
        more: fields of every `Cell`.
    """
    if overwrite and folder is None:
        raise ValueError("--overwrite begins again in --folder, which was not given")
    if against and set(models) == {against}:
        raise ValueError(f"--against {against}: name another network, to be compared with it")
    models = [*models, *([against] if against else [])]
    wanted = cells(models, data, methods, seeds, **more)
    measured, failed, told = {}, 0, set()
    held = {r.cell() for r in read(out)}
    for number, cell in enumerate(wanted, start=1):
        name = f"{cell.model} on {cell.data}, {cell.method}, seed {cell.seed}"
        options = {"progress": sys.stderr.isatty(), "overwrite": overwrite}
        if folder is not None:
            options["folder"] = kept = place(folder, cell, len(wanted))
        ((_, results),) = run([cell], out, **options)
        if isinstance(results, Exception):
            failed += 1
            print(f"{name}: {results}", file=sys.stderr)
            continue
        measured[cell] = results
        if (counted := counts(cell, results["top1"].settings)) not in told:
            told.add(counted)
            print(counted)
        shown = f"test top1 {100 * results['top1'].value:.2f} %"
        if known := results.get("validation_top1"):
            shown = f"validation {100 * known.value:.2f} %, {shown}"
        again = folder is None and results["top1"].cell() in held
        print(
            f"{number}/{len(wanted)}  {name}: {shown}{f', as in {out}' if again else ''}",
            flush=True,
        )
        if folder is not None:
            ours = "import timm, vcr_zoo; " if len(cell.networks) > 1 else ""
            print(f"{ours}timm.create_model('local-dir:{kept}', pretrained=True)")
            print(f"vcr-zoo predict {shlex.quote(str(kept))} PICTURE")
    if len(measured) > 1:
        first = "full" if "full" in methods else methods[0]
        print(f"\n{table(measured, first, against)}")
    lost = measured and not folder
    if Path(out).exists():
        print(f"\n{out}{'; with --folder, the networks are kept too' if lost else ''}")
    return failed


def counts(cell: Cell, settings: dict) -> str:
    """How many pictures teach, choose and test, and how many steps that makes; if few, that too."""
    train, validation = (len(images) for images in pictures(cell))
    test = len(drawn(part_of(cell.data, "test", cell.level), cell.test, 0))
    steps = max(train // settings["batch_size"], 1)  # what is left over waits for the next epoch
    updates = steps * settings["epochs"]
    told = (
        f"{cell.data}: {train} train, {validation} validation, {test} test pictures; "
        f"{steps} step{'s' * (steps > 1)} in each of {settings['epochs']} epochs"
    )
    if updates < FEW_UPDATES:
        told += f"\n{updates} updates are few: take more --epochs or a smaller --batch-size"
    return told


def place(folder: str | Path, cell: Cell, count: int) -> Path:
    """Folder of a run."""
    if count == 1:
        return Path(folder)
    name = f"{'+'.join(cell.networks)}-{cell.data}-{cell.method}-{cell.seed}"
    return Path(folder) / "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name)


def depth(
    model: str,
    data: str,
    sizes: Sequence[int | None],
    seeds: Sequence[int],
    out: str | Path,
    *,
    picture: str | Path,
    options: tuple = (),
    search: bool = False,
    alike: bool = True,
    **more,
) -> None:
    """Sweep depths (or search them), draw the curves, and print what to do.

    The depth of each size is the one with the highest validation accuracy, mean over seeds. Test
    accuracies are drawn, and how much the choice lost against the best depth on test is said.

    Args:
        more: level, test and budget of every `Cell`.
    """
    if "depth" in dict(options):
        raise ValueError("depth=... is what this command looks for: leave it out of --set")
    if "+" in model:
        raise ValueError(f"depths are of one network, and {model} are several joined")
    options = belong("depth", ["depth"], options)
    sizes, seeds = list(dict.fromkeys(sizes)), list(dict.fromkeys(seeds))
    for size in sizes:  # refused before any is measured
        pictures(Cell(model, data, size=size, **more))
    names = depths(Cell(model, data, seed=seeds[0], options=options))
    curves, choice = {}, {}
    for size in sizes:
        label = f"{size} pictures" if size else "all pictures"
        template = Cell(model, data, "depth", options=options, size=size, **more)
        test: dict[int, list[float]] = {}
        at = partial(measured_at, template, seeds, out, test)
        means = narrow(at, len(names)) if search else {t: at(t) for t in range(len(names) + 1)}
        if not test:
            raise FloatingPointError(f"{label}: no depth could be trained; lower --lr")
        curves[label], choice[label] = test, best_depth(means)
        if ties := [t for t in means if means[t] == means[choice[label]] and t != choice[label]]:
            others = ", ".join(map(str, sorted(ties)))
            print(f"{label}: depths {others} do as well on validation; the deepest costs least")
        print(said(label, test, choice[label], len(names)))
        if not search:
            print(searched(means, len(names)))
    largest = None if None in sizes else max(sizes)
    whole = (*options, ("depth", 0))
    alone = Cell(model, data, "depth", seeds[0], options=whole, size=largest, **more)
    rows = None
    if alike:
        try:
            rows = compared(alone, names, chosen(alone, out))
        except FloatingPointError as error:
            print(f"what the target alone teaches is not drawn: {error}", file=sys.stderr)
    title = f"{model} on {data}"
    draw(curves, choice, names, picture, rows, title)
    label, t = list(choice.items())[-1]
    found = Cell(model, data, "depth", options=(*options, ("depth", t)), size=sizes[-1], **more)
    every = shlex.join(map(str, seeds))
    command = found.command.replace("--seeds 0", f"--seeds {every}", 1)
    print(f"\n{picture}\nUse depth {t} ({frozen_text(t, names)}):\n{command}")


def measured_at(
    template: Cell, seeds: Sequence[int], out: str | Path, test: dict[int, list[float]], t: int
) -> float:
    """Mean validation accuracy at a depth, -1 if training diverged there; accuracies on test go to
    `test`."""
    options = tuple(sorted({**dict(template.options), "depth": t}.items()))
    each = []
    what = f"{template.model} on {template.size or 'all'} pictures of {template.data}, depth {t}"
    for seed in seeds:
        cell = replace(template, seed=seed, options=options)
        try:
            each.append(measure(cell, out, progress=sys.stderr.isatty()))
        except FloatingPointError as error:  # a bad depth, at this rate
            print(f"{what}, seed {seed}: {error}", file=sys.stderr)
            return -1.0
    test[t] = [results["top1"].value for results in each]
    mean = statistics.fmean(results["validation_top1"].value for results in each)
    tested = statistics.fmean(test[t])
    print(f"{what}: validation {100 * mean:.2f} %, test {100 * tested:.2f} %", flush=True)
    return mean


def frozen_text(t: int, names: Sequence[str]) -> str:
    return "nothing frozen" if t == 0 else f"frozen up to the end of {names[t - 1]}"


def said(label: str, test: dict[int, list[float]], t: int, last: int) -> str:
    """What the choice gives on test, against the ends and the best of all."""
    mean = {depth: 100 * statistics.fmean(values) for depth, values in test.items()}
    lines = f"{label}: depth {t} chosen on validation, test {mean[t]:.2f} %"
    for other in (0, last):
        if other in mean and other != t:
            lines += f"; depth {other} {mean[other]:.2f} %"
    best = max(mean, key=mean.get)
    return f"{lines}; best on test is depth {best}, regret {mean[best] - mean[t]:.2f} points"


def searched(means: dict[int, float], last: int) -> str:
    """Whether the search that skips depths would have found the sweep's choice."""
    seen = narrow(means.__getitem__, last)
    found, best = best_depth(seen), best_depth(means)
    verdict = (
        "found it"
        if found == best
        else f"chose {found}, {100 * (means[best] - means[found]):.2f} points lower on validation"
    )
    return (
        f"a search of {len(seen)} of the {last + 1} depths ({', '.join(map(str, seen))}) {verdict}"
    )


def compared(cell: Cell, names: Sequence[str], options: dict) -> dict | None:
    """Likeness, block by block, of a cell's network and one trained on the target alone, as long
    and at the rate of the whole network fine-tuned."""
    train, _ = pictures(cell)
    validation = part_of(cell.data, "validation", cell.level)
    validation = drawn(validation, max(cell.size or 0, 500, len(validation.classes)), 0)
    if len(validation) < FEWEST:
        return None
    source = network(cell.networks[0])
    loop = {name: value for name, value in options.items() if name in LOOP}
    run = Finetuner(source, train, validation, Scratch(), settings_from(loop))
    target, size = run.run().model, run.settings.input_size
    return likeness(resized(source, size), resized(target, size), validation, names)
