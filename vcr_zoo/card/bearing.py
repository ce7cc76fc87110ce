"""What bears on a paper's claim: differences over seeds, from the results of several commands."""

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import timm

from vcr_zoo.results import Interval, Result, key_of, paired
from vcr_zoo.training import parse
from vcr_zoo.training.options import SELF_SUPERVISED, continues, recipes
from vcr_zoo.transfer.frozen import Blocks
from vcr_zoo.transfer.search import best_depth as deepest
from vcr_zoo.transfer.several import JOINED, LONG
from vcr_zoo.transfer.tuned import METHODS

from .chosen import CHOSEN, OTHER, differences, latest
from .evidence import DEPTHS, FULL, SCRATCH, budget, curve_of
from .gains import SEEDS, Paired, declared, mean_gain, recipe_of
from .words import POINT

# Protocols of what has no name of its own, but arms that are compared:
JOINT = "concat"  # runs joined
STARVED = "starvation"  # toys
STEP = "bench step"  # time of a training step, a seed being a process
TRIED = {  # protocol, beside those of pairs -> metrics that are asked for
    DEPTHS: ("top1", "validation_top1"),
    FULL: ("top1",),
    SCRATCH: ("top1",),
    "finetune dr-tune": ("top1",),
    "finetune two-stage": ("top1",),
    JOINT: ("top1",),
    STARVED: ("auc",),
    STEP: ("ratio", "memory", "cosine", "cosine_of_mean"),
}


class Row(NamedTuple):
    """One measurement that bears on a claim."""

    label: str
    shown: str
    intervals: tuple[Interval, ...]  # it speaks where all of them do
    sign: int = 1  # of the difference that is claimed; 0: that there is no loss
    speaks: bool = True  # or is shown beside the others

    @classmethod
    def of(cls, label: str, found: Interval, sign: int = 1, shown: str | None = None) -> "Row":
        """A difference, in points unless it is shown otherwise."""
        shown = format(found.scaled(100)) if shown is None else shown
        return cls(label, shown, (found,), sign)

    def sides(self, number: int) -> tuple[bool, bool]:
        """Whether it speaks for the claim and whether against, where a claim has so many intervals
        in all."""
        each = [sides(one.among(number), self.sign) for one in self.intervals]
        return all(one for one, _ in each), all(other for _, other in each)


class Known(NamedTuple):
    """All that was measured."""

    results: tuple[Result, ...]
    pairs: tuple[tuple[Paired, object], ...]  # with the recipe that both were trained by

    @classmethod
    def of(cls, results: Sequence[Result]) -> "Known":
        pairs, results = [], tuple(results)
        for vcr, control in declared(results).items():
            if vcr in recipes():
                recipe = parse(["--recipe", vcr])
                pairs.append((Paired(control, vcr, recipe.dataset, results), recipe))
        return cls(results, tuple(pairs))


def sides(found: Interval, sign: int) -> tuple[bool, bool]:
    """Whether an interval lies on the claimed side of zero, and whether on the other; with sign 0
    whether all of it, or none, loses no more than half a point."""
    if sign == 0:
        return found.low >= -POINT, found.high < -POINT
    low, high = sorted((sign * found.low, sign * found.high))
    return low > 0, high < 0


def pairs(protocol: str, metric: str, on_source: bool, which, sign: int = 1):
    """VCR less control, of every pair whose recipe `which` is true of; of five or more their mean,
    each being one value."""

    def measured(known: Known) -> Iterable[Row]:
        found = []
        for pair, recipe in known.pairs:
            gain = pair.headline(protocol, metric, on_source) if which(recipe) else None
            if gain:
                found.append(gain)
                yield Row.of(pair.vcr, gain.difference, sign, gain.difference_shown)
        if len(found) >= SEEDS:
            mean, label = mean_gain(found), f"mean of {len(found)} pairs"
            row = Row.of(label, mean.difference, shown=mean.difference_shown)
            yield row._replace(speaks=False)

    return measured


def supervised(recipe) -> bool:
    return recipe.task not in SELF_SUPERVISED and not continues(recipe)


def coarse(recipe) -> bool:
    return supervised(recipe) and recipe.label_level == "coarse"


def long_tailed(recipe) -> bool:
    return "_lt" in recipe.dataset


def simclr(recipe) -> bool:
    return recipe.task == "simclr"


def vicreg(recipe) -> bool:
    return recipe.task == "vicreg"


def first_of(model: str) -> str:
    """Of networks joined, the first."""
    return model.partition("+")[0]


