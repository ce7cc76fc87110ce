"""Every number that moments give, by name: a new measurement is one more row here."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from . import cdnv, collapse, deviations, ranks, spectrum
from .measured import Measured, jackknifed
from .moments import Moments, Parts


@dataclass(frozen=True)
class Measure:
    """One number: what it is called, what it means, and how it is computed."""

    label: str
    meaning: str
    of: Callable[[Moments], float]
    least: float = 0.0  # value that is possible; intervals end there
    most: float = math.inf
    rank: bool = False  # at most the width, and corrected: few pictures show too few directions


MEASURES = {
    "deviation": Measure(
        "mean standard deviation",
        "the variance term of VCR lifts it to 1",
        deviations.mean_deviation,
    ),
    "below_target": Measure(
        "share below deviation 1",
        "features that the variance term would widen",
        deviations.below_target,
        most=1.0,
    ),
    "dead": Measure(
        "share of dead features",
        "they vary by less than a hundredth of what is typical",
        deviations.dead_share,
        most=1.0,
    ),
    "correlation": Measure(
        "mean absolute correlation",
        "between distinct features; sqrt(2 / (pi n)) for unrelated ones",
        lambda m: spectrum.mean_correlation(m.covariance),
        most=1.0,
    ),
    "effective_rank": Measure(
        "effective rank",
        "exp of the entropy of the covariance's eigenvalues",
        lambda m: spectrum.effective_rank(m.eigenvalues),
        least=1.0,
        rank=True,
    ),
    "rankme": Measure(
        "RankMe",
        "exp of the entropy of the singular values, features not centered",
        lambda m: ranks.rankme(m.second, m.n),
        least=1.0,
        rank=True,
    ),
    "participation": Measure(
        "participation ratio",
        "squared sum of the eigenvalues by the sum of their squares",
        lambda m: ranks.participation_ratio(m.eigenvalues),
        least=1.0,
        rank=True,
    ),
    "stable_rank": Measure(
        "stable rank",
        "sum of the eigenvalues by the largest",
        lambda m: ranks.stable_rank(m.eigenvalues),
        least=1.0,
        rank=True,
    ),
    "cdnv": Measure(
        "CDNV",
        "variance within classes by distance between, corrected for few pictures; 0 is collapse",
        cdnv.cdnv,
    ),
    "nc1": Measure(
        "NC1, within by between",
        "tr(within between⁺) / classes; 0 is collapse",
        collapse.within_between,
    ),
    "equinorm": Measure(
        "NC2, unequal lengths",
        "of centered class means; 0 is collapse",
        collapse.equinorm,
    ),
    "equiangularity": Measure(
        "NC2, unequal angles",
        "of centered class means; 0 is collapse",
        collapse.equiangularity,
    ),
    "maximal_angle": Measure(
        "NC2, distance from a simplex",
        "mean deviation of their cosines from -1 / (classes - 1)",
        collapse.maximal_angle,
    ),
}


def measure(parts: Parts) -> dict[str, Measured]:
    """Every one of MEASURES at a placement, with intervals."""
    whole, without = parts.whole(), parts.without()
    width = len(whole.origin)
    return {
        name: jackknifed(row.of, whole, without, corrected=row.rank).within(
            row.least, width if row.rank else row.most
        )
        for name, row in MEASURES.items()
    }
