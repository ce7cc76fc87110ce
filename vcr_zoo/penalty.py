"""Variance-covariance regularization (VCR, arXiv 2306.13292): the loss, and a tap that adds it.

Read the loss first: `covariance`, `variance_penalty`, `covariance_penalty` and their sum `penalty`.
`tap` puts the same number into a network, with its gradient in closed form.
"""

import functools
import math
import sys

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

MANY_POSITIONS = 128  # of a picture, from where one product for each is as fast as one for all
LEFT = 0.1  # share of the squares of G that K has to be, to be told from their rounding
COUNTED = hasattr(torch._C, "_storage_Use_Count") and hasattr(Tensor, "_use_count")  # private


def covariance(features: Tensor) -> Tensor:
    """Sample covariance between columns: (..., n, d) -> (..., d, d)."""
    centered = features - features.mean(dim=-2, keepdim=True)
    return centered.mT @ centered / (features.shape[-2] - 1)


def variance_penalty(variance: Tensor, eps: float = 1e-4) -> Tensor:
    """V, the mean shortfall of each feature's standard deviation below one: (..., d) -> (...)."""
    return (1 - (variance + eps).sqrt()).clamp(min=0).mean(dim=-1)


def covariance_penalty(cov: Tensor, delta: float | None = 1.0) -> Tensor:
    """K, the mean squared covariance between distinct features: (..., d, d) -> (...).

    Beyond `delta` the square goes on as a straight line of the same slope (smooth L1); None
    squares everything.
    """
    off = off_diagonal(cov)
    clipped = off if delta is None else off.clamp(-delta, delta)
    return (clipped * (2 * off - clipped)).sum(dim=(-2, -1)) / pairs(cov.shape[-1])


