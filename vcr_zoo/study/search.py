"""Settings chosen on validation: many runs of recipes, and what became of each."""

import csv
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm

from vcr_zoo.data import Images, load
from vcr_zoo.data.load import row_of
from vcr_zoo.features import features, load_model, weights_sha256
from vcr_zoo.results import Result, append, read, versions
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.training.options import SELF_SUPERVISED
from vcr_zoo.transfer.probe import choose

from .runs import Task, carried_out, each
from .spaces import SPACES, chosen, words
from .surface import Trial, draw, marginals, report, shared, standings

RESULTS, PICTURE = "search.jsonl", "surface.png"
PICTURES = 5_000  # that a probe is fitted on at most
STRENGTHS = tuple(10.0**k for k in range(-5, 3))  # values of C
OWN, PROBE = "validation_top1", "probe_validation_top1"  # metrics


def search(
    recipes: Sequence[str],
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
    """Train recipes with settings spread evenly over a space, and compare them on validation
    pictures; no test part is read.

    The best has the highest mean accuracy of probes on the data sets that are not the source,
    among those whose accuracy on the source is at most half a point below the recipe's own. Of
    several recipes, which all try the same settings, also the one that is best for all together is
    told: by mean gains over each recipe as it stands, losing as little on every source.
    Everything is written to search.jsonl of `folder`; what is there is not measured again.

    Args:
        recipes: of controls, as a rule: trial 0 is a recipe as it stands.
        space: of SPACES.
        budget: trials beside trial 0.
        trials: numbers of the trials to run; all if None.
        seeds: of every trial.
        jobs: networks at a time.
        options: of training, over those of the recipes.
        tell: receives a line for each network, and what was found.

    Returns:
        How many networks could not be trained or measured.

    Raises:
        LookupError: for a recipe or a space that does not exist.
        ValueError: for a budget or trials that make no sense.
    """
    wanted, seeds = chosen(space, budget, trials), each(seeds, jobs, options)
    recipes = list(dict.fromkeys(recipes))
    for recipe in recipes:
        args = parse(["--recipe", recipe, *options])  # refused before any training
        dataset = args.dataset
        if args.task in SELF_SUPERVISED and "smoothing" in SPACES[space]:
            raise ValueError(f"{recipe} learns without labels, which space {space!r} smooths")
        for data in (dataset, *targets(dataset)):
            row_of(data)
    tasks = [
        Task(
            recipe,
            seed,
            folder / f"{recipe}-{space}" / f"trial{number}-seed{seed}",
            command(recipe, space, budget, number, seed, options),
            (*options, *words(settings)),
        )
        for recipe in recipes
        for number, settings in wanted.items()
        for seed in seeds
    ]
    measured: dict[str, list[Result]] = {recipe: [] for recipe in recipes}
    failed, bar = 0, tqdm(total=len(tasks), unit="network", disable=jobs == 1)
    for task, outcome in carried_out(tasks, validated, jobs):
        bar.update()
        what = " ".join(task.options[len(options) :]) or "as it stands"
        if isinstance(outcome, Exception):
            failed, told = failed + 1, outcome
        else:
            measured[task.name] += outcome
            told = brief(outcome)
        tell(f"{task.name}, {task.run.name} ({what}): {told}")
    bar.close()
    found = {
        recipe: tried(results, wanted, seeds, recipe, options)
        for recipe, results in measured.items()
    }
    for recipe, trials_of in found.items():
        if left := len(wanted) - len(trials_of):
            tell(f"{recipe}: {left} of {len(wanted)} trials are left out, not measured throughout")
        if trials_of:
            picture = folder / f"{recipe}-{space}" / PICTURE
            draw(trials_of, SPACES[space], picture, f"{recipe}, {space}")
            tell(f"\n{report(trials_of, SPACES[space], recipe, options)}")
            tell(f"\n{picture.parent / RESULTS}, {picture}")
    if len(recipes) > 1 and (together := shared([*found.values()])):
        picture = folder / f"{space}.png"
        draw(together, SPACES[space], picture, f"{space}, mean of {len(recipes)} recipes")
        tell(f"\npoints gained, mean of {len(recipes)} recipes; on the source, the least")
        tell(f"{standings(together)}\n\n{marginals(together, SPACES[space])}\n\n{picture}")
    return failed


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
