"""How much each feature varies: what VCR's variance term looks at."""

from torch import Tensor

from .moments import Moments

DEAD = 0.01  # of the root mean square deviation: a feature that varies less is dead


def deviations(m: Moments) -> Tensor:
    """Standard deviation of each feature: (d,)."""
    return m.covariance.diagonal().sqrt()


def mean_deviation(m: Moments) -> float:
    """Mean over features of their standard deviation."""
    return deviations(m).mean().item()


def dead_share(m: Moments) -> float:
    """Share of features that hardly vary: below a hundredth of the typical deviation."""
    std = deviations(m)
    return (std <= DEAD * std.square().mean().sqrt()).double().mean().item()


def below_target(m: Moments) -> float:
    """Share of features with a standard deviation below one, which VCR's hinge would widen."""
    return (deviations(m) < 1).double().mean().item()
