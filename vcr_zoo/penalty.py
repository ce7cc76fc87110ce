"""Variance-covariance regularization (VCR, arXiv 2306.13292): the loss, and a tap that adds it.

Read the loss first: `covariance`, `variance_penalty`, `covariance_penalty` and their sum `penalty`.
`tap` puts the same number into a network, with its gradient in closed form.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def covariance(features: Tensor) -> Tensor:
    """Sample covariance between columns: (n, d) -> (d, d)."""
    centered = features - features.mean(dim=0)
    return centered.T @ centered / (len(features) - 1)


def variance_penalty(variance: Tensor, eps: float = 1e-4) -> Tensor:
    """V, the mean shortfall of each feature's standard deviation below one: (d,) -> ()."""
    return (1 - (variance + eps).sqrt()).clamp(min=0).mean()


def covariance_penalty(cov: Tensor, delta: float | None = 1.0) -> Tensor:
    """K, the mean squared covariance between distinct features: (d, d) -> ().

    Beyond `delta` the square goes on as a straight line of the same slope (smooth L1); None
    squares everything.
    """
    d = len(cov)
    off = off_diagonal(cov)
    clipped = off if delta is None else off.clamp(-delta, delta)
    return (clipped * (2 * off - clipped)).sum() / max(d * (d - 1), 1)


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
    """The matrix with a zero diagonal: (d, d) -> (d, d)."""
    return matrix - matrix.diagonal().diag()


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
    the penalty's gradient to the one that passes through, in one matrix product and without a
    gradient tensor of its own. Every axis but `dim` counts samples. The penalty is float32 for
    half precision input. The returned features are a view; autograd refuses to change them in
    place.

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
    y, penalty, _ = tap_terms(x, alpha, beta, delta, eps, dim, rows, offset, group)
    return y, penalty


def tap_terms(x, alpha, beta, delta, eps, dim, rows, offset, group):
    """`tap`, and a third value: V and K, without a gradient, for logging: (2,)."""
    check_settings(alpha, beta, delta, eps, rows)
    if not x.is_floating_point():
        raise TypeError(f"features must be floating point, not {x.dtype}")
    if x.ndim < 2 or not x.shape[dim]:
        raise ValueError(f"features need an axis of samples and one of features, not {x.shape}")
    n = x.numel() // x.shape[dim]
    if n < 2 and group is None:
        raise ValueError(
            f"a variance needs at least two samples, but features of shape {tuple(x.shape)} have "
            f"{n}: use a larger batch"
        )
    index = None
    if rows is not None and rows < n:
        pictures = x.shape[0] if dim % x.ndim else x.shape[1]
        index = strided(n, rows, offset, x.device, positions=n // pictures)
    return Tap.apply(x, alpha, beta, delta, eps, dim % x.ndim, index, group)


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
    return (offset + stride * torch.arange(rows, device=device)) % n


def common_divisor(a: int, b: int) -> int:
    """Euclid's; math.gcd would break a graph compiled for varying sizes."""
    while b:
        a, b = b, a % b
    return a


class Tap(torch.autograd.Function):
    """Features as they came, their penalty alpha V + beta K, and (V, K): see `tap`.

    Let H be the n samples with every column centered, C = HᵀH / (n - 1), sᵢ = √(Cᵢᵢ + ε).

        V = 1/d Σᵢ max(0, 1 - sᵢ)           ∂V/∂H = -H diag([sᵢ < 1] / sᵢ) / (d (n - 1))
        K = 1/(d(d - 1)) Σ_{i≠j} φ(Cᵢⱼ)     ∂K/∂H = 2 H φ'(offdiag C) / (d (d - 1) (n - 1))

    with φ(c) = c² and φ'(c) = 2c, clipped to ±2δ where |c| > δ. Both gradients are H times a
    symmetric (d, d) matrix M, and the columns of HM sum to zero whatever M is, so centering needs
    no gradient of its own. Returning the features too lets backward add HM to the gradient that
    passes through: one product, no second tensor of that size.

    Of fewer samples than features the (n, n) matrix G = HHᵀ / (n - 1) tells the same for less, if
    nothing is clipped: HC = GH, and the squares of G sum to those of C. See `from_gram`.

    Half precision: a channel's mean can be many times its standard deviation, so columns are
    centered in float32 before they are rounded and multiplied; C and M are kept in float32 (CPUs
    round the products of bfloat16 once). Products are written to an `out`, because autocast leaves
    those alone.
    """

    @staticmethod
    def forward(ctx, x, alpha, beta, delta, eps, dim, index, group):
        rows = as_rows(x, dim, index)
        n, mean = count_and_mean(rows, group)
        h, variance, cov = centered_moments(rows, mean, n, group, with_cov=beta > 0)
        std = (variance + eps).sqrt()
        v, k = variance_penalty(variance, eps), torch.zeros_like(mean[0])
        diagonal, matrix = torch.where(std < 1, -alpha / std, torch.zeros_like(std)), None
        few = len(h) < len(variance) and group is None
        ctx.left = few and beta > 0 and nothing_clipped(variance, delta)
        if ctx.left:
            k, matrix, diagonal = from_gram(h, diagonal, beta)
        elif beta > 0:
            cov = covariances(h, n, group) if cov is None else cov
            k, matrix = from_covariance(cov, diagonal, beta, delta)
            diagonal = None  # it is part of the matrix
        factor = (1 if group is None else dist.get_world_size(group)) / (len(variance) * (n - 1))
        ctx.save_for_backward(x if index is None else h, mean, matrix, diagonal)
        ctx.dim, ctx.index, ctx.factor = dim, index, factor
        terms = torch.stack([v, k])
        ctx.mark_non_differentiable(terms)
        return x.view_as(x), alpha * v + beta * k, terms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, scale, _):
        features, mean, matrix, diagonal = ctx.saved_tensors
        scale = scale * ctx.factor
        matrix = None if matrix is None else scale * matrix
        diagonal = None if diagonal is None else scale * diagonal
        if ctx.index is None:
            grad = plus_product(grad, features, mean, matrix, diagonal, ctx.dim, ctx.left)
        else:
            grad = grad.clone(memory_format=torch.preserve_format)
            last = grad.movedim(ctx.dim, -1)  # a view, whatever the strides
            where = torch.unravel_index(ctx.index, last.shape[:-1])
            last[where] = add_product(last[where], features, matrix, diagonal, ctx.left)
        return grad, *[None] * 7


