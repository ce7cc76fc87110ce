"""What VCR is compared with: other penalties on the same features, and VCR weighed otherwise.

Each is a function of n samples of d features, which autograd differentiates. They answer questions
about the method; `vcr_zoo.penalty` is what is fast.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vcr_zoo.penalty import covariance, off_diagonal, pairs, penalty

Variant = Callable[[Tensor, float, float, float | None, float], Tensor]


def listing(features: Tensor, alpha: float, beta: float, delta, eps: float) -> Tensor:
    """VCR with beta times n - 1: (n, d) -> (). What a listing that circulates for arXiv 2306.13292
    amounts to, which leaves out the 1 / (n - 1) of the covariance term's gradient."""
    return penalty(features, alpha, beta * (len(features) - 1), delta=delta, eps=eps)


def relative(features: Tensor, alpha: float, beta: float, delta, eps: float) -> Tensor:
    """VCR of features in units of their own root mean variance, which has no gradient: (n, d) ->
    (). Networks whose features differ in scale alone have the same penalty."""
    scale = (features.detach().var(dim=0).mean() + eps).sqrt()
    return penalty(features / scale, alpha, beta, delta=delta, eps=eps)


def correlation(features: Tensor, alpha: float, beta: float, delta, eps: float) -> Tensor:
    """beta times the mean squared correlation between distinct features: (n, d) -> (). The
    redundancy term of Barlow Twins (arXiv 2103.03230) on one batch, without its other half."""
    std = (features.var(dim=0) + eps).sqrt()
    off = off_diagonal(covariance(features / std))
    return beta * off.square().sum() / pairs(len(off))


def wld(features: Tensor, alpha: float, beta: float, delta, eps: float, gamma=10.0) -> Tensor:
    """beta times the mean similarity of distinct features, where that of two is the mean over
    samples of exp(-gamma (difference)²): (n, d) -> (). WLD-Reg's direct form (arXiv 2301.01352),
    divided by the number of pairs."""
    d = features.shape[1]
    alike = sum(  # a few samples at a time: (n, d, d) may be large
        torch.exp(-gamma * (some[:, :, None] - some[:, None, :]).square()).sum(dim=0)
        for some in features.split(64)
    )
    return beta * off_diagonal(alike / len(features)).sum() / pairs(d)


VARIANTS: dict[str, Variant] = {
    "listing": listing,
    "relative": relative,
    "correlation": correlation,
    "wld": wld,
}