def methods(ours: str, theirs: str, of: Callable[[str], str] = str, **own):
    """Test accuracy of one way to fine-tune less that of another, of every network and data set,
    each with what validation chose for it with as many runs, the rest alike but for what only the
    one has; of what was measured twice, the latest.

    Args:
        of: which network the other way was of, by the name of ours.
        own: settings that only our way has, and must have had.
    """
    free = METHODS[theirs].tuned
    chosen = METHODS[ours].tuned if ours in METHODS else free

    def measured(known: Known) -> Iterable[Row]:
        mine, other = (
            [r for r in known.results if (r.protocol, r.metric) == (f"finetune {way}", "top1")]
            for way in (ours, theirs)
        )
        beside, gaps = defaultdict(list), defaultdict(dict)
        for b in other:
            beside[b.model, pictures_of(b)].append(b)
        for a in mine:
            for b in beside[of(a.model), pictures_of(a)]:
                kept = {key: value for key, value in b.settings.items() if key not in free} | own
                if all(a.settings.get(key) == value for key, value in kept.items()):
                    study = (where(a), a.model, budget(a), key_of(a.settings, *free, *chosen))
                    gaps[study][a.seed] = a.value - b.value
        yield from enough({study: [*by_seed.values()] for study, by_seed in gaps.items()})

    return measured


def pictures_of(result: Result) -> tuple[str, int, str, int]:
    """With how many runs its settings were chosen for them."""
    return result.data, result.seed, result.fingerprint, budget(result)


def arms(ours: str, theirs: str):
    """Probe accuracy of one way to use several networks less that of another, of every study."""
    free = () if theirs == LONG else ("long",)  # another long run changes no other arm

    def measured(known: Known) -> Iterable[Row]:
        studies = defaultdict(dict)
        for r in known.results:
            if (r.protocol, r.metric) == (JOINT, "top1"):
                label = f"{r.data}: {joint(r.settings['networks'])}"
                study = (label, key_of(r.settings, "arm", *free))
                studies[study][r.settings["arm"], r.seed] = r.value
        gaps = {
            study: [v - values[theirs, s] for (arm, s), v in values.items() if arm == ours]
            for study, values in studies.items()
            if all((theirs, s) in values for arm, s in values if arm == ours)
        }
        yield from enough(gaps)

    return measured


def members(known: Known) -> Iterable[Row]:
    """Joined VCR networks less joined controls, which are called base_ for vcr_."""
    joined = defaultdict(dict)
    for r in known.results:
        if (r.protocol, r.metric, r.settings.get("arm")) == (JOINT, "top1", JOINED):
            how = key_of(r.settings, "networks", "long")
            joined[r.data, how, tuple(r.settings["networks"])][r.seed] = r.value
    for (data, how, names), values in joined.items():
        controls = tuple(name.replace(".vcr_", ".base_") for name in names)
        theirs = joined.get((data, how, controls), {}) if controls != names else {}
        gaps = [values[s] - theirs[s] for s in values.keys() & theirs.keys()]
        yield from enough({(f"{data}: {joint(names)}",): gaps})


def starved(known: Known) -> Iterable[Row]:
    """How well classes are ranked by the feature that is learned late, VCR less control: it speaks
    for or against the claim where both ways of asking do, which are of the same networks."""
    studies = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for r in known.results:
        if (r.protocol, r.metric) == (STARVED, "auc"):
            study = studies[r.data, key_of(r.settings, "arm", "other")]
            study[r.settings["other"]][r.settings["arm"]][r.seed] = (r.value, r.settings)
    for (toy, _), ways in studies.items():
        gaps, about = {}, {}
        for other, by in ways.items():
            seeds = by["vcr"].keys() & by["control"].keys()
            about = next(iter(by["vcr"].values()))[1]
            gaps[other] = paired(by["vcr"][s][0] - by["control"][s][0] for s in seeds)
        shown = ", ".join(f"{gap.scaled(100)} with the other {way}" for way, gap in gaps.items())
        label = f"{toy}, alpha {about['alpha']:g}, beta {about['beta']:g}"
        if all(gap.n >= SEEDS for gap in gaps.values()):
            yield Row(label, shown, tuple(gaps.values()))


def times_less(known: Known) -> Iterable[Row]:
    """What autograd adds to a step less 5 times what the closed form adds, of all samples. Not
    their ratio, which nothing can be said of where a step is measured to take no longer."""
    for label, arms in steps(known.results).items():
        both = sorted(arms["naive"].keys() & arms["exact"].keys())
        naive, exact = ([arms[arm][s] - 1 for s in both] for arm in ("naive", "exact"))
        yield from enough({(label,): [n - 5 * e for n, e in zip(naive, exact, strict=True)]})


def beside_norm(arm: str):
    """What a BatchNorm adds to a step less what VCR adds."""

    def measured(known: Known) -> Iterable[Row]:
        for label, arms in steps(known.results).items():
            seeds = arms[arm].keys() & arms["batchnorm"].keys()
            gaps = [arms["batchnorm"][s] - arms[arm][s] for s in seeds]
            yield from enough({(label,): gaps}, sign=0)

    return measured


