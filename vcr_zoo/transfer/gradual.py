"""Gradual unfreezing (Howard and Ruder, 2018): from the head down, a block at a time."""

from typing import TYPE_CHECKING

from .method import Method

if TYPE_CHECKING:
    from .finetune import Finetuner


class Gradual(Method):
    """The head learns alone for `head_epochs`; then one more block, from the last to the first,
    joins every `every` epochs, or so that all have joined after half of the run."""

    name = "gradual"

    def __init__(self, every: int | None = None):
        if every is not None and every < 1:
            raise ValueError(f"a block every {every} epochs: at least 1")
        self.every = every

    def depth(self, run: "Finetuner", epoch: int) -> int:
        first, blocks = run.settings.head_epochs, len(run.blocks)
        if epoch < first:
            return run.blocks.head
        if self.every is not None:
            joined = (epoch - first) // self.every
        else:
            half = max((run.settings.epochs - first) // 2, 1)
            joined = (epoch - first) * blocks // half
        return max(blocks - joined, 0)
