"""How well features will transfer, estimated from labels without training a classifier.

Higher is better for each. They order networks; their values mean little by themselves.
"""

import math

import torch
from torch import Tensor

from vcr_zoo.features import Features

from .check import check
from .prototype import class_means


def h_score(features: Features) -> float:
    """tr(cov(f)⁻¹ cov(E[f | y])) (Bao et al., 2019), with Ledoit and Wolf's (2004) shrinkage of
    cov(f) as Ibrahim, Ponomareva and Mazumder (2022) advise. Up to classes - 1.

    Raises:
        ValueError: for features that `check` refuses.
    """
    check(train=features)
    x = features.x.double() - features.x.double().mean(dim=0)
    means = class_means(Features(x, features.y, features.classes))[features.y]  # (n, d)
    cov, shrinkage = shrunk_covariance(x)
    between = means.T @ means / len(x)
    return (1 - shrinkage) * torch.linalg.solve(cov, between).trace().item()


def shrunk_covariance(x: Tensor) -> tuple[Tensor, float]:
    """Ledoit and Wolf's (2004) mix of the covariance of centered rows with a multiple of the
    identity, and the identity's share: (n, d) -> (d, d), share."""
    n, d = x.shape
    cov = x.T @ x / n
    center = cov.trace() / d
    distance = cov.square().sum() / d - center**2  # |S - m I|² / d
    noise = ((x.square().T @ x.square()) / n - cov.square()).sum() / (n * d)
    share = (torch.minimum(noise, distance) / distance).item() if distance > 0 else 1.0
    identity = torch.eye(d, dtype=x.dtype, device=x.device)
    return (1 - share) * cov + share * center * identity, share


def logme(features: Features) -> float:
    """Mean over classes of the log evidence per picture of a Bayesian linear regression onto
    "is it this class" (You et al., 2021), its two precisions chosen by fixed-point iteration.

    Raises:
        ValueError: for features that `check` refuses.
    """
    check(train=features)
    x = features.x.double()
    x = x / x.square().mean().sqrt().clamp(min=1e-300)  # the evidence does not depend on scale
    n, d = x.shape
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    labels = torch.nn.functional.one_hot(features.y, len(features.classes)).to(x)  # (n, k)
    shadow = (u.T @ labels).square()  # (r, k): squared length of each label along each direction
    outside = (labels.square().sum(dim=0) - shadow.sum(dim=0)).clamp(min=0)
    return sum(
        log_evidence(s.square(), z, rest.item(), n, d)
        for z, rest in zip(shadow.T, outside, strict=True)
    ) / len(features.classes)


def log_evidence(power: Tensor, shadow: Tensor, outside: float, n: int, d: int) -> float:
    """Log evidence per picture of y ~ N(Xw, 1/beta), w ~ N(0, 1/alpha), at the best precisions.

    Args:
        power: squared singular values of X: (r,).
        shadow: (uᵢᵀ y)² for X's left singular vectors u: (r,).
        outside: |y|² less the sum of `shadow`.
    """
    alpha = beta = 1.0
    for _ in range(100):
        share = beta * power / (alpha + beta * power)  # of each direction, taken from the data
        gamma = share.sum().item()
        weight = (share.square() * shadow / power.clamp(min=1e-300)).sum().item()  # |m|²
        residual = ((1 - share).square() * shadow).sum().item() + outside  # |y - Xm|²
        before = alpha / beta
        alpha = gamma / max(weight, 1e-12)
        beta = (n - gamma) / max(residual, 1e-12)
        if abs(alpha / beta - before) <= 1e-5 * before:
            break
    share = beta * power / (alpha + beta * power)
    weight = (share.square() * shadow / power.clamp(min=1e-300)).sum().item()
    residual = ((1 - share).square() * shadow).sum().item() + outside
    determinant = (alpha + beta * power).log().sum().item() + (d - len(power)) * math.log(alpha)
    evidence = d * math.log(alpha) + n * math.log(beta) - determinant - n * math.log(2 * math.pi)
    return (evidence - beta * residual - alpha * weight) / (2 * n)


def leep(probabilities: Tensor, y: Tensor, classes: int) -> float:
    """Log expected empirical prediction (Nguyen et al., 2020): mean log of P(y | x) that goes
    through the source classes, Σ_z P(y | z) P(z | x). At most 0.

    Args:
        probabilities: of the source head for the target's pictures (n, source classes).
        y: target labels (n,).
    """
    joint = _joint(probabilities.double(), y, classes)  # (classes, source)
    conditional = joint / joint.sum(dim=0).clamp(min=torch.finfo(joint.dtype).tiny)
    predicted = (probabilities.double() * conditional[y]).sum(dim=1)
    return predicted.log().mean().item()


def nce(probabilities: Tensor, y: Tensor, classes: int) -> float:
    """Negative conditional entropy -H(y | z) of target labels given the source head's choice z
    (Tran, Nguyen and Hassner, 2019). At most 0, which means that z tells y.
    """
    source = probabilities.shape[1]
    chosen = torch.nn.functional.one_hot(probabilities.argmax(dim=1), source).double()
    joint = _joint(chosen, y, classes)
    conditional = joint / joint.sum(dim=0).clamp(min=torch.finfo(joint.dtype).tiny)
    return torch.special.xlogy(joint, conditional).sum().item()


def _joint(z: Tensor, y: Tensor, classes: int) -> Tensor:
    """Empirical P(y, z): (n, source), (n,) -> (classes, source)."""
    joint = z.new_zeros(classes, z.shape[1]).index_add_(0, y, z)
    return joint / len(y)