def penalty(
    features: Tensor,
    alpha: float,
    beta: float,
    *,
    delta: float | None = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """alpha V + beta K of the features, for autograd to differentiate: (n, d) -> ()."""
    cov = covariance(features)
    return alpha * variance_penalty(cov.diagonal(), eps) + beta * covariance_penalty(cov, delta)


def off_diagonal(matrix: Tensor) -> Tensor:
    """The matrix with a zero diagonal: (..., d, d) -> (..., d, d)."""
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


def pairs(d: int) -> int:
    """Ordered pairs of distinct features, at least one so that it can divide."""
    return max(d * (d - 1), 1)


def tap(
    x: Tensor,
    alpha: float,
    beta: float,
    *,
    delta: float | None = 1.0,
    eps: float = 1e-4,
    dim: int = -1,
    rows: int | None = None,
    offset: int | Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """The features as they came, and their penalty alpha V + beta K: (..., d) -> (..., d), ().

    Use the returned features in place of `x` and add the penalty to the loss: backward then adds
    the penalty's gradient to the one that passes through. Every axis but `dim` counts samples. The
    penalty is float32 for half precision input. The returned features are a view; autograd refuses
    to change them in place.

    Args:
        x: features of any floating dtype, layout and strides, at least two axes.
        alpha: weight of the variance term V.
        beta: weight of the covariance term K.
        delta: where K turns from a square into a straight line; None never.
        eps: added to variances under the square root.
        dim: the axis of the d features.
        rows: at most so many samples take part, evenly strided; None takes all.
        offset: where the stride begins, modulo the number of samples; random if None.
        group: processes whose samples count as one batch; the gradient is multiplied by their
            number, because averaging over processes divides by it.

    Raises:
        ValueError: for fewer than two samples, a negative weight, or rows below two.
        TypeError: for features that are not floating point.
    """
    y, few, done = begin(x, alpha, beta, delta, eps, dim, rows, offset, group)
    if few is None:
        return y, done[0]
    v, k = Terms.apply(few, delta, eps, beta > 0)
    return y, alpha * v + beta * k


def begin(x, alpha, beta, delta, eps, dim, rows, offset, group, share=None):
    """The first half of `tap`, with a gradient scaled as by `Sample` or `Share`: the features as
    they came, and one of

    * few samples of them, for `Terms`, which takes those of several placements at once: (n, d);
    * their penalty, and V and K without a gradient, for logging: (), (2,).
    """
    check_settings(alpha, beta, delta, eps, rows)
    if not x.is_floating_point():
        raise TypeError(f"features must be floating point, not {x.dtype}")
    if x.ndim < 2 or not x.shape[dim]:
        raise ValueError(f"features need an axis of samples and one of features, not {x.shape}")
    n, dim = x.numel() // x.shape[dim] if group else count(x, dim), dim % x.ndim
    few = None
    if rows is not None and rows < n:
        x, few = sampled(x, dim, rows, offset, share)
    if few is not None and group is None:
        return x, few, None
    if few is not None:
        return x, None, Tap.apply(few, alpha, beta, delta, eps, 1, group)[1:]
    passing, x = (None, x) if share is None else Share.apply(x, share)
    x, *done = Tap.apply(x, alpha, beta, delta, eps, dim, group)
    return x if passing is None else passing, None, tuple(done)


def sampled(
    x: Tensor,
    dim: int,
    rows: int | None,
    offset: int | Tensor | None,
    share: float | None = None,
):
    """The features as they came, and `rows` of their samples, all if None, for any penalty that
    autograd differentiates: (..., d) -> (..., d), (rows, d). The gradient of the samples is scaled
    to `share` times the norm of the one that passes by, unless None."""
    n, dim = count(x, dim), dim % x.ndim
    pictures = x.shape[0] if dim else x.shape[1]
    if rows is None or rows >= n:
        index = torch.arange(n, device=x.device)
    else:
        index = strided(n, rows, offset, x.device, positions=n // pictures)
    return Sample.apply(x, dim, index, share)


def count(x: Tensor, dim: int) -> int:
    """How many samples of features there are: at least the two that a variance needs."""
    n = x.numel() // x.shape[dim]
    if n < 2:
        raise ValueError(
            f"a variance needs at least two samples, but features of shape {tuple(x.shape)} have "
            f"{n}: use a larger batch"
        )
    return n


def check_settings(alpha, beta, delta, eps, rows) -> None:
    """Refuse what has no meaning, with a ValueError: see `tap`."""
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise ValueError(f"alpha and beta must be finite, zero or more: {alpha=}, {beta=}")
    if delta is not None and not delta > 0:
        raise ValueError(f"delta={delta} must be positive; None never turns the square to a line")
    if not eps > 0:
        raise ValueError(f"eps={eps} must be positive, or constant features have no gradient")
    if rows is not None and rows < 2:
        raise ValueError(f"rows={rows}: a variance needs at least two; None takes all")


def full_precision(x: Tensor) -> Tensor:
    """Float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def strided(
    n: int, rows: int, offset: int | Tensor | None, device: torch.device, positions: int = 1
) -> Tensor:
    """Indices of `rows` of n samples, evenly spaced around a circle: (rows,) of int64.

    Samples are numbered picture by picture, `positions` in each. A stride goes on by whole
    pictures and the golden section of one, so that a few samples are spread over both. It shares
    no factor with n, so that none is taken twice. A random offset takes each sample with
    probability rows / n.
    """
    stride = n // rows // positions * positions + max(1, round(0.618 * positions))
    while common_divisor(stride, n) != 1:
        stride += 1
    if offset is None:
        offset = torch.randint(n, (), device=device)
    return (offset + torch.arange(0, rows * stride, stride, device=device)) % n


def common_divisor(a: int, b: int) -> int:
    """Euclid's; math.gcd would break a graph compiled for varying sizes."""
    while b:
        a, b = b, a % b
    return a


class Sample(torch.autograd.Function):
    """Features as they came, as a view that autograd refuses to change in place, and a few of them:
    (..., d) -> (..., d), (rows, d).

    The gradient of the few joins the one that passes by where it lies, if that belongs to nobody
    else: memory for a copy would be new at every step, and cost more than everything else here.
    """

    @staticmethod
    def forward(ctx, x, dim, index, share):
        rows, where = rows_at(x, dim, index)
        ctx.save_for_backward(index)
        ctx.dim, ctx.share = dim, share
        ctx.channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        return x.view_as(x), rows[where]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, few):
        if ctx.share is not None:
            few = to_share(few, grad, ctx.share)
        countable = COUNTED and not torch.compiler.is_compiling() and not overlapping(grad)
        if not countable or count_holders(grad) != holders_of_own():
            grad = grad.clone()
        if ctx.channels_last:  # also if nothing but the few had a gradient
            grad = grad.contiguous(memory_format=torch.channels_last)
        rows, where = rows_at(grad, ctx.dim, *ctx.saved_tensors)
        rows[where] = rows[where].add_(few)
        return grad, None, None, None


class Share(torch.autograd.Function):
    """The features as they came, twice; the gradient of the second is scaled to `share` times the
    norm of the first's."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return x.view_as(x), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, added):
        return grad + to_share(added, grad, ctx.share), None


def to_share(added: Tensor, passing: Tensor, share: float) -> Tensor:
    """A gradient scaled to `share` times the norm of the one that passes; none stays none."""
    own, other = (
        torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32))
        for g in (added, passing)
    )
    factor = torch.where(own > 0, share * other / own, own)
    return (full_precision(added) * factor).to(added.dtype)


def overlapping(x: Tensor) -> bool:
    """Whether entries share a place, as in what `expand` gives."""
    return any(step == 0 and n > 1 for step, n in zip(x.stride(), x.shape, strict=True))


def count_holders(grad: Tensor) -> tuple[int, int, int]:
    """How many hold this tensor in Python, in autograd, and its memory."""
    memory = torch._C._storage_Use_Count(grad.untyped_storage()._cdata)
    return sys.getrefcount(grad), grad._use_count(), memory


class Count(torch.autograd.Function):
    """Calls back with the gradient's holders, counted as `Sample.backward` counts them."""

    @staticmethod
    def forward(ctx, x, found):
        ctx.found = found
        return x.view_as(x), x.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, few):
        ctx.found(count_holders(grad))
        return grad, None


@functools.cache
def holders_of_own() -> tuple[int, int, int]:
    """`count_holders` of a gradient that belongs to nobody else."""
    found = []
    with torch.enable_grad():
        y, total = Count.apply(torch.zeros(2, requires_grad=True), found.append)
        ((2 * y).sum() + total).backward()
    return found[0]


def rows_at(x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A view of x with its features last and as few axes of samples as its strides allow, and
    where it has the samples of these numbers: (..., d), (rows,) for each axis of samples."""
    rows, where = x.movedim(dim, -1), []
    if rows.is_contiguous():
        rows = rows.view(-1, x.shape[dim])
    elif dim == 1 and x.is_contiguous():
        rows = x.flatten(2).mT
    for size in reversed(rows.shape[1:-1]):
        where.append(index % size)
        index = index // size
    return rows, (index, *reversed(where))


class Terms(torch.autograd.Function):
    """V and K of few samples; also of several placements at once: (..., n, d) -> (...), (...).

    Let H be the n samples with every column centered, C = HᵀH / (n - 1), sᵢ = √(Cᵢᵢ + ε).

        V = 1/d Σᵢ max(0, 1 - sᵢ)           ∂V/∂H = -H diag([sᵢ < 1] / sᵢ) / (d (n - 1))
        K = 1/(d(d - 1)) Σ_{i≠j} φ(Cᵢⱼ)     ∂K/∂H = 2 H φ'(offdiag C) / (d (d - 1) (n - 1))

    with φ(c) = c² and φ'(c) = 2c, clipped to ±2δ where |c| > δ. Both gradients are H times a
    symmetric (d, d) matrix, and the columns of the product sum to zero whatever the matrix is, so
    centering needs no gradient of its own.

    Of fewer samples than features the (n, n) matrix G = HHᵀ / (n - 1) tells the same for less, if
    nothing is clipped: HC = GH, and the squares of G sum to those of C. There the diagonal of C
    has to be taken out again: offdiag C = C - diag(var), whence H offdiag C = GH - H diag(var).
    Where a few variances are nearly all that there is, that is a small difference of large numbers,
    and C is computed after all. Only a CPU, outside of compiled graphs, can ask for either: others
    take G where delta is None, and C where it is not.

    In half precision the centered rows are rounded to it, as in `Tap`; all products are float32.
    """

    @staticmethod
    def forward(ctx, features, delta, eps, with_k):
        h = full_precision(features)
        rounded = (h - h.mean(dim=-2, keepdim=True)).to(features.dtype)
        h, n = full_precision(rounded), features.shape[-2]
        variance = h.square().sum(dim=-2) / (n - 1)
        v, k = variance_penalty(variance, eps), torch.zeros_like(variance[..., 0])
        by_k, matrix = by_samples(h, variance, delta) if with_k else (None, None)
        ctx.by_samples = matrix is not None
        if ctx.by_samples:
            k = by_k
        elif with_k:
            k, matrix = clipped(gram(h).div_(n - 1), delta)
        ctx.eps = eps
        ctx.save_for_backward(rounded, variance, matrix)
        return v, k

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_v, grad_k):
        h, variance, matrix = ctx.saved_tensors
        dtype, h = h.dtype, full_precision(h)
        n, d = h.shape[-2:]
        column = variance_slope(variance, ctx.eps) * (grad_v / (d * (n - 1)))[..., None]
        scale = (grad_k * 4 / (pairs(d) * (n - 1)))[..., None, None]
        if matrix is None:
            return (h * column[..., None, :]).to(dtype), None, None, None
        if ctx.by_samples:
            column = column - scale[..., 0] * variance
        added = product(matrix, h) if ctx.by_samples else product(h, matrix)
        added.mul_(scale).addcmul_(h, column[..., None, :])
        return added.to(dtype), None, None, None


def by_samples(h: Tensor, variance: Tensor, delta: float | None):
    """K and G = HHᵀ / (n - 1) of fewer samples than features: (..., n, d) -> (...), (..., n, n).

    None of both where C is to be computed instead: see `Terms`. One for all of a stack.
    """
    n, d = h.shape[-2:]
    if n >= d or not nothing_clipped(variance, delta):
        return None, None
    matrix = gram(h.mT).div_(n - 1)
    squares = total(matrix.square())
    left = squares - variance.square().sum(dim=-1)
    if can_ask(left) and bool((left < LEFT * squares).any()):
        return None, None
    return left / pairs(d), matrix


def variance_slope(variance: Tensor, eps: float) -> Tensor:
    """-[s < 1] / s, which times H / (d (n - 1)) is the gradient of V: (..., d) -> (..., d)."""
    std = (variance + eps).sqrt()
    return torch.where(std < 1, -1 / std, torch.zeros_like(std))


def clipped(cov: Tensor, delta: float | None) -> tuple[Tensor, Tensor]:
    """K, and offdiag C clipped to ±delta, in place of cov: (..., d, d) -> (...), (..., d, d)."""
    cov.diagonal(dim1=-2, dim2=-1).zero_()
    if delta is None:
        return total(cov.square()) / pairs(cov.shape[-1]), cov
    off = cov.clamp(-delta, delta)
    k = 2 * total(cov.mul_(off)) - total(off.square())
    return k / pairs(cov.shape[-1]), off


def total(matrix: Tensor) -> Tensor:
    """Sum over the last two axes."""
    return matrix.sum(dim=(-2, -1))


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product; written to an `out`, because autocast leaves those alone."""
    return torch.matmul(a, b, out=a.new_empty(*a.shape[:-1], b.shape[-1]))


def symmetric(a: Tensor) -> Tensor:
    """AAᵀ: (..., m, k) -> (..., m, m). On the CPU in four blocks of rows, each up to the diagonal
    only, which saves three eighths of the work."""
    m = a.shape[-2]
    if m < 64 or a.device.type != "cpu" or torch.compiler.is_compiling():
        return product(a, a.mT)
    out, block = a.new_empty(*a.shape[:-1], m), -(-m // 4)
    for start in range(0, m, block):
        end = min(start + block, m)
        part = out[..., start:end, :end]
        torch.matmul(a[..., start:end, :], a[..., :end, :].mT, out=part)
        out[..., :start, start:end] = part[..., :start].mT
    return out


def nothing_clipped(variance: Tensor, delta: float | None) -> bool:
    """Whether it is sure, and free to ask, that no covariance exceeds delta: the largest variance
    bounds them all. Elsewhere than on the CPU the answer would wait for the device."""
    if delta is None:
        return True
    return can_ask(variance) and bool(variance.max() <= delta)


def can_ask(x: Tensor) -> bool:
    """Whether Python may look at a value without waiting for a device or leaving a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class Tap(torch.autograd.Function):
    """Features as they came, their penalty alpha V + beta K, and (V, K): see `tap`.

    The same as `Terms` for many samples: the gradient is HM with

        M = (alpha diag(-[sᵢ < 1] / sᵢ) + 4 beta / (d - 1) offdiag C, clipped) / (d (n - 1)).

    Returning the features too lets backward add HM to the gradient that passes through: one
    product, no second tensor of that size.

    Half precision: a channel's mean can be many times its standard deviation, so columns are
    centered in float32 before they are rounded and multiplied; C, G and M are kept in float32 (on
    a CPU products come rounded to bfloat16 once). They are written to an `out`, because autocast
    leaves those alone.
    """

    @staticmethod
    def forward(ctx, x, alpha, beta, delta, eps, dim, group):
        n, mean = count_and_mean(x, dim, group)
        h, d = centered(x, mean, dim), len(mean)
        few = beta > 0 and group is None and n < d
        cov = covariances(h, n, group) if beta > 0 and not few else None
        exact = cov is not None and (h.dtype == mean.dtype or h.is_cuda)
        variance = cov.diagonal().clone() if exact else variances(h, n, group)
        v, k = variance_penalty(variance, eps), torch.zeros_like(mean[0])
        column, slope = alpha * variance_slope(variance, eps), 4 * beta * d / pairs(d)
        by_k, matrix = by_samples(h, variance, delta) if few else (None, None)
        ctx.by_samples = matrix is not None
        if ctx.by_samples:
            k = by_k
            column.sub_(variance, alpha=slope)
            matrix.mul_(slope)
        elif beta > 0:
            k, matrix = clipped(covariances(h, n, group) if cov is None else cov, delta)
            matrix.mul_(slope).diagonal().copy_(column)
        ctx.factor = (1 if group is None else dist.get_world_size(group)) / (d * (n - 1))
        ctx.dim = dim
        ctx.save_for_backward(x, mean, column, matrix)
        terms = torch.stack([v, k])
        ctx.mark_non_differentiable(terms)
        return x.view_as(x), alpha * v + beta * k, terms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, scale, _):
        x, mean, column, matrix = ctx.saved_tensors
        scale = scale * ctx.factor
        if ctx.by_samples:
            grad = plus_samples(grad, x, mean, scale * matrix, scale * column, ctx.dim)
        else:
            mix = scale * (column if matrix is None else matrix)
            grad = plus_product(grad, x, mean, mix, ctx.dim)
        return grad, *[None] * 6


def count_and_mean(x: Tensor, dim: int, group: dist.ProcessGroup | None):
    """Number of samples, and the mean of every feature in float32 or better: n, (d,)."""
    n, others = x.numel() // x.shape[dim], [axis for axis in range(x.ndim) if axis != dim]
    exact = torch.promote_types(x.dtype, torch.float32)
    if group is None:
        return n, x.mean(dim=others, dtype=exact)
    total = torch.cat([x.sum(dim=others, dtype=exact), x.new_full((1,), n, dtype=exact)])
    dist.all_reduce(total, group=group)
    return total[-1], total[:-1] / total[-1]


def centered(x: Tensor, mean: Tensor, dim: int) -> Tensor:
    """The samples as rows, less the mean, in the dtype of x: (n, d).

    Centering is also the one copy that maps of channels (b, c, h, w) need: their rows come out
    with the strides of a transposed (d, n).
    """
    last = x.movedim(dim, -1)
    if last.is_contiguous():
        return less(last, mean).view(-1, len(mean))
    h = x.movedim(dim, 0).clone(memory_format=torch.contiguous_format)
    return h.sub_(mean.view(-1, *[1] * (x.ndim - 1))).view(len(mean), -1).T


def less(x: Tensor, mean: Tensor) -> Tensor:
    """x - mean, computed in the precision of the mean and rounded to the dtype of x in one go."""
    return torch.sub(x, mean, out=torch.empty_like(x))


def variances(h: Tensor, n: int | Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Of centered rows, in float32 or better: (n, d) -> (d,)."""
    squares = full_precision(h).square().sum(dim=0)
    if group is not None:
        dist.all_reduce(squares, group=group)
    return squares / (n - 1)


def covariances(h: Tensor, n: int | Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """C of centered rows, in float32 or better: (n, d) -> (d, d)."""
    products = gram(h)
    if group is not None:
        dist.all_reduce(products, group=group)
    return products.div_(n - 1)


def gram(h: Tensor) -> Tensor:
    """HᵀH with sums in float32 or better: (..., n, d) -> (..., d, d), or, in half precision,
    (n, d) -> (d, d)."""
    if h.is_cuda and h.dtype in (torch.float16, torch.bfloat16):
        plainly = torch.version.hip is None and not torch.compiler.is_compiling()
        if plainly and torch.__version__ >= (2, 8):
            return torch.mm(h.T, h, out_dtype=torch.float32)
        h = h.float()
    if h.dtype == torch.float16:  # a sum of squares soon passes 65,504
        h = h.float()
    return full_precision(symmetric(h.mT))


def plus_product(grad: Tensor, x: Tensor, mean: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """grad + HM, with H the centered samples of x. A vector (d,) stands for the diagonal matrix.

    On a CPU in float32 or better as grad + XM - 1 (meanᵀ M), wherever X is a matrix as it lies: H
    would be a copy. (A GPU may round X, with its mean, to TF32.)
    """
    if matrix.ndim == 1:
        column = [1] * x.ndim
        column[dim] = len(matrix)
        return (grad + (x - mean.view(column)) * matrix.view(column)).to(grad.dtype)
    d, last = len(matrix), x.movedim(dim, -1)
    exact = x.dtype == mean.dtype and x.device.type == "cpu"
    if dim == 1 and x.ndim > 2 and x.is_contiguous() and x[0, 0].numel() >= MANY_POSITIONS:
        maps = x.flatten(2)  # (b, d, positions)
        h, mix = in_range(maps if exact else less(maps, mean[:, None]), matrix)
        added = torch.empty_like(h)
        torch.baddbmm(grad.flatten(2), mix.expand(len(x), d, d), h, out=added)
        added = added.sub_(product(matrix, mean[:, None])) if exact else added
        return added.view_as(x)
    if last.is_contiguous():
        h, mix = in_range((last if exact else less(last, mean)).view(-1, d), matrix)
        passing = grad.movedim(dim, -1).reshape(-1, d)
        added = torch.addmm(passing, h, mix, out=torch.empty_like(h))
        added = added.sub_(product(mean[None], matrix)) if exact else added
        return added.view(last.shape).movedim(-1, dim)
    h, mix = in_range(centered(x, mean, dim).T, matrix)
    added = torch.mm(mix, h, out=torch.empty_like(h))
    return grad + added.view(x.movedim(dim, 0).shape).movedim(0, dim)


def plus_samples(grad, x, mean, matrix, column, dim) -> Tensor:
    """grad + GH + H diag(column), with H the n centered samples of x, G (n, n), column (d,)."""
    h = centered(x, mean, dim)
    if h.stride(1) == 1:  # features are the last axis in memory
        last = grad.movedim(dim, -1)
        scaled, mix = in_range(h, matrix)
        added = torch.addmm(last.reshape(h.shape), mix, scaled, out=torch.empty_like(h))
        added.add_(h * column)
        return added.view(last.shape).movedim(-1, dim)
    h = h.T
    scaled, mix = in_range(h, matrix)
    added = torch.mm(scaled, mix, out=torch.empty_like(h)).add_(h * column[:, None])
    return grad + added.view(x.movedim(dim, 0).shape).movedim(0, dim)


def in_range(h: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors of HM in H's dtype, with a power of two moved to H where float16 needs it.

    At n samples M is of the order 1 / n, where float16 has few bits or none.
    """
    if h.dtype == torch.float16:
        largest = mix.abs().max().clamp(min=torch.finfo(mix.dtype).tiny)
        power = (largest.log2() / 2).floor().exp2()
        h, mix = h * power, mix / power
    return h, mix.to(h.dtype)
