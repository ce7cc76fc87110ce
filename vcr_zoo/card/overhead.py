"""What VCR adds to a training step, over processes: README's table, and the method's longer one."""

from collections.abc import Iterable
from statistics import fmean

from vcr_zoo.results import Result, paired

from .bearing import steps
from .gains import SEEDS
from .words import rows

ARMS = {
    "sampled": "default",
    "exact": "all samples",
    "naive": "as autograd does it",
    "batchnorm": "a BatchNorm instead",
}
ALSO = {  # of the longer table: (metric, arm) -> column
    ("memory", "sampled"): "memory, default",
    ("memory", "exact"): "memory, all",
    ("cosine", "sampled"): "cosine, one step",
    ("cosine_of_mean", "sampled"): "cosine, mean of 16",
}


def overhead_table(results: Iterable[Result], also: bool = False) -> str:
    """Steps as multiples of the plain one, mean over five processes or more with its interval.

    Args:
        also: with memory, and how the sampled gradient lies to the exact one.
    """
    results = tuple(results)
    times = steps(results)
    others = {metric: steps(results, metric) for metric, _ in ALSO} if also else {}
    lines = []
    for label, arms in times.items():
        if all(len(arms.get(arm, ())) >= SEEDS for arm in ARMS):
            line = [label, *(multiple(arms[arm].values()) for arm in ARMS)]
            for metric, arm in ALSO if also else ():
                found = others[metric].get(label, {}).get(arm, {})
                line.append(f"{fmean(found.values()):.3f}" if len(found) >= SEEDS else "")
            lines.append(line)
    if not lines:
        return "(None yet.)"
    head = ["a training step, as a multiple of the plain one", *ARMS.values()]
    head += ALSO.values() if also else []
    return rows(head, lines)


def multiple(ratios: Iterable[float]) -> str:
    """1.04 [1.02, 1.06]"""
    found = paired(ratios)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