def from_covariance(cov, diagonal, beta, delta) -> tuple[Tensor, Tensor]:
    """K, and M d (n - 1) with the diagonal that V gives it; takes over cov: (), (d, d)."""
    off = cov.fill_diagonal_(0)
    pairs = max(len(off) - 1, 1)
    clipped = off if delta is None else off.clamp(-delta, delta)
    k = (clipped * off).sum() * 2 - clipped.square().sum()
    matrix = clipped.mul_(4 * beta / pairs)
    matrix.diagonal().copy_(diagonal)
    return k / (len(off) * pairs), matrix


def from_gram(h, diagonal, beta) -> tuple[Tensor, Tensor, Tensor]:
    """K, and L and w in HM d (n - 1) = LH + H diag(w), where nothing is clipped.

    (n, d), (d,) -> (), (n, n), (d,). The diagonal of C is taken out again at the end, so it must
    come from the same numbers as G, and both from float32.
    """
    h = h.to(diagonal.dtype)
    n, d = h.shape
    g = gram(h.T).div_(n - 1)
    variance = h.square().sum(dim=0) / (n - 1)
    pairs = max(d - 1, 1)
    k = (g.square().sum() - variance.square().sum()) / (d * pairs)
    return k, g.mul_(4 * beta / pairs), diagonal - 4 * beta / pairs * variance


def nothing_clipped(variance: Tensor, delta: float | None) -> bool:
    """Whether it is sure, and free to ask, that no covariance exceeds delta: the largest variance
    bounds them all. Elsewhere than on the CPU the answer would wait for the device."""
    if variance.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return delta is None or bool(variance.max() <= delta)


def as_rows(x: Tensor, dim: int, index: Tensor | None = None) -> Tensor:
    """The samples, or those of an index, as rows: (n, d).

    A view where features are the last axis in memory. Otherwise one copy, which leaves the
    positions of a picture adjacent: its strides are those of a transposed (d, n).
    """
    d, last = x.shape[dim], x.movedim(dim, -1)
    if index is not None:
        return last[torch.unravel_index(index, last.shape[:-1])]
    if last.is_contiguous():
        return last.view(-1, d)
    return x.movedim(dim, 0).reshape(d, -1).T


