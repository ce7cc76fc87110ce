"""Settings chosen on validation: many runs of one recipe, and what became of each."""

import csv
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch.quasirandom import SobolEngine
from tqdm import tqdm

from vcr_zoo.data import Images, load
from vcr_zoo.diagnostics.style import DPI, plt
from vcr_zoo.features import features, load_model, weights_sha256
from vcr_zoo.results import Result, append, closest, read, versions
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.transfer.probe import choose

from .runs import Task, carried_out, each

RESULTS = "search.jsonl"
PICTURES = 5_000  # that a probe is fitted on at most
STRENGTHS = tuple(10.0**k for k in range(-5, 3))  # values of C
OWN, PROBE = "validation_top1", "probe_validation_top1"  # metrics
SLACK = 0.005  # by which the source's accuracy may fall short of the recipe's own


@dataclass(frozen=True)
class Range:
    """Numbers between two, even in themselves or, if `log`, in their logarithm."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The number at a share of the way, three digits of it."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        value = low + share * (high - low)
        return float(f"{math.exp(value) if self.log else value:.3g}")


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple

    def at(self, share: float):
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


SPACES: dict[str, dict[str, Range | Choice]] = {
    "vcr": {
        "vcr_alpha": Range(0.03, 30, log=True),
        "vcr_beta": Range(0.03, 30, log=True),
        "vcr_layers": Choice(("pooled", "blocks", "stages")),
        "vcr_delta": Choice((1.0, 0.0)),  # a line beyond one, or squares all the way
    },
    "control": {  # what regularizes without VCR
        "weight_decay": Range(1e-3, 1.0, log=True),
        "drop": Range(0.0, 0.5),
        "smoothing": Range(0.0, 0.3),
    },
}


class Trial(NamedTuple):
    """Settings with their validation accuracies, means over seeds."""

    number: int  # 0 is the recipe as it stands
    settings: dict
    source: float  # of its own classifier; of neighbors, where it saw no labels
    others: float  # of probes, mean over the data sets that are not the source


def search(
    recipe: str,
    *,
    space: str = "vcr",
    budget: int = 40,
    trials: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    folder: Path = Path("runs/search"),
    jobs: int = 1,
    options: Sequence[str] = (),
    tell: Callable[[str], None] = tqdm.write,
) -> int:
    """Train a recipe with settings spread evenly over a space (Sobol's sequence, scrambled), and
    compare them on validation pictures; no test part is read.

    The best has the highest mean accuracy of probes on the data sets that are not the source,
    among those whose accuracy on the source is at most half a point below the recipe's own.
    Everything is written to search.jsonl of `folder`; what is there is not measured again.

    Args:
        recipe: the control's, as a rule: trial 0 is the recipe as it stands.
        space: of SPACES.
        budget: trials beside trial 0.
        trials: numbers of the trials to run; all if None.
        seeds: of every trial.
        jobs: networks at a time.
        options: of training, over those of the recipe.
        tell: receives a line for each network, and what was found.

    Returns:
        How many networks could not be trained or measured.

    Raises:
        LookupError: for a recipe or a space that does not exist.
        ValueError: for a budget or trials that make no sense.
    """
    wanted, seeds = chosen(space, budget, trials), each(seeds, jobs, options)
    parse(["--recipe", recipe, *options])  # refused before anything is trained
    folder = folder / f"{recipe}-{space}"
    tasks = [
        Task(
            recipe,
            seed,
            folder / f"trial{number}-seed{seed}",
            command(recipe, space, budget, number, seed, options),
            (*options, *words(settings)),
        )
        for number, settings in wanted.items()
        for seed in seeds
    ]
    failed, bar = 0, tqdm(total=len(tasks), unit="network", disable=jobs == 1)
    for task, outcome in carried_out(tasks, validated, jobs):
        bar.update()
        failed += isinstance(outcome, Exception)
        what = " ".join(task.options[len(options) :]) or "as it stands"
        told = outcome if isinstance(outcome, Exception) else brief(outcome)
        tell(f"{task.run.name} ({what}): {told}")
    bar.close()
    found = tried(read(folder / RESULTS), wanted, seeds, recipe, options)
    if left := len(wanted) - len(found):
        tell(f"{left} of {len(wanted)} trials are left out: not all of their seeds were measured")
    if found:
        draw(found, SPACES[space], folder / "surface.png", f"{recipe}, {space}")
        tell(f"\n{report(found, recipe, options)}\n\n{folder / RESULTS}, {folder / 'surface.png'}")
    return failed


def chosen(space: str, budget: int, trials: Sequence[int] | None) -> dict[int, dict]:
    """Settings by number: 0 none, then the points of the sequence."""
    if space not in SPACES:
        raise LookupError(f"no space {space!r}.{closest(space, SPACES)} There are {list(SPACES)}")
    if budget < 1:
        raise ValueError(f"--budget {budget}: try at least one setting")
    points = SobolEngine(len(SPACES[space]), scramble=True, seed=0).draw(budget).tolist()
    kinds, known = SPACES[space].items(), {0: {}}
    for number, point in enumerate(points, start=1):
        known[number] = {name: kind.at(x) for (name, kind), x in zip(kinds, point, strict=True)}
    if unknown := sorted(set(trials or ()) - set(known)):
        raise ValueError(f"there is no trial {unknown[0]}: with --budget {budget}, 0 to {budget}")
    return {number: known[number] for number in (known if trials is None else trials)}


def words(settings: Mapping) -> list[str]:
    """Settings as options of training."""
    return [word for key, v in settings.items() for word in (f"--{key.replace('_', '-')}", str(v))]


def command(recipe, space: str, budget: int, number: int, seed: int, options) -> str:
    own = ["--space", space, "--budget", budget, "--trials", number, "--seeds", seed]
    return shlex.join(["vcr-zoo", "search", recipe, *map(str, own), *options])


def validated(task: Task) -> list[Result]:
    """Validation accuracies of a network on its source, by its own classifier, and of probes on the
    source and on other data sets."""
    path, source = task.run.parent / RESULTS, task.arguments.dataset
    model = load_model(task.run)
    options = {"options": " ".join(task.options)}
    own = Result(task.name, source, "search", OWN, 0.0, task.seed, options)
    own = replace(own, weights=weights_sha256(model), versions=versions(), command=task.command)
    settings = {**options, "pictures": PICTURES, "C": list(STRENGTHS)}
    probes = [
        replace(own, data=data, metric=PROBE, settings=settings)
        for data in (*targets(source), source)
    ]
    known, found = {r.cell(): r for r in read(path)}, []
    for one in (own, *probes):
        if one.cell() not in known:
            value = last_accuracy(task.run) if one is own else probed(model, one.data)
            one = replace(one, value=value)
            append(path, one)
        found.append(known.get(one.cell(), one))
    return found


def probed(model, data: str) -> float:
    """Validation accuracy of a probe fitted on train pictures, of the C that is best there."""
    train, validation = some(load(data, "train")), load(data, "validation")
    known = (features(model, part) for part in (train, validation))
    return choose(*known, strengths=STRENGTHS)[1]["validation_top1"]


def some(images: Images) -> Images:
    """PICTURES of them at most, the same each time."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:PICTURES])


def last_accuracy(run: Path) -> float:
    """Of the last epoch, on validation pictures."""
    with (run / "summary.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["eval_top1"]) / 100


def brief(results: Sequence[Result]) -> str:
    source, *probes, probe = results
    shown = f"source {100 * source.value:.2f}, its probe {100 * probe.value:.2f}, others "
    return shown + f"{100 * fmean(r.value for r in probes):.2f}"


def tried(
    results: Sequence[Result],
    wanted: Mapping[int, dict],
    seeds: Sequence[int],
    recipe: str,
    options: Sequence[str],
) -> list[Trial]:
    """The trials that were measured with all of the seeds."""
    others, found = targets(parse(["--recipe", recipe, *options]).dataset), []
    for number, settings in wanted.items():
        stated = " ".join((*options, *words(settings)))
        mine = {  # of what was measured twice, the latest
            (r.metric, r.data, r.seed): r.value
            for r in results
            if r.settings["options"] == stated and r.seed in seeds
        }
        own = [value for (metric, *_), value in mine.items() if metric == OWN]
        probes = [v for (metric, data, _), v in mine.items() if metric == PROBE and data in others]
        if (len(own), len(probes)) == (len(seeds), len(seeds) * len(others)):
            found.append(Trial(number, settings, fmean(own), fmean(probes)))
    return found


def best_of(found: Sequence[Trial]) -> Trial:
    """The trial with the best mean on other data sets that is good enough on the source."""
    floor = next((t.source for t in found if t.number == 0), 0.0) - SLACK
    return max((t for t in found if t.source >= floor), key=lambda t: t.others)


def report(found: Sequence[Trial], recipe: str, options=(), shown: int = 8) -> str:
    """The best trials, the recipe as it stands, and what to type for the best."""
    best, start = best_of(found), next((t for t in found if t.number == 0), None)
    ranked = sorted(found, key=lambda t: -t.others)[:shown]
    shown_too = [t for t in (best, start) if t and t not in ranked]
    lines = ["trial  others  source  settings"]
    for one in (*ranked, *shown_too):
        what = " ".join(words(one.settings)) or "as it stands"
        row = f"{one.number:5}  {100 * one.others:6.2f}  {100 * one.source:6.2f}  {what}"
        lines.append(f"{row} <- best" if one is best else row)
    again = shlex.join(["vcr-zoo", "train", "--recipe", recipe, *options, *words(best.settings)])
    return "\n".join([*lines, "", f"of {len(found)} trials, by validation: {again}"])


def draw(found: Sequence[Trial], space: Mapping, path: Path, title: str) -> None:
    """The response surface: the first two numbers of a space as axes, a panel for each value of its
    first choice, the gain over the recipe as it stands as colour. Crosses lost too much on the
    source; the best is ringed."""
    x, y = [name for name, kind in space.items() if isinstance(kind, Range)][:2]
    split = next((name for name, kind in space.items() if isinstance(kind, Choice)), None)
    panels = space[split].values if split else (None,)
    start = next((t for t in found if t.number == 0), None)
    zero = start.others if start else fmean(t.others for t in found)
    trials = [t for t in found if t.number]
    most = max((abs(t.others - zero) for t in trials), default=0) * 100 or 1
    floor, best = (start.source if start else 0) - SLACK, best_of(found)
    size = (1.5 + 3.4 * len(panels), 3.6)
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    look = {"cmap": "PuOr_r", "vmin": -most, "vmax": most, "edgecolors": "black", "linewidths": 0.5}
    for panel, one in zip(axes[0], panels, strict=True):
        for marker, fits in (("o", True), ("X", False)):
            shown = [t for t in trials if split is None or t.settings[split] == one]
            shown = [t for t in shown if (t.source >= floor) == fits]
            drawn = panel.scatter(
                [t.settings[x] for t in shown],
                [t.settings[y] for t in shown],
                c=[100 * (t.others - zero) for t in shown],
                marker=marker,
                s=60,
                **look,
            )
        if best.number and (split is None or best.settings[split] == one):
            at = best.settings[x], best.settings[y]
            panel.scatter(*at, s=220, facecolors="none", edgecolors="black")
        for axis, one_range in (("x", space[x]), ("y", space[y])):
            panel.set(**{f"{axis}lim": (one_range.low, one_range.high)})  # some panels are empty
            if one_range.log:
                panel.set(**{f"{axis}scale": "log"})
        panel.set(xlabel=x, title=str(one) if split else "")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel(y)
    figure.colorbar(drawn, ax=axes[0].tolist(), label="points above the recipe, other sets")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
