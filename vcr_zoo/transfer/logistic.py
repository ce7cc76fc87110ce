"""Multinomial logistic regression with an L2 penalty, for many strengths of it at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

HISTORY = 30  # pairs of steps and gradient changes that L-BFGS remembers
PATIENCE = 100  # steps without a smaller gradient after which float32 has given what it can;
HASTE = 25  # and where more is asked for than it can give, so that its errors lead nowhere
BLIND = 4 * torch.finfo(torch.float32).eps  # gradients below this, float32 cannot tell from zero
WIDEST = 4096  # directions beyond which finding principal axes costs more than it saves


class Fit(NamedTuple):
    """One classifier for each C (c of them), for k classes of d features, in float64.

    `gradient` is the largest absolute entry of the gradient, at these weights, of the objective
    that `fit` states; `converged` says whether it met the tolerance.
    """

    weight: Tensor  # (c, k, d)
    bias: Tensor  # (c, k)
    gradient: Tensor  # (c,)
    converged: Tensor  # (c,) bool
    steps: int  # of L-BFGS, over all groups of C

    def logits(self, x: Tensor) -> Tensor:
        """(n, d) -> (c, n, k), in the features' precision."""
        return x @ self.weight.to(x).mT + self.bias.to(x).unsqueeze(-2)


def fit(
    x: Tensor,
    y: Tensor,
    classes: int,
    strengths: Sequence[float],
    *,
    tolerance: float = 1e-5,
    max_iter: int = 1000,
    start: Fit | None = None,
    together: int | None = None,
) -> Fit | list[Fit]:
    """Minimize, for every C in `strengths`, over weights W and unpenalized intercepts b,

        F(W, b) = mean of the cross-entropies + |W|² / (2 C n),

    which is scikit-learn's objective (C times the sum of the cross-entropies + |W|² / 2) divided
    by C n: its optimum at the same C is ours.

    x is (n, d) and y (n,); or (m, n, d) and (m, n) for m problems of one size (seeds, models),
    which are solved together and give a list of m fits.

    L-BFGS (Liu and Nocedal, 1989) in the principal axes of the features, where the curvature is
    close to diagonal; every group of `together` neighboring C starts from the solution of the
    group before. In float32, then in float64 for what float32 cannot bring to the tolerance.

    Args:
        tolerance: on the gradient's largest entry, for features of root mean square one or for
            the features as they are, whichever is stricter.
        max_iter: steps for a group of C in either precision.
        start: a fit of one problem, from whose first C the first group starts.
        together: how many C are solved at once; by default what fits the processor's caches, or
            all of them on a GPU.

    Raises:
        ValueError: for features that are not finite, no pictures, a label outside of the classes,
            or a C that is not positive.
    """
    many = x.dim() == 3
    x, y = (x, y) if many else (x[None], y[None])
    check(x, y, classes, strengths)
    scale = x.double().square().mean().sqrt().item() or 1.0
    tolerance *= min(1.0, scale)
    axes = Axes.of(x)
    single, double = Problem(axes, x, y, classes, torch.float32), None
    weight = None if start is None else axes.rotate(start.weight[:1], start.bias[:1])
    order = torch.tensor(strengths, dtype=torch.float64, device=x.device).argsort()
    ascending = torch.tensor(strengths, dtype=torch.float64, device=x.device)[order]
    groups, steps = [], 0
    for c in ascending.split(together or group_size(x, classes)):
        patience = PATIENCE if tolerance > BLIND * scale else HASTE
        reach = max(tolerance, BLIND * scale)
        weight, gradient, n = minimize(single, c, weight, reach, max_iter, patience)
        steps += n
        if (gradient > tolerance).any():
            double = double or Problem(axes, x, y, classes, torch.float64)
            weight, gradient, n = minimize(double, c, weight, tolerance, max_iter, max_iter)
            steps += n
        groups.append((weight.double(), gradient.double()))
        weight = weight[:, -1:]
    back = order.argsort()
    weight, gradient = (torch.cat(parts, dim=1)[:, back] for parts in zip(*groups, strict=True))
    weight, bias = axes.unrotate(weight)
    converged = gradient <= tolerance
    fits = [Fit(*parts, steps) for parts in zip(weight, bias, gradient, converged, strict=True)]
    return fits if many else fits[0]


def check(x: Tensor, y: Tensor, classes: int, strengths: Sequence[float]) -> None:
    """Refuse what has no optimum or no meaning, in words."""
    if x.shape[1] == 0 or x.shape[:2] != y.shape:
        raise ValueError(f"features {tuple(x.shape)} and labels {tuple(y.shape)} do not match")
    if not x.isfinite().all():
        bad = (~x.isfinite()).any(dim=-1).sum()
        raise ValueError(f"{bad} of {y.numel()} pictures have features that are not finite")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, but there are {classes} classes")
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"C must be positive, got {list(strengths)}")


