"""LoRA (Hu et al., 2022) through PEFT: low-rank changes of frozen weights, merged at the end."""

from typing import TYPE_CHECKING

from torch import nn

from .method import Method

if TYPE_CHECKING:
    from .finetune import Finetuner


class LoRA(Method):
    """The head and, in every linear layer and convolution without groups of the blocks, a change
    of low rank; everything else stays. At the end the changes are added to the weights, so that
    the network is an ordinary one again.

    Args:
        rank: of each change; it is scaled by alpha / rank.
    """

    name = "lora"
    tuned = {"lr": 3.0, "alpha": 2.0}  # noqa: RUF012

    def __init__(self, rank: int = 8, alpha: float = 16.0):
        if rank < 1:
            raise ValueError(f"rank {rank} must be at least 1")
        self.rank, self.alpha = rank, alpha

    def prepare(self, run: "Finetuner") -> None:
        peft = imported()
        targets = [
            name
            for name, module in run.model.named_modules()
            if name.startswith(tuple(f"{block}." for block in run.blocks.names))
            and (
                isinstance(module, nn.Linear)
                or (isinstance(module, nn.Conv2d) and module.groups == 1)
            )
        ]
        if not targets:
            raise ValueError(f"{type(run.model).__name__} has no layers in its blocks for LoRA")
        config = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets)
        peft.inject_adapter_in_model(config, run.model)
        self._inside = f"{run.blocks.classifier}."

    def learns(self, name: str) -> bool:
        return "lora_" in name or name.startswith(self._inside)

    def finish(self, run: "Finetuner") -> None:
        """Ordinary layers again, with the changes added to their weights."""
        layer = imported().tuners.lora.LoraLayer
        for name, module in list(run.model.named_modules()):
            if isinstance(module, layer):
                module.merge()
                run.model.set_submodule(name, module.get_base_layer())


def imported():
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA needs PEFT: pip install 'vcr_zoo[lora]'") from error
    return peft
