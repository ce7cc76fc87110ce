"""Count, means and second moments of features, gathered batch by batch in float64.

Everything that a measurement of one pass needs, over any number of pictures: what is kept is of
size (d, d) and (classes, d). `Moments` add up, so batches, parts and processes can be merged.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .spectrum import eigenvalues

PARTS = 10  # of the pictures, each left out once for an interval


@dataclass
class Moments:
    """Of n features (n, d) with labels below `classes`, all relative to `origin`.

    Raw sums of features with a large mean would cancel in the covariance; sums of what is left
    after a typical row is taken away do not.
    """

    origin: Tensor  # (d,): the first batch's mean
    count: Tensor  # (classes,): pictures of each class
    sums: Tensor  # (classes, d): of rows less origin
    squares: Tensor  # (classes,): of their squared lengths
    products: Tensor  # (d, d): of their products

    @classmethod
    def empty(cls, origin: Tensor, classes: int) -> "Moments":
        """Nothing yet, around a row (d,)."""
        d = len(origin)
        origin = origin.double()
        return cls(
            origin,
            origin.new_zeros(classes),
            origin.new_zeros(classes, d),
            origin.new_zeros(classes),
            origin.new_zeros(d, d),
        )

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in features (b, d) of labels (b,).

        Raises:
            ValueError: for features that are not finite.
        """
        x = x.double() - self.origin
        if not x.isfinite().all():
            raise ValueError("undefined because features are not finite")
        for stale in ("covariance", "eigenvalues"):
            self.__dict__.pop(stale, None)
        self.count.index_add_(0, y, x.new_ones(len(y)))
        self.sums.index_add_(0, y, x)
        self.squares.index_add_(0, y, x.square().sum(dim=1))
        self.products.addmm_(x.T, x)

    def __add__(self, other: "Moments") -> "Moments":
        """Both together; they must have the same origin."""
        return self._combined(other, 1)

    def __sub__(self, other: "Moments") -> "Moments":
        """Without some that went in."""
        return self._combined(other, -1)

    def _combined(self, other: "Moments", sign: int) -> "Moments":
        assert torch.equal(self.origin, other.origin), "moments around different rows"
        return Moments(
            self.origin,
            self.count + sign * other.count,
            self.sums + sign * other.sums,
            self.squares + sign * other.squares,
            self.products + sign * other.products,
        )

    @property
    def n(self) -> int:
        return int(self.count.sum())

    @property
    def mean(self) -> Tensor:
        """(d,)"""
        return self.origin + self.sums.sum(dim=0) / self.n

    @cached_property
    def covariance(self) -> Tensor:
        """(d, d), divided by n - 1.

        Raises:
            ValueError: for fewer than two pictures.
        """
        n = self.n
        if n < 2:
            raise ValueError(f"undefined because a covariance needs two pictures, not {n}")
        total = self.sums.sum(dim=0)
        cov = (self.products - total.outer(total) / n) / (n - 1)
        noise = self.rounding * n / (n - 1)
        constant = cov.diagonal() <= noise  # what is left of a constant feature is rounding
        return cov.masked_fill(constant | constant[:, None], 0.0)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Of the covariance, largest first: (d,)."""
        return eigenvalues(self.covariance)

    @property
    def second(self) -> Tensor:
        """Mean product of features as they are, not centered: (d, d)."""
        n, shift = self.n, self.origin
        first = self.sums.sum(dim=0) / n
        cross = first.outer(shift)
        return self.products / n + cross + cross.T + shift.outer(shift)

    @property
    def rounding(self) -> Tensor:
        """Variance below which a feature counts as constant: (d,).

        Features come in float32: what varies by less than its last bits does not vary.
        """
        largest = self.products.diagonal() / max(self.n, 1) + self.origin.square()
        return 1e-14 * largest

    @property
    def present(self) -> Tensor:
        """Classes that have pictures."""
        return self.count.nonzero().flatten()

    @property
    def class_means(self) -> Tensor:
        """Means of the classes that have pictures: (present, d)."""
        return self.origin + self.sums[self.present] / self.count[self.present, None]

    @property
    def class_variances(self) -> Tensor:
        """Mean squared distance of their pictures from those means: (present,)."""
        count = self.count[self.present]
        means = self.sums[self.present] / count[:, None]
        squares = self.squares[self.present] / count
        within = squares - means.square().sum(dim=1)
        return within.masked_fill(within <= self.rounding.sum(), 0.0).clamp(min=0)


class Parts:
    """Moments of one placement, in parts that are left out in turn for intervals.

    The parts take turns picture by picture, so that each is like the whole.
    """

    def __init__(self, classes: int, parts: int = PARTS):
        self.classes, self.parts, self.seen = classes, parts, 0
        self.each: list[Moments] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in features (b, d) of labels (b,)."""
        if not self.each:
            origin = x.double().mean(dim=0)
            self.each = [Moments.empty(origin, self.classes) for _ in range(self.parts)]
        for part, moments in enumerate(self.each):
            first = (part - self.seen) % self.parts
            if first < len(x):
                moments.add(x[first :: self.parts], y[first :: self.parts])
        self.seen += len(x)

    def whole(self) -> Moments:
        return sum(self.each[1:], start=self.each[0])

    def without(self) -> list[Moments]:
        """All but each part in turn; none if there are too few pictures for every part."""
        whole = self.whole()
        return [whole - part for part in self.each if part.n]


def moments_of(x: Tensor, y: Tensor | None = None, classes: int | None = None) -> Moments:
    """Moments of features that are all here: (n, d), (n,)."""
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device) if y is None else y
    if len(x) == 0:
        raise ValueError("undefined because there are no pictures")
    found = Moments.empty(x.double().mean(dim=0), classes or int(y.max()) + 1)
    found.add(x, y)
    return found
