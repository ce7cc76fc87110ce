"""Settings that validation chose, measured on test parts beside the recipe as it stands."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from vcr_zoo.results import Interval, Result, paired
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.training.options import recipes

from .words import code, rows

CHOSEN = "chosen"  # protocol of `vcr-zoo search --confirm`
OWN, PROBE, OTHER = "source_top1", "probe_source_top1", "probe_other_top1"  # its metrics
COLUMNS = {OWN: "source accuracy", PROBE: "linear probe, source", OTHER: "linear probe, other sets"}
VARIED = {  # space -> what was varied in it
    "vcr": "VCR: weights, placement, straight line or not",
    "untuned": "VCR: schedule, features scaled first",
    "share": "VCR as a share of the gradient's norm",
    "listing": "VCR as the circulating listing weighs it",
    "control": "weight decay, dropout, label smoothing",
    "decov": "DeCov ([1511.06068](https://arxiv.org/abs/1511.06068))",
    "wld": "WLD-Reg ([2301.01352](https://arxiv.org/abs/2301.01352))",
    "correlation": "correlations, as Barlow Twins' ([2103.03230](https://arxiv.org/abs/2103.03230))",
}


class Study(NamedTuple):
    """A space searched for a recipe, or for several together."""

    recipe: str
    options: str  # of training, over the recipe's, of all that was tried
    space: str = ""  # none: the recipe as it stands
    recipes: str = ""  # that the setting was chosen for

    @classmethod
    def of(cls, result: Result) -> "Study":
        return cls(result.model, *(result.settings.get(name, "") for name in cls._fields[1:]))


def chosen_table(results: Iterable[Result]) -> str:
    """Gains over the recipe as it stands, paired by seed: a line for each study, by recipe, the
    largest gain on other sets first."""
    found, lines = latest(r for r in results if r.protocol == CHOSEN), []
    for study, chosen in found.items():
        start = found.get(Study(study.recipe, study.options), [])
        gaps = differences(study.recipe, chosen, start) if study.space else {}
        if OTHER in gaps:
            order = (study.recipe, study.options, -gaps[OTHER].mean)
            lines.append((*order, line(study, chosen[0].settings["setting"], gaps)))
    if not lines:
        return "(None yet.)"
    head = ["recipe", "what was varied", "chosen on validation", *COLUMNS.values(), "seeds"]
    return rows(head, [shown for *_, shown in sorted(lines)], right=3)


def latest(results: Iterable[Result]) -> dict[Study, list[Result]]:
    """What was measured of every study, with the setting that it came to last."""
    found: dict[Study, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    last = {}
    for r in results:
        last[Study.of(r)] = setting = r.settings["setting"]
        found[Study.of(r)][setting].append(r)
    return {study: settings[last[study]] for study, settings in found.items()}


def line(study: Study, setting: str, gaps: dict[str, Interval]) -> list[str]:
    many = len(study.recipes.split())
    what = VARIED.get(study.space, study.space) + f"; one for {many} networks" * (many > 1)
    shown = [str(gaps[metric].scaled(100)) if metric in gaps else "" for metric in COLUMNS]
    seeds = str(gaps[OTHER].n)
    recipe = code(f"{study.recipe} {study.options}".strip())
    return [recipe, what, code(setting.replace("--vcr-", "")), *shown, seeds]


def differences(
    recipe: str, chosen: Iterable[Result], start: Iterable[Result]
) -> dict[str, Interval]:
    """By metric, of the seeds that have every data set on both sides; the mean over these sets."""
    others = len(targets(parse(["--recipe", recipe]).dataset)) if recipe in recipes() else 0
    ours, theirs = ({(r.metric, r.data, r.seed): r.value for r in side} for side in (chosen, start))
    gaps: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key in ours.keys() & theirs.keys():
        gaps[key[0]][key[-1]].append(ours[key] - theirs[key])
    found = {}
    for metric, seeds in gaps.items():
        sets = others if metric == OTHER else 1
        if whole := [fmean(each) for each in seeds.values() if len(each) == sets]:
            found[metric] = paired(whole)
    return found