def count_and_mean(rows: Tensor, group: dist.ProcessGroup | None) -> tuple[int | Tensor, Tensor]:
    """Number of samples, and the mean of every column in float32 or better: (n, d) -> n, (d,)."""
    exact = torch.promote_types(rows.dtype, torch.float32)
    if group is None:
        return len(rows), rows.mean(dim=0, dtype=exact)
    count = rows.new_full((1,), len(rows), dtype=exact)
    total = torch.cat([rows.sum(dim=0, dtype=exact), count])
    dist.all_reduce(total, group=group)
    return total[-1], total[:-1] / total[-1]


def centered_moments(
    rows: Tensor, mean: Tensor, n: int | Tensor, group: dist.ProcessGroup | None, *, with_cov: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Centered rows in their own dtype, variances, and covariances where they come for free.

    (n, d), (d,), (d, d). In full precision the variances are the diagonal of the covariances;
    with fewer samples than features those may not be needed at all. Processes of a group may have
    more or fewer, but must all reduce the same.
    """
    centered = rows - mean
    many = len(rows) >= len(mean) or group is not None
    if with_cov and many and centered.dtype == rows.dtype:
        cov = covariances(centered, n, group)
        return centered, cov.diagonal().clone(), cov
    squares = centered.square().sum(dim=0)
    if group is not None:
        dist.all_reduce(squares, group=group)
    return centered.to(rows.dtype), squares / (n - 1), None


def covariances(h: Tensor, n: int | Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """C of centered rows, float32 or better: (n, d) -> (d, d)."""
    products = gram(h)
    if group is not None:
        dist.all_reduce(products, group=group)
    return products.div_(n - 1)


def gram(centered: Tensor) -> Tensor:
    """HᵀH with sums in float32 or better: (n, d) -> (d, d)."""
    if centered.is_cuda and centered.dtype in (torch.float16, torch.bfloat16):
        if torch.__version__ >= (2, 8):
            return torch.mm(centered.T, centered, out_dtype=torch.float32)
        centered = centered.float()
    if centered.dtype == torch.float16:  # a sum of squares soon passes 65,504
        centered = centered.float()
    products = centered.new_empty(centered.shape[1], centered.shape[1])
    torch.mm(centered.T, centered, out=products)
    return products.to(torch.promote_types(products.dtype, torch.float32))


def plus_product(grad, x, mean, matrix, diagonal, dim, left) -> Tensor:
    """grad + HM, with H the centered samples of x, in the layout of grad."""
    d = x.shape[dim]
    channels_first = dim == 1 and x.ndim > 2 and x.is_contiguous() and grad.is_contiguous()
    many = channels_first and matrix is not None and x[0, 0].numel() >= d and not left
    if many:  # with fewer positions than features, one product for each picture is slow
        h, m = in_range((x.flatten(2) - mean[:, None]).to(x.dtype), matrix)  # (b, d, positions)
        total = torch.empty_like(h)
        torch.baddbmm(grad.flatten(2), m.expand(len(x), d, d), h, out=total)
        return total.view_as(grad)
    last = grad.movedim(dim, -1)
    h = (as_rows(x, dim) - mean).to(x.dtype)
    total = add_product(last.reshape(-1, d), h, matrix, diagonal, left)
    total = total.view(last.shape).movedim(-1, dim)
    return total.contiguous() if channels_first else total


def add_product(grad, h, matrix, diagonal, left) -> Tensor:
    """grad + HM for rows, with M or its parts as `Tap.forward` saved them: (n, d)."""
    if left:  # in float32, because LH and H diag(w) can nearly cancel
        h = h.to(matrix.dtype)
        product = torch.mm(matrix, h, out=torch.empty_like(h))
        return (grad + product.addcmul_(h, diagonal)).to(grad.dtype)
    if matrix is None:
        return (grad + h * diagonal).to(grad.dtype)
    return torch.addmm(grad, *in_range(h, matrix), out=grad.new_empty(grad.shape))


def in_range(h: Tensor, mix: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors of HM in H's dtype, with a power of two moved to H where float16 needs it.

    At n samples M is of the order 1 / n, where float16 has few bits or none.
    """
    if h.dtype == torch.float16:
        largest = mix.abs().max().clamp(min=torch.finfo(mix.dtype).tiny)
        power = (largest.log2() / 2).floor().exp2()
        h, mix = h * power, mix / power
    return h, mix.to(h.dtype)
