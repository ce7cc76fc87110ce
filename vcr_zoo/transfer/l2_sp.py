"""L2-SP (Li, Grandvalet and Davoine, 2018): weights decay toward their start, not to zero."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .method import Batch, Method

if TYPE_CHECKING:
    from .finetune import Finetuner


class L2SP(Method):
    """Cross-entropy + strength / 2 · |w - w₀|² over what was pretrained + head / 2 · |v|² over the
    new head; takes the place of weight decay, which should be zero with it."""

    name = "l2-sp"
    tuned = {"lr": 3.0, "strength": 10.0}  # noqa: RUF012

    def __init__(self, strength: float = 0.01, head: float = 0.01):
        if not (strength >= 0 and head >= 0):
            raise ValueError(f"strength {strength} and head {head} must not be negative")
        self.strength, self.head_strength = strength, head

    def prepare(self, run: "Finetuner") -> None:
        if run.settings.weight_decay:
            raise ValueError(
                f"L2-SP takes the place of weight decay, which is {run.settings.weight_decay}: "
                "set weight_decay to 0"
            )
        inside = f"{run.blocks.classifier}."
        self._start = {
            name: p.detach().clone()
            for name, p in run.model.named_parameters()
            if not name.startswith(inside)
        }

    def loss(self, run: "Finetuner", batch: Batch) -> Tensor:
        old = new = torch.zeros((), device=run.device)
        for name, p in run.model.named_parameters():
            if not p.requires_grad:
                continue
            start = self._start.get(name)
            if start is None:
                new = new + p.square().sum()
            else:
                old = old + (p - start).square().sum()
        penalty = (self.strength * old + self.head_strength * new) / 2
        return super().loss(run, batch) + penalty
