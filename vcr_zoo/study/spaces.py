"""What a search may vary, and points spread evenly over it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.quasirandom import SobolEngine

from vcr_zoo.results import closest


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

    def share(self, value: float) -> float:
        """The way from low to high at which a number lies; the other way round than `at`."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)


@dataclass(frozen=True)
class Choice:
    """One of several values; of a single one, what all points have in common."""

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
    "untuned": {  # where "vcr" was best: features scaled first, VCR rising or falling
        "vcr_alpha": Range(0.05, 1, log=True),
        "vcr_beta": Range(0.02, 0.5, log=True),
        "vcr_layers": Choice(("pooled", "stages,pooled")),
        "vcr_schedule": Choice(("constant", "rise", "fall")),
        "vcr_variant": Choice((None, "relative")),
    },
    "share": {  # of the norm of the gradient that passes, instead of coefficients
        "vcr_share": Range(0.01, 3, log=True),
        "vcr_beta": Range(0.1, 10, log=True),
        "vcr_layers": Choice(("pooled", "blocks")),
        "vcr_variant": Choice((None, "relative")),
        "vcr_alpha": Choice((1.0,)),
    },
    "listing": {
        "vcr_alpha": Range(0.03, 30, log=True),
        "vcr_beta": Range(0.001, 1, log=True),
        "vcr_layers": Choice(("pooled", "blocks")),
        "vcr_variant": Choice(("listing",)),
    },
    "control": {  # what regularizes without VCR
        "weight_decay": Range(1e-3, 1.0, log=True),
        "drop": Range(0.0, 0.5),
        "smoothing": Range(0.0, 0.3),
    },
    "decov": {  # arXiv 1511.06068: squared covariances of the last features alone
        "vcr_alpha": Choice((0.0,)),
        "vcr_beta": Range(0.03, 300, log=True),
        "vcr_layers": Choice(("pooled",)),
        "vcr_delta": Choice((0.0,)),
    },
    "correlation": {
        "vcr_variant": Choice(("correlation",)),
        "vcr_alpha": Choice((0.0,)),
        "vcr_beta": Range(0.003, 30, log=True),
        "vcr_layers": Choice(("pooled", "blocks")),
    },
    "wld": {
        "vcr_variant": Choice(("wld",)),
        "vcr_alpha": Choice((0.0,)),
        "vcr_beta": Range(0.003, 30, log=True),
        "vcr_layers": Choice(("pooled",)),
    },
}


def chosen(space: str, budget: int, trials: Sequence[int] | None = None) -> dict[int, dict]:
    """Settings by number: 0 none, then points of Sobol's sequence, scrambled; a larger budget
    begins with the same ones.

    Args:
        trials: numbers of those wanted; all if None.

    Raises:
        LookupError: for a space that does not exist.
        ValueError: for a budget below one, or trials beyond it.
    """
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
    """Settings as options of training; None is an option that is not given."""
    given = ((key, value) for key, value in settings.items() if value is not None)
    return [word for key, value in given for word in (f"--{key.replace('_', '-')}", str(value))]