def group_size(x: Tensor, classes: int) -> int:
    """How many C to solve at once: few, as later groups start nearer to their solution, and no
    more than makes logits of some 2 MB on a CPU, 1 GB on a GPU."""
    most, entries = (5, 2**19) if x.device.type == "cpu" else (15, 2**28)
    return max(1, min(most, entries // (x.shape[0] * x.shape[1] * classes)))


class Axes(NamedTuple):
    """Centered features in their principal axes: the same problem, better conditioned.

    A rotation of the weights keeps their norm, and what centering moves goes into the intercept,
    which is not penalized.
    """

    mean: Tensor  # (m, 1, d)
    basis: Tensor | None  # (m, d, r), orthonormal columns that span every picture; None: x's own

    @classmethod
    def of(cls, x: Tensor) -> "Axes":
        """Any orthonormal basis will do, so that the axes of more pictures than features may be
        found in float32. With fewer, it must span the pictures, to the last digit of float64."""
        n, d = x.shape[1:]
        mean = x.double().mean(dim=1, keepdim=True)
        if min(n, d) > WIDEST:
            return cls(mean, None)
        if n >= d:
            centered = (x - mean.to(x)).to(x)
            return cls(mean, torch.linalg.eigh((centered.mT @ centered).double()).eigenvectors)
        basis, triangle = torch.linalg.qr((x.double() - mean).mT)  # (m, d, n), (m, n, n)
        return cls(mean, basis @ torch.linalg.eigh(triangle @ triangle.mT).eigenvectors)

    def to(self, dtype: torch.dtype) -> "Axes":
        return Axes(self.mean.to(dtype), None if self.basis is None else self.basis.to(dtype))

    def along(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., r), m being the first of the dimensions."""
        return x if self.basis is None else x @ self._beside(x)

    def back(self, x: Tensor) -> Tensor:
        """(..., r) -> (..., d)."""
        return x if self.basis is None else x @ self._beside(x).mT

    def _beside(self, x: Tensor) -> Tensor:
        return self.basis if x.dim() == 3 else self.basis.unsqueeze(1)

    def rotate(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Weights (c, k, d) and intercepts (c, k) for x -> (m, c, k, r + 1) for `Problem.rows`."""
        bias = bias + (weight @ self.mean.mT.unsqueeze(1)).squeeze(-1)
        weight = weight.expand(len(self.mean), *weight.shape)
        return torch.cat([self.along(weight), bias.unsqueeze(-1)], dim=-1)

    def unrotate(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(m, c, k, r + 1) for `Problem.rows` -> weights (m, c, k, d), intercepts (m, c, k)."""
        weight, bias = self.back(weight[..., :-1]), weight[..., -1]
        return weight, bias - (weight @ self.mean.mT.unsqueeze(1)).squeeze(-1)


class Problem:
    """m problems in one precision: rotated features with a column of ones, and labels."""

    def __init__(self, axes: Axes, x: Tensor, y: Tensor, classes: int, dtype: torch.dtype) -> None:
        self.axes = axes.to(dtype)
        rows = self.axes.along(x.to(dtype) - self.axes.mean)
        self.rows = torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1)  # (m, n, r + 1)
        self.columns = self.rows.mT.contiguous()
        self.labels = torch.zeros(len(x), 1, classes, x.shape[1], dtype=dtype, device=x.device)
        self.labels.scatter_(2, y[:, None, None], 1.0)  # (m, 1, k, n)
        self.power = self.rows.square().mean(dim=1)[:, None, None]  # (m, 1, 1, r + 1)
        self.power = self.power.clamp(min=torch.finfo(dtype).eps * self.power.amax())

    def penalty(self, c: Tensor) -> Tensor:
        """1 / (C n) for every weight and 0 for the intercept: (c,) -> (c, 1, r + 1)."""
        penalty = (1 / (c * self.rows.shape[1])).to(self.rows)[:, None, None]
        return penalty * (
            torch.arange(self.power.shape[-1]).to(c.device) < self.power.shape[-1] - 1
        )

    def logits(self, weight: Tensor) -> Tensor:
        """(m, c, k, r + 1) -> (m, c, k, n)."""
        return (weight.flatten(1, 2) @ self.columns).view(*weight.shape[:3], -1)

    def gradient(self, weight: Tensor, probability: Tensor, penalty: Tensor) -> Tensor:
        """Of the objective, with respect to the weights: (m, c, k, r + 1)."""
        residual = (probability - self.labels).flatten(1, 2) @ self.rows
        return (residual / self.rows.shape[1]).view_as(weight) + penalty * weight

    def largest(self, gradient: Tensor) -> Tensor:
        """Largest absolute entry of a gradient, taken back to the features as given: (m, c)."""
        slope, intercept = gradient[..., :-1], gradient[..., -1:]
        original = self.axes.back(slope) + intercept * self.axes.mean.unsqueeze(1)
        return torch.maximum(original.abs().amax((-1, -2)), intercept.abs().amax((-1, -2)))


def minimize(
    problem: Problem,
    c: Tensor,
    weight: Tensor | None,
    tolerance: float,
    max_iter: int,
    patience: int,
) -> tuple[Tensor, Tensor, int]:
    """L-BFGS from `weight` (m, 1 or c, k, r + 1): the best weights, their gradients, the steps.

    It ends before `max_iter` after `patience` steps without a smaller gradient.
    """
    (m, _, k, _), r = problem.labels.shape, problem.rows.shape[-1]
    start = problem.rows.new_zeros(1) if weight is None else weight.to(problem.rows)
    weight = start.expand(m, len(c), k, r).contiguous()
    penalty = problem.penalty(c)
    logits = problem.logits(weight)
    probability = logits.softmax(dim=2)
    gradient = problem.gradient(weight, probability, penalty)
    spread = (probability * (1 - probability)).mean(dim=-1, keepdim=True)  # (m, c, k, 1)
    curvature = spread * problem.power + penalty  # about the Hessian's diagonal
    best, smallest = weight, problem.largest(gradient)
    memory, steps, idle = [], 0, 0
    while (smallest > tolerance).any() and idle < patience and steps < max_iter:
        direction = -newton_step(gradient, memory, curvature)
        rise = problem.logits(direction)
        slope = penalty * direction
        length, probability = search(
            logits,
            rise,
            problem.labels,
            dot(gradient, direction),
            dot(slope, weight),
            dot(slope, direction),
        )
        logits = torch.addcmul(logits, column(length), rise)
        moved = column(length) * direction
        weight, before = weight + moved, gradient
        gradient = problem.gradient(weight, probability, penalty)
        memory = [*memory, (moved, gradient - before)][-HISTORY:]
        largest, steps = problem.largest(gradient), steps + 1
        better = largest < smallest
        idle = 0 if (better & (smallest > tolerance)).any() else idle + 1
        best = torch.where(column(better), weight, best)
        smallest = torch.where(better, largest, smallest)
    return best, smallest, steps


def newton_step(gradient: Tensor, memory: list[tuple[Tensor, Tensor]], curvature: Tensor) -> Tensor:
    """The inverse Hessian times the gradient, by the two loops of L-BFGS: (m, c, k, r) -> same.

    `memory` holds steps s with the changes y of the gradient that they made.
    """
    left, shares = gradient, []
    for s, y in reversed(memory):
        shares.append(ratio(dot(s, left), dot(s, y)))
        left = left - column(shares[-1]) * y
    left = left / curvature
    if memory:
        s, y = memory[-1]
        left = left * column(ratio(dot(s, y), dot(y, y / curvature), otherwise=1.0))
    for (s, y), share in zip(memory, reversed(shares), strict=True):
        left = left + column(share - ratio(dot(y, left), dot(s, y))) * s
    return left


def search(
    logits: Tensor, rise: Tensor, labels: Tensor, descent: Tensor, drag: Tensor, pull: Tensor
) -> tuple[Tensor, Tensor]:
    """How far to go, and the probabilities there: (m, c, k, n) -> (m, c), (m, c, k, n).

    Along a direction the logits are straight lines, so F's slope at a length t costs no product
    with the features: with P the probabilities at logits + t rise, it is

        mean over pictures of Σ (P - labels) rise, plus drag + t pull from the penalty.

    A safeguarded Newton iteration brings it to less than half of `descent`, the slope at 0.
    """
    target = (labels * rise).sum(dim=2).mean(dim=-1)  # (m, c)
    t, low, high = (
        torch.ones_like(descent),
        torch.zeros_like(descent),
        torch.full_like(descent, torch.inf),
    )
    for _ in range(20):
        probability = torch.addcmul(logits, column(t), rise).softmax(dim=2)
        weighted = probability * rise
        mean = weighted.sum(dim=2)  # (m, c, n)
        slope = mean.mean(dim=-1) - target + drag + t * pull
        far = slope.abs() > 0.5 * descent.abs()
        if not far.any():
            break
        second = (weighted * rise).sum(dim=2) - mean.square()
        low, high = torch.where(slope < 0, t, low), torch.where(slope < 0, high, t)
        newton = t - slope / (second.mean(dim=-1) + pull)
        outside = ~((newton > low) & (newton < torch.minimum(high, 10 * t)))
        bisection = torch.where(high.isinf(), 4 * t, (low + high) / 2)
        t = torch.where(far, torch.where(outside, bisection, newton), t)
    return t, probability


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two problems' weights: (m, c, k, r) twice -> (m, c)."""
    return (a * b).sum(dim=(-1, -2))


def ratio(a: Tensor, b: Tensor, otherwise: float = 0.0) -> Tensor:
    """a / b where b is positive: a convex function's step that is worth remembering."""
    return torch.where(b > 0, a / b.clamp(min=torch.finfo(b.dtype).tiny), otherwise)


def column(x: Tensor) -> Tensor:
    """One value for each problem, to multiply its weights: (m, c) -> (m, c, 1, 1)."""
    return x[..., None, None]
