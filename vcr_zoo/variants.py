"""What VCR is compared with: other penalties on the same features, and VCR weighed otherwise.

Each is a function of some of the N samples of d features that there are, which autograd
differentiates. They answer questions about the method; `vcr_zoo.penalty` is what is fast.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vcr_zoo.penalty import covariance, off_diagonal, pairs, penalty

# features (n, d), alpha, beta, delta, eps, N -> ()
Variant = Callable[[Tensor, float, float, float | None, float, int], Tensor]


def listing(features: Tensor, alpha: float, beta: float, delta, eps: float, total: int) -> Tensor:
    """VCR with beta times N - 1, and squares all the way: (n, d) -> (). What a listing that
    circulates for arXiv 2306.13292 amounts to, which leaves out the covariance term's 1 / (N - 1)
    and its straight line; N counts all samples, whether they take part or not."""
    return penalty(features, alpha, beta * (total - 1), delta=None, eps=eps)


def relative(features: Tensor, alpha: float, beta: float, delta, eps: float, total: int) -> Tensor:
    """VCR of features in units of their own root mean variance, which has no gradient: (n, d) ->
    (). Networks whose features differ in scale alone have the same penalty."""
    scale = (features.detach().var(dim=0).mean() + eps).sqrt()
    return penalty(features / scale, alpha, beta, delta=delta, eps=eps)


def correlation(features: Tensor, _: float, beta: float, delta, eps: float, total: int) -> Tensor:
    """beta times the mean squared correlation between distinct features: (n, d) -> (). The
    redundancy term of Barlow Twins (arXiv 2103.03230) on one batch, without its other half."""
    std = (features.var(dim=0) + eps).sqrt()
    off = off_diagonal(covariance(features / std))
    return beta * off.square().sum() / pairs(len(off))


def wld(features: Tensor, _: float, beta: float, delta, eps: float, total: int) -> Tensor:
    """beta times the mean similarity of distinct features, where that of two is the mean over
    samples of exp(-10 (difference)²): (n, d) -> (). WLD-Reg's direct form (arXiv 2301.01352),
    divided by the number of pairs; takes n d² numbers of memory."""
    differences = features[:, :, None] - features[:, None, :]
    alike = torch.exp(-10 * differences.square()).mean(dim=0)  # (d, d)
    return beta * off_diagonal(alike).sum() / pairs(len(alike))


VARIANTS: dict[str, Variant] = {
    "listing": listing,
    "relative": relative,
    "correlation": correlation,
    "wld": wld,
}
WITHOUT_VARIANCE = ("correlation", "wld")  # which have nothing that alpha could weigh
