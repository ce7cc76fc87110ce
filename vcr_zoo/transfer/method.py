"""Full fine-tuning, and the places where every other method differs from it."""

from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from .finetune import Finetuner


class Batch(NamedTuple):
    """One training step's tensors."""

    x: Tensor  # what the network was given
    y: Tensor  # (b,)
    pooled: Tensor  # (b, d), what enters the classifier
    logits: Tensor  # (b, classes)


class Method:
    """Every weight learns, by cross-entropy.

    A method is a small object with hooks, called by the one loop of `finetune.Finetuner`. Its
    public attributes are its settings, which are written beside the results.

    Attributes:
        pictures: whether every step needs the pictures themselves, so that activations of a frozen
            part do not do.
        tuned: the settings (of the method or of the loop) that a search may change, each with the
            factor between two neighbouring values.
    """

    name = "full"
    pictures = False
    tuned: dict[str, float] = {"lr": 3.0, "weight_decay": 10.0}  # noqa: RUF012

    def settings(self) -> dict:
        """What describes the method, beside its name."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def head(self, model: nn.Module, classes: int) -> None:
        """Give the network a classifier for the new classes; timm's initialization."""
        model.reset_classifier(classes)

    def prepare(self, run: "Finetuner") -> None:
        """Look at the pretrained network, its new head in place, or change it."""

    def depth(self, run: "Finetuner", epoch: int) -> int:
        """How many blocks are frozen in an epoch; first the head learns alone (see Settings)."""
        return run.blocks.head if epoch < run.settings.head_epochs else 0

    def learns(self, name: str) -> bool:
        """Whether a parameter learns when its block does."""
        return True

    def begin(self, run: "Finetuner") -> None:
        """After a checkpoint, if there was one, was read and before the first step."""

    def loss(self, run: "Finetuner", batch: Batch) -> Tensor:
        """What is minimized; penalties of VCR come on top."""
        return self.cross_entropy(run, batch.logits, batch.y)

    def cross_entropy(self, run: "Finetuner", logits: Tensor, y: Tensor) -> Tensor:
        """Mean over the rows, labels smoothed as the settings say: (b, k), (b,) -> ()."""
        return F.cross_entropy(logits.float(), y, label_smoothing=run.settings.smoothing)

    def after_step(self, run: "Finetuner", batch: Batch) -> None:
        """After the optimizer's step on a batch."""

    def finish(self, run: "Finetuner") -> None:
        """After the last epoch, the best weights in place: leave a network that timm can build."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must know."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over `state`."""
