"""Settings chosen on validation: many runs of recipes, and what became of each."""

import csv
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from vcr_zoo.card.chosen import chosen_table
from vcr_zoo.data.load import row_of
from vcr_zoo.results import Result
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.training.options import SELF_SUPERVISED

from .confirm import RESULTS as CONFIRMED
from .confirm import tested
from .measure import OWN, PROBE, RESULTS, brief, validated
from .runs import Task, carried_out, each
from .spaces import SPACES, chosen, words
from .surface import Trial, best_setting, draw, marginals, report, shared, standings

PICTURE = "surface.png"
KEY = ("recipe", "options", "seeds", "trial")  # columns that tell the lines of SPACE.csv apart


@dataclass(frozen=True)
class Plan:
    """Recipes, and settings by number to try on each."""

    recipes: tuple[str, ...]
    space: str
    budget: int
    settings: Mapping[int, Mapping]
    folder: Path
    options: tuple[str, ...]  # of training, beside the settings
    choice: tuple = ()  # what a setting is chosen from, as words of the command

    def of(self, recipe: str, number: int = 1) -> Path:
        """Folder of the runs of a recipe; as it stands, trial 0, it is in no space."""
        return self.folder / (f"{recipe}-{self.space}" if number else f"{recipe}-as-it-stands")

    def task(self, recipe: str, number: int, seed: int, command: str) -> Task:
        run = self.of(recipe, number) / f"trial{number}-seed{seed}"
        return Task(recipe, seed, run, command, (*self.options, *words(self.settings[number])))

    def command(self, recipes: Sequence[str], more: Sequence) -> str:
        own = ["--space", self.space, "--budget", str(self.budget), *map(str, more)]
        return shlex.join(["vcr-zoo", "search", *recipes, *own, *self.options])

    def trial(self, recipe: str, number: int, seed: int) -> Task:
        """A network to be measured on validation."""
        command = self.command([recipe], ["--trials", number, "--seeds", seed])
        return self.task(recipe, number, seed, command)

    def confirmation(self, recipe: str, number: int, seed: int) -> Task:
        """A network to be measured on test parts."""
        command = self.command(self.recipes, [*self.choice, "--confirm", seed])
        return self.task(recipe, number, seed, command)


def search(
    recipes: Sequence[str],
    *,
    space: str = "vcr",
    budget: int = 40,
    trials: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    confirm: Sequence[int] = (),
    folder: Path = Path("runs/search"),
    jobs: int = 1,
    options: Sequence[str] = (),
    tell: Callable[[str], None] = tqdm.write,
) -> int:
    """Train recipes with settings spread evenly over a space, and compare them on validation
    pictures; no test part is read before a setting is chosen and to be confirmed.

    The best has the highest mean accuracy of probes on the data sets that are not the source,
    among those whose accuracy on the source is at most half a point below the recipe's own. Of
    several recipes, which all try the same settings, also the one that is best for all together is
    told: by mean gains over each recipe as it stands, losing as little on every source.
    Networks and numbers stay in `folder`, where nothing is trained or measured twice. SPACE.csv
    has all that was tried, chosen.jsonl what was confirmed, which `vcr-zoo card --add` takes.

    Args:
        recipes: of controls, as a rule: trial 0 is a recipe as it stands.
        space: of SPACES.
        budget: trials beside trial 0.
        trials: numbers of the trials to run; all if None.
        seeds: of every trial.
        confirm: seeds to train the best setting with, and the recipe as it stands, and to measure
            both on test parts; of several recipes the setting that is best for all. Other ones
            than `seeds`, which had a part in the choice.
        jobs: networks at a time.
        options: of training, over those of the recipes.
        tell: receives a line for each network, and what was found.

    Returns:
        How many networks could not be trained or measured.

    Raises:
        LookupError: for a recipe or a space that does not exist.
        ValueError: for a budget, trials or seeds that make no sense.
    """
    wanted, seeds = chosen(space, budget, trials), each(seeds, jobs, options)
    if twice := sorted({*seeds} & {*confirm}):
        raise ValueError(f"seed {twice[0]} has a part in the choice: confirm with others")
    recipes = tuple(dict.fromkeys(recipes))
    for recipe in recipes:
        args = parse(["--recipe", recipe, *options])  # refused before any training
        if args.task in SELF_SUPERVISED and "smoothing" in SPACES[space]:
            raise ValueError(f"{recipe} learns without labels, which space {space!r} smooths")
        for data in (args.dataset, *targets(args.dataset)):
            row_of(data)
    if confirm and 0 not in wanted:
        raise ValueError("--confirm compares with the recipe as it stands: add 0 to --trials")
    choice = () if trials is None else ("--trials", *trials)
    plan = Plan(
        recipes, space, budget, wanted, folder, tuple(options), (*choice, "--seeds", *seeds)
    )
    tasks = [plan.trial(recipe, n, s) for recipe in recipes for n in wanted for s in seeds]
    measured, failed = carry_out(tasks, validated, plan, jobs, tell)
    found = {recipe: tried(measured[recipe], plan, recipe, seeds) for recipe in recipes}
    for recipe, known in found.items():
        tell_of(recipe, known, plan, tell)
    write(found, plan, seeds)
    together = shared([*found.values()]) if len(recipes) > 1 else found[recipes[0]]
    if len(recipes) > 1 and together:
        picture = folder / f"{space}.png"
        draw(together, SPACES[space], picture, f"{space}, mean of {len(recipes)} recipes")
        tell(f"\npoints gained, mean of {len(recipes)} recipes; on the source, the least")
        tell(f"{standings(together)}\n\n{marginals(together, SPACES[space])}\n\n{picture}")
    best = best_setting(together)
    if confirm and best:
        tasks = [
            plan.confirmation(recipe, number, seed)
            for recipe in recipes
            for seed in dict.fromkeys(confirm)
            for number in (0, best.number)
        ]
        work = partial(tested, space=space, recipes=recipes, options=plan.options)
        known, lost = carry_out(tasks, work, plan, jobs, tell)
        tell(f"\non test parts\n{chosen_table(r for one in known.values() for r in one)}")
        tell(f"\n{folder / CONFIRMED}")
        failed += lost
    return failed


