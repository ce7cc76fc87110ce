"""What the weights are worth fine-tuned on other sets, beside their controls and no pretraining."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from vcr_zoo.results import Interval, Result, key_of, paired
from vcr_zoo.suite import targets
from vcr_zoo.training import parse
from vcr_zoo.training.options import recipes
from vcr_zoo.transfer.tuned import METHODS

from .evidence import FULL, SCRATCH, budget, run_of
from .gains import PAIR, SEEDS, declared, means, recipe_of
from .words import code, rows

Means = Mapping[int, Result]  # by seed, over the data sets that are not the source


class Start(NamedTuple):
    """Networks fine-tuned on other sets from three starts: means over sets and seeds."""

    vcr: str
    runs: int  # of pretraining: one for each seed, or the same one for all
    settings: dict  # of the training that the pair shares, but for what validation chose
    scratch_epochs: int
    from_scratch: float
    from_control: float
    from_vcr: float
    over_scratch: Interval  # VCR less no pretraining, paired by seed
    over_control: Interval
    first: tuple[Result, ...] = ()  # run of each start


def starts(results: Iterable[Result]) -> list[Start]:
    """Every pair that was fine-tuned alike on all sets that are not its source, beside the same
    network from random weights, for every length that those learned for, if it is no shorter; five
    seeds or more of each. Where each seed has its run, it is the one that was compared as one of
    the pair."""
    results = tuple(results)
    trained = {(r.model, r.seed): r.weights for r in results if r.command.startswith(PAIR)}
    arms: dict[tuple, list[Result]] = defaultdict(list)
    for r in results:
        if r.metric == "top1" and (recipe := run_of(r)):
            name = r.model
            if r.protocol == SCRATCH:  # no weights of it
                name = recipe
            elif name != recipe and r.weights != trained.get((recipe, r.seed)):
                continue
            arms[r.protocol, name, shared_by(r)].append(r)
    made = []
    for vcr, control in declared(results).items():
        sets = targets(parse(["--recipe", vcr]).dataset) if vcr in recipes() else ()
        for model, study in [arm for way, *arm in arms if way == FULL and recipe_of(arm[0]) == vcr]:
            settings = json.loads(study)
            folder, slash, run = model.rpartition("/")
            beside = f"{folder}{slash}{run.replace(vcr, control)}"
            both = [over(sets, arms.get((FULL, name, study), ())) for name in (beside, model)]
            for how in [how for *way, how in arms if way == [SCRATCH, control]]:
                epochs = json.loads(how)["epochs"]
                alike = json.loads(how) == settings | {"epochs": epochs}
                if alike and epochs >= settings["epochs"]:
                    scratch = over(sets, arms[SCRATCH, control, how])
                    one = compared(vcr, settings, epochs, scratch, *both)
                    begun = (SCRATCH, control, how), (FULL, beside, study), (FULL, model, study)
                    if one:
                        made.append(one._replace(first=tuple(arms[arm][0] for arm in begun)))
    return made


def shared_by(result: Result) -> str:
    """The settings of a run that others must have to be compared with it, and with how many runs
    the rest was chosen."""
    return key_of(result.settings | {"budget": budget(result)}, *METHODS["full"].tuned)


def over(sets: Sequence[str], runs: Iterable[Result]) -> Means:
    """By seed, the mean over sets of what was measured last."""
    return {r.seed: r for r in means(runs, sets)} if sets else {}


def compared(
    vcr: str, settings: dict, epochs: int, scratch: Means, control: Means, ours: Means
) -> Start | None:
    """Seeds that saw the same pictures from all three starts, if there are enough."""
    seeds = [
        s
        for s in ours.keys() & control.keys() & scratch.keys()
        if ours[s].fingerprint == control[s].fingerprint == scratch[s].fingerprint
    ]
    if len(seeds) < SEEDS:
        return None
    return Start(
        vcr=vcr,
        runs=len({ours[s].weights for s in seeds}),
        settings=settings,
        scratch_epochs=epochs,
        from_scratch=fmean(scratch[s].value for s in seeds),
        from_control=fmean(control[s].value for s in seeds),
        from_vcr=fmean(ours[s].value for s in seeds),
        over_scratch=paired(ours[s].value - scratch[s].value for s in seeds),
        over_control=paired(ours[s].value - control[s].value for s in seeds),
    )


def finetuned_table(results: Iterable[Result]) -> str:
    """A line for each pair: three accuracies, and VCR's gains over the other two. And one for the
    mean of those that learned as long, if they are at least five."""
    found = starts(results)
    return table_of(found, overall(found)) if found else "(None yet.)"


def table_of(found: Iterable[Start], more: Iterable[list[str]] = ()) -> str:
    """A line for each, and more lines."""
    body = [line(code(one.vcr), str(one.runs), one) for one in found]
    accuracies = ["from scratch", "from the control", "from VCR"]
    gains = ["VCR over scratch", "VCR over control"]
    head = ["weights", "pretraining runs", "pictures of a set", "epochs", *accuracies, *gains]
    return rows(head, [*body, *more])


def line(what: str, runs: str, one: Start) -> list[str]:
    """Cells of a line of the table, accuracies and gains in percent."""
    return [
        what,
        runs,
        "all" if one.settings["size"] is None else str(one.settings["size"]),
        f"{one.settings['epochs']}, {one.scratch_epochs} from scratch",
        *(f"{100 * v:.2f} %" for v in (one.from_scratch, one.from_control, one.from_vcr)),
        str(one.over_scratch.scaled(100)),
        str(one.over_control.scaled(100)),
    ]


def overall(found: Iterable[Start]) -> list[list[str]]:
    """Lines of the means of pairs that learned on as many pictures for as long, each counted once,
    by its line of more pretraining runs."""
    alike: dict[tuple, dict[str, Start]] = defaultdict(dict)
    for one in sorted(found, key=lambda one: one.runs):
        study = one.settings["size"], one.settings["epochs"], one.scratch_epochs
        alike[study][one.vcr] = one
    return [
        line(f"mean of {len(pairs)} pairs, intervals over pairs", "", mean(pairs.values()))
        for pairs in alike.values()
        if len(pairs) >= SEEDS
    ]


def mean(pairs: Collection[Start]) -> Start:
    """Of several pairs, each counted once."""
    first, *_ = pairs
    return first._replace(
        from_scratch=fmean(one.from_scratch for one in pairs),
        from_control=fmean(one.from_control for one in pairs),
        from_vcr=fmean(one.from_vcr for one in pairs),
        over_scratch=paired(one.over_scratch.mean for one in pairs),
        over_control=paired(one.over_control.mean for one in pairs),
    )
