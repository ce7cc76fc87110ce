"""LoRA (Hu et al., 2022) through PEFT: low-rank changes of frozen weights, merged at the end."""

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .method import Method

if TYPE_CHECKING:
    from .finetune import Finetuner

PLAIN = (nn.Linear.forward, nn.Conv2d.forward)  # to which a change of the weights can be added
log = logging.getLogger(__name__)


class LoRA(Method):
    """The head and, in every linear layer and convolution without groups of the blocks, a change
    of low rank; everything else stays. At the end the changes are added to the weights, so that
    the network is an ordinary one again. Layers that make something else of their weights first
    (as those that standardize them do) or whose weights are used without a call of the layer (as
    BEiT's and EVA's `qkv` are) stay as they are, with a warning.

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
        inside = tuple(f"{block}." for block in run.blocks.names)
        layers = {
            name: module
            for name, module in run.model.named_modules()
            if name.startswith(inside) and isinstance(module, nn.Linear | nn.Conv2d)
            if getattr(module, "groups", 1) == 1
        }
        plain = {name for name, module in layers.items() if type(module).forward in PLAIN}
        targets = sorted(plain & called(run.model, layers, run.train.example()))
        if not targets:
            raise ValueError(f"{type(run.model).__name__} has no layers in its blocks for LoRA")
        if left := sorted(layers.keys() - targets):
            log.warning("LoRA leaves %d layers as they are, %s the first", len(left), left[0])
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


@torch.no_grad()
def called(model: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> set[str]:
    """Names of the layers that a forward pass calls."""
    found: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: found.add(name))
        for name, layer in layers.items()
    ]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    return found


def imported():
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA needs PEFT: pip install 'vcr_zoo[lora]'") from error
    return peft