def carry_out(
    tasks: Sequence[Task],
    work: Callable[[Task], list[Result]],
    plan: Plan,
    jobs: int,
    tell: Callable[[str], None],
) -> tuple[dict[str, list[Result]], int]:
    """What was measured of each recipe, and how many networks failed."""
    measured: dict[str, list[Result]] = {recipe: [] for recipe in plan.recipes}
    failed, bar = 0, tqdm(total=len(tasks), unit="network", disable=jobs == 1)
    for task, outcome in carried_out(tasks, work, jobs):
        bar.update()
        what = " ".join(task.options[len(plan.options) :]) or "as it stands"
        if isinstance(outcome, Exception):
            failed, told = failed + 1, outcome
        else:
            measured[task.name] += outcome
            told = brief(outcome)
        tell(f"{task.name}, {task.run.name} ({what}): {told}")
    bar.close()
    return measured, failed


def tried(results: Sequence[Result], plan: Plan, recipe: str, seeds: Sequence[int]) -> list[Trial]:
    """The trials that were measured with all of the seeds."""
    others, found = targets(parse(["--recipe", recipe, *plan.options]).dataset), []
    for number, settings in plan.settings.items():
        stated = " ".join((*plan.options, *words(settings)))
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


def tell_of(recipe: str, found: Sequence[Trial], plan: Plan, tell: Callable[[str], None]) -> None:
    """What was found for one recipe, in words and as a picture."""
    if left := len(plan.settings) - len(found):
        tell(
            f"{recipe}: {left} of {len(plan.settings)} trials are left out, not measured throughout"
        )
    if found:
        picture = plan.of(recipe) / PICTURE
        draw(found, SPACES[plan.space], picture, f"{recipe}, {plan.space}")
        tell(f"\n{report(found, SPACES[plan.space], recipe, plan.options)}")
        tell(f"\n{picture.parent / RESULTS}, {picture}")


def write(found: Mapping[str, Sequence[Trial]], plan: Plan, seeds: Sequence[int]) -> None:
    """All trials of all recipes, those of earlier searches included, as a table, accuracies as
    means over seeds: SPACE.csv."""
    path, names = plan.folder / f"{plan.space}.csv", list(SPACES[plan.space])
    columns = [*KEY, *names, "source", "others"]
    with path.open(newline="") if path.exists() else io.StringIO() as file:
        old = [row for row in csv.DictReader(file) if [*row] == columns]
    lines = {tuple(row[name] for name in KEY): row for row in old}
    for recipe, trials in found.items():
        for t in trials:
            key = (recipe, shlex.join(plan.options), " ".join(map(str, seeds)), str(t.number))
            setting = [t.settings.get(name, "") for name in names]
            means = [f"{value:.4f}" for value in (t.source, t.others)]
            lines[key] = dict(zip(columns, (*key, *setting, *means), strict=True))
    plan.folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(lines.values())
