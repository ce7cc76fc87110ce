"""One number with its uncertainty, or the reason why there is none: never NaN."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vcr_zoo.results import paired

RESAMPLES = 500


@dataclass(frozen=True)
class Measured:
    """A value and its 95 % interval over pictures; or no value, and `because`, the reason.

    The bounds are None where one number is all there is.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    because: str = ""

    def __post_init__(self):
        for number in (self.value, self.low, self.high):
            assert number is None or math.isfinite(number), self
        assert (self.value is None) == bool(self.because), self

    def __format__(self, spec: str) -> str:
        """Value and bounds, each in `spec` (default .4g), or the reason."""
        if self.value is None:
            return self.because
        spec = spec or ".4g"
        if self.low is None:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)

    def within(self, least: float, most: float) -> "Measured":
        """The same, value and interval, ending where values do."""
        if self.low is None:
            return self
        return Measured(*(min(max(x, least), most) for x in (self.value, self.low, self.high)))

    def record(self) -> dict:
        """For JSON: value, low and high, or the reason alone."""
        if self.value is None:
            return {"undefined": self.because}
        return {"value": self.value, "low": self.low, "high": self.high}


def measured(statistic: Callable[..., float], *given) -> Measured:
    """A statistic's value without an interval, or the reason that it raised as a ValueError."""
    try:
        return checked(statistic(*given))
    except ValueError as error:
        return Measured(None, because=reason(error))


def bootstrapped(values: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Measured:
    """The mean of one number for each picture: (n,) -> its percentile bootstrap interval.

    Where all are equal there is none: that they coincide does not say that others would.
    """
    n = len(values)
    if n == 0:
        return Measured(None, because="undefined because there are no pictures")
    values = values.double().cpu()
    if not values.isfinite().all():
        return Measured(None, because="undefined because a picture's value is not finite")
    if values.min() == values.max():
        return Measured(values[0].item())
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [values[torch.randint(n, (n,), generator=generator)].mean() for _ in range(resamples)]
    )
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Measured(values.mean().item(), low, high)


def mean_of(statistic: Callable[..., Tensor], *given) -> Measured:
    """Mean over pictures with its bootstrap interval, or the reason that it raised."""
    try:
        return bootstrapped(statistic(*given))
    except ValueError as error:
        return Measured(None, because=reason(error))


def jackknifed(
    statistic: Callable[[object], float], whole, without: list, corrected: bool = False
) -> Measured:
    """A statistic of all pictures, with Student's interval from leaving out a part at a time.

    For what pictures that are drawn twice would bias, as a bootstrap draws them: ranks fall and
    kernels find neighbors. Of g equal parts, pseudovalues g T - (g - 1) T_without are as good as
    independent measurements (Tukey, 1958).

    Args:
        statistic: raises a ValueError where it is undefined.
        whole: what it takes, of all pictures.
        without: the same without each part in turn; fewer than two, one for which the statistic is
            undefined, or values that are all the same, and there is no interval.
        corrected: the value is the mean of the pseudovalues, without the part of the bias that
            falls as 1 / n (Quenouille, 1956).
    """
    point = measured(statistic, whole)
    if point.value is None or len(without) < 2:
        return point
    left = [measured(statistic, some).value for some in without]
    if None in left or max(left) - min(left) <= 1e-12 * max(map(abs, left)):
        return point
    g = len(left)
    found = paired(g * point.value - (g - 1) * value for value in left)
    half = (found.high - found.low) / 2
    value = found.mean if corrected else point.value
    return Measured(value, value - half, value + half)


def checked(value: float) -> float | Measured:
    """A Measured of a finite number; else a ValueError."""
    if not math.isfinite(value):
        raise ValueError("undefined because the numbers are too large or too small")
    return Measured(float(value))


def reason(error: ValueError) -> str:
    """An error's words from 'undefined because' on."""
    words = str(error)
    start = words.find("undefined because")
    return words[start:] if start >= 0 else f"undefined because {words}"
