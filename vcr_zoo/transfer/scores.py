"""How good predictions are: shares between 0 and 1, and the log loss in nats."""

import torch
from torch import Tensor


def scores(probabilities: Tensor, y: Tensor) -> dict[str, float]:
    """Every measure of this file: probabilities (n, k), labels (n,)."""
    measures = (top1, per_class, log_loss, calibration_error)
    return {measure.__name__: measure(probabilities, y) for measure in measures}


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, in float64: in float32 classes 104 apart have none."""
    return logits.double().softmax(dim=-1)


def top1(probabilities: Tensor, y: Tensor) -> float:
    """Share of pictures whose most probable class is theirs: (n, k), (n,)."""
    return (probabilities.argmax(dim=1) == y).double().mean().item()


def per_class(probabilities: Tensor, y: Tensor) -> float:
    """Mean over the classes that have pictures of the share of theirs that is right."""
    right = (probabilities.argmax(dim=1) == y).double()
    counts = torch.bincount(y, minlength=probabilities.shape[1])
    hits = torch.bincount(y, weights=right, minlength=probabilities.shape[1])
    return (hits[counts > 0] / counts[counts > 0]).mean().item()


def log_loss(probabilities: Tensor, y: Tensor) -> float:
    """Mean of -log of the probability given to the true class; finite, in float64's range."""
    true = probabilities.gather(1, y[:, None]).double()
    return -true.clamp(min=torch.finfo(torch.float64).tiny).log().mean().item()


def calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected gap between confidence and accuracy in bins of equal width (Guo et al., 2017)."""
    confidence, chosen = probabilities.double().max(dim=1)
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    surplus = torch.zeros(bins, dtype=torch.float64, device=y.device)
    surplus.index_add_(0, which, confidence - (chosen == y).double())
    return (surplus.abs().sum() / len(y)).item()
