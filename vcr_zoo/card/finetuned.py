"""What the weights are worth fine-tuned on other sets, beside their controls and no pretraining."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from vcr_zoo.results import Interval, Result, paired
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.training.options import recipes

from .bearing import SEEDS
from .gains import declared
from .words import code, rows

FULL, SCRATCH = "finetune full", "finetune scratch"  # protocols
Runs = dict[tuple[str, int], float]  # (data, seed) -> test accuracy, the latest measured


class Start(NamedTuple):
    """One network fine-tuned on other sets from three starts: means over sets and seeds."""

    vcr: str
    pictures: int | None  # train pictures of each set; None: all
    values: tuple[float, float, float]  # from random weights, the control's, those of VCR
    over_scratch: Interval  # VCR less no pretraining, paired by seed
    over_control: Interval


def starts(results: Iterable[Result]) -> list[Start]:
    """Every pair of which all sets that are not the source were measured, from all starts, with
    the same five seeds or more."""
    results = tuple(results)
    found: dict[tuple, Runs] = defaultdict(dict)
    for r in results:
        if r.protocol in (FULL, SCRATCH) and r.metric == "top1":
            study = (r.settings["size"], r.settings["test"], r.settings["level"])
            found[r.protocol, r.model, study][r.data, r.seed] = r.value
    made = []
    for vcr, control in declared(results).items():
        sets = targets(parse(["--recipe", vcr]).dataset) if vcr in recipes() else ()
        for study in {key[2]: None for key in found if key[1] == vcr}:
            arms = [found.get((SCRATCH, control, study), {})]  # whose weights it does not see
            arms += [found.get((FULL, name, study), {}) for name in (control, vcr)]
            means = [over_sets(runs, sets) for runs in arms]
            seeds = set.intersection(*map(set, means))
            if len(seeds) < SEEDS:
                continue
            scratch, other, ours = ([mean[s] for s in sorted(seeds)] for mean in means)
            made.append(
                Start(
                    *(vcr, study[0], tuple(map(fmean, (scratch, other, ours)))),
                    paired(a - b for a, b in zip(ours, scratch, strict=True)),
                    paired(a - b for a, b in zip(ours, other, strict=True)),
                )
            )
    return made


def over_sets(runs: Runs, sets: Iterable[str]) -> dict[int, float]:
    """By seed, the mean over sets of those that have all of them."""
    by_seed = {seed: [runs.get((data, seed)) for data in sets] for _, seed in runs}
    return {s: fmean(values) for s, values in by_seed.items() if values and None not in values}


def finetuned_table(results: Iterable[Result]) -> str:
    """A line for each pair: three accuracies, and VCR's gains over the other two."""
    body = [
        [
            code(one.vcr),
            "all" if one.pictures is None else str(one.pictures),
            *(f"{100 * value:.2f} %" for value in one.values),
            str(one.over_scratch.scaled(100)),
            str(one.over_control.scaled(100)),
        ]
        for one in starts(results)
    ]
    starting = ["from scratch", "from the control", "from VCR"]
    head = ["weights", "pictures", *starting, "VCR over scratch", "VCR over control"]
    return rows(head, body) if body else "(None yet.)"