def steps(
    results: Iterable[Result], metric: str = "ratio"
) -> dict[str, dict[str, dict[int, float]]]:
    """What a benchmark's processes found, by what was timed, arm and process."""
    found = defaultdict(lambda: defaultdict(dict))
    for r in results:
        plainly = r.settings.keys() <= {"arm"}  # VCR as it is, of no variant
        if (r.protocol, r.metric) == (STEP, metric) and plainly:
            found[r.data][r.settings["arm"]][r.seed] = r.value
    return found


def joint(networks: Iterable[str]) -> str:
    """Several networks, by the names of their folders."""
    return " + ".join(Path(name).name for name in networks)


def enough(gaps: dict[tuple, list[float]], sign: int = 1) -> Iterable[Row]:
    """A row for each list of differences, where there are seeds enough."""
    for (label, *_), values in gaps.items():
        if len(values) >= SEEDS:
            yield Row.of(label, paired(values), sign)


def beside(rival: str):
    """Probes of other sets after VCR less those after another penalty, each with what validation
    chose for it, of every recipe that both were searched for."""

    def measured(known: Known) -> Iterable[Row]:
        found = latest(r for r in known.results if r.protocol == CHOSEN)
        for study in [study for study in found if study.space == "vcr"]:
            theirs = found.get(study._replace(space=rival), ())
            gap = differences(study.recipe, found[study], theirs).get(OTHER)
            if gap and gap.n >= SEEDS:
                yield Row.of(f"{study.recipe} {study.options}".strip(), gap)

    return measured


Curve = dict[int, dict[int, dict[str, float]]]  # depth -> seed -> metric -> value


def curves(known: Known) -> dict[tuple, dict[int, tuple[str, Curve]]]:
    """What `vcr-zoo depth` measured, study by study: number of pictures -> its name and curve."""
    found: dict = defaultdict(dict)
    for r in known.results:
        if r.protocol == DEPTHS:
            study = (r.model, r.data, curve_of(r))
            size = r.settings["size"] or sys.maxsize  # all pictures
            _, curve = found[study].setdefault(size, (where(r), {}))
            seeds = curve.setdefault(r.settings["depth"], {})
            seeds.setdefault(r.seed, {})[r.metric] = r.value
    return found


def best_depth(curve: Curve, seed: int) -> int:
    """The depth that validation likes best, of one seed; of equals the deepest."""
    return deepest({depth: seeds[seed]["validation_top1"] for depth, seeds in curve.items()})


def complete(curve: Curve) -> list[int]:
    """Seeds that every depth was tried with."""
    return sorted(set.intersection(*(set(seeds) for seeds in curve.values())))


@functools.cache
def blocks_of(model: str) -> int:
    """How many blocks a network has, which is the depth that freezes all of them."""
    architecture = recipe_of(model).partition(".")[0]
    return len(Blocks(timm.create_model(architecture, num_classes=2)))


def chosen_depth(frozen: bool):
    """Test accuracy at the depth that validation chose, less that with every block frozen, or
    with none, where that was measured. Where every seed chose that end, that is said and no
    more."""

    def measured(known: Known) -> Iterable[Row]:
        for (model, *_), study in curves(known).items():
            end = blocks_of(model) if frozen else 0
            for label, curve in (one for one in study.values() if end in one[1]):
                best = {seed: best_depth(curve, seed) for seed in complete(curve)}
                gaps = [curve[d][s]["top1"] - curve[end][s]["top1"] for s, d in best.items()]
                said = f"no difference: all {len(gaps)} seeds chose depth {end}"
                for row in enough({(label,): gaps}):
                    chose_end = set(best.values()) == {end}
                    yield row._replace(shown=said, speaks=False) if chose_end else row

    return measured


def deeper_with_less(known: Known) -> Iterable[Row]:
    """The chosen depth with the fewest pictures less that with the most, in blocks. It does not
    speak: a choice among few pictures is noisier, and noise alone moves it away from depth 0."""
    for (model, data, _), study in curves(known).items():
        (_, few), (_, many) = study[min(study)], study[max(study)]
        seeds = [s for s in complete(few) if s in complete(many)]
        if len(study) > 1 and len(seeds) >= SEEDS:
            gap = paired(best_depth(few, s) - best_depth(many, s) for s in seeds)
            row = Row.of(f"{model} on {data}", gap, shown=f"{gap} blocks")
            yield row._replace(speaks=False)


def where(result: Result) -> str:
    size, networks = result.settings.get("size"), joint(result.model.split("+"))
    return f"{networks} on {f'{size} pictures of ' if size else ''}{result.data}"
