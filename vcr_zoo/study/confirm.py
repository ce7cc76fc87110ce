"""What a search chose, measured on test parts with seeds that had no part in the choice."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vcr_zoo.card import chosen
from vcr_zoo.data import load_test
from vcr_zoo.features import features
from vcr_zoo.results import Result
from vcr_zoo.suite import Job, measured, targets
from vcr_zoo.training.options import SELF_SUPERVISED
from vcr_zoo.transfer.probe import probe

from .measure import PROBING, STRENGTHS, filled, known
from .runs import Task

RESULTS = "chosen.jsonl"


def tested(task: Task, space: str, recipes: Sequence[str], options: Sequence[str]) -> list[Result]:
    """Test accuracies of a network on its source, by its own classifier if it has one, and of
    probes on other data sets and on the source, C being chosen on validation.

    Args:
        space, recipes: in which its setting was chosen, and for which.
        options: of training, beside the setting.
    """
    args, setting = task.arguments, " ".join(task.options[len(options) :])
    about = {"setting": setting, "options": " ".join(options)}
    if setting:  # what a recipe is as it stands depends on no search
        about |= {"space": space, "recipes": " ".join(recipes)}
    level = {"level": args.label_level}
    own = Result(task.name, args.dataset, chosen.CHOSEN, chosen.OWN, 0.0, task.seed, about | level)
    first = [own] if args.task not in SELF_SUPERVISED else []
    probes = [
        replace(own, data=data, metric=metric, settings=about | PROBING)
        for metric, names in ((chosen.OTHER, targets(args.dataset)), (chosen.PROBE, [args.dataset]))
        for data in names
    ]

    def value(model: nn.Module, wanted: Result) -> float:
        if wanted.metric == chosen.OWN:
            return measured(Job("eval", args.dataset, args.label_level), str(task.run))[0].value
        parts = (*known(model, wanted.data), features(model, load_test(wanted.data)))
        return probe(*parts, strengths=STRENGTHS)["top1"]

    return filled([*first, *probes], task, task.run.parent.parent / RESULTS, value)
