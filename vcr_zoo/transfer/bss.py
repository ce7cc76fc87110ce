"""Batch spectral shrinkage (Chen et al., 2019): features that barely vary are left to vanish."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .method import Batch, Method

if TYPE_CHECKING:
    from .finetune import Finetuner


def smallest(features: Tensor, k: int = 1) -> Tensor:
    """Sum of the k smallest squared singular values of a batch: (b, d) -> (); NaN where it holds
    what is no number."""
    f = features.float()
    if not f.isfinite().all():
        return f.sum() * float("nan")
    gram = f @ f.T if len(f) <= f.shape[1] else f.T @ f
    return torch.linalg.eigvalsh(gram)[:k].clamp(min=0).sum()


class BSS(Method):
    """Cross-entropy + strength · the k smallest squared singular values of the batch's features."""

    name = "bss"
    tuned = {"lr": 3.0, "strength": 10.0}  # noqa: RUF012

    def __init__(self, strength: float = 1e-3, k: int = 1):
        if not strength >= 0 or k < 1:
            raise ValueError(f"strength {strength} must not be negative, k {k} at least 1")
        self.strength, self.k = strength, k

    def loss(self, run: "Finetuner", batch: Batch) -> Tensor:
        with torch.autocast(batch.pooled.device.type, enabled=False):
            penalty = smallest(batch.pooled, self.k)
        return super().loss(run, batch) + self.strength * penalty
