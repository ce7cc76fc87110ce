"""timm's training tasks, with VCR added to their loss."""

from functools import cache

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model

from vcr_zoo.placement import attach

SCHEDULES = {  # what the penalties are multiplied by, of the share of a run; 1 on average
    "constant": lambda progress: 1.0,
    "rise": lambda progress: 2 * progress,
    "fall": lambda progress: 2 * (1 - progress),
}


class Regularized:
    """Mixin: a timm task whose loss includes the penalties of `vcr_zoo.placement.attach`.

    The returned dictionary gains `base_loss` (the task's own), `vcr_loss` (the penalties) and, in
    the order of `self.penalties.placements`, `vcr_variance` and `vcr_covariance`: (m,) each.
    With both weights zero nothing is attached and the dictionary is the task's own.
    """

    progress = 0.0  # share of the run that lies behind; set before every step

    def __init__(self, *args, vcr: dict, **kwargs):
        super().__init__(*args, **kwargs)
        settings = dict(vcr)
        self.strength = SCHEDULES[settings.pop("schedule", "constant")]
        self.penalties = attach(unwrap_model(self.get_eval_model()), **settings)

    def forward(self, input, target):
        """As the task's own, for a batch of images and its targets; untapped outside training."""
        if not (self.penalties.placements and self.training and torch.is_grad_enabled()):
            return super().forward(input, target)
        with self.penalties.collect() as collected:
            result = super().forward(input, target)
        total = self.strength(self.progress) * collected.total
        return result | {
            "loss": result["loss"] + total,
            "base_loss": result["loss"],
            "vcr_loss": total,
            "vcr_variance": collected.variance,
            "vcr_covariance": collected.covariance,
        }


@cache
def regularized(task: type[TrainingTask]) -> type[TrainingTask]:
    """The same task with VCR: its constructor also takes `vcr`, the arguments of `attach`.

        task = regularized(ClassificationTask)(model, criterion, vcr=vcr), with
        vcr = dict(layers="blocks", alpha=1.0, beta=1.0)

    Create it before EMA, compilation and DDP, which then carry the taps with them.
    """
    return type(f"Regularized{task.__name__}", (Regularized, task), {"__doc__": task.__doc__})
