"""DELTA (Li et al., 2019): feature maps stay near the pretrained ones, the useful ones most."""

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vcr_zoo.placement import find

from .method import Batch, Method

if TYPE_CHECKING:
    from .finetune import Finetuner


class Delta(Method):
    """Cross-entropy + strength / 2 · Σ over stages of the weighted squared distance of features.

    Features at the end of each stage are averaged over positions, and their squared distance from
    the pretrained network's is a weighted mean over channels. The authors compare whole maps and
    find a channel's weight by removing it: the softmax of how much the loss of a classifier on
    pretrained features then rises. We take, with `attention`, the derivative of the loss by a
    factor on the channel in place of the removal, after the head has learned alone; without it all
    channels weigh the same, which the authors call L2-FE.
    """

    name = "delta"
    pictures = True
    tuned = {"lr": 3.0, "strength": 10.0}  # noqa: RUF012

    def __init__(self, strength: float = 0.1, layers: str = "stages", attention: bool = True):
        if not strength >= 0:
            raise ValueError(f"strength {strength} must not be negative")
        self.strength, self.layers, self.attention = strength, layers, attention
        self._weights: dict[str, Tensor] = {}

    def prepare(self, run: "Finetuner") -> None:
        self._pretrained = copy.deepcopy(run.model).eval().requires_grad_(False)
        self._places = find(run.model, self.layers, run.config["input_size"])
        self._ours, self._theirs = {}, {}
        for model, seen in ((run.model, self._ours), (self._pretrained, self._theirs)):
            for place in self._places:
                module = model.get_submodule(place.name)
                module.register_forward_hook(Note(place, seen, module))

    def loss(self, run: "Finetuner", batch: Batch) -> Tensor:
        loss, learning = super().loss(run, batch), run.frozen < run.blocks.head
        if not learning or not self._ours:
            return loss
        if not self._weights:
            self.weigh(run)
        ours, theirs = dict(self._ours), self.pretrained(run, batch.x)
        distance = [
            (self._weights[name] * (ours[name].float() - theirs[name].float()).square())
            .sum(dim=1)
            .mean()
            for name in ours
        ]
        return loss + self.strength / 2 * torch.stack(distance).sum()

    @torch.no_grad()
    def pretrained(self, run: "Finetuner", x: Tensor) -> dict[str, Tensor]:
        with run.autocast():
            self._pretrained(x)
        return dict(self._theirs)

    def weigh(self, run: "Finetuner") -> None:
        """Weights of every channel, which sum to one in each stage: (d,)."""
        for place in self._places:
            self._weights[str(place)] = torch.full(
                (place.width,), 1 / place.width, device=run.device
            )
        if not self.attention:
            return
        gates = {str(p): torch.ones(p.width, device=run.device) for p in self._places}
        twin = copy.deepcopy(run.model).eval().requires_grad_(False)
        for place in self._places:
            gate = gates[str(place)].requires_grad_()
            twin.get_submodule(place.name).register_forward_hook(Gate(place, gate))
        rise = {name: torch.zeros_like(gate) for name, gate in gates.items()}
        with torch.enable_grad():
            for x, y in run.train.epoch(0):
                loss = F.cross_entropy(twin(x).float(), y)
                found = torch.autograd.grad(loss, list(gates.values()))
                for name, gradient in zip(gates, found, strict=True):
                    rise[name] -= gradient.detach() / len(run.train)  # of removing: 1 to 0
        self._weights = {
            name: (value / value.std().clamp(min=1e-12)).softmax(0) for name, value in rise.items()
        }

    def finish(self, run: "Finetuner") -> None:
        self._pretrained = None
        for place in self._places:
            hooks = run.model.get_submodule(place.name)._forward_hooks
            for key in [k for k, hook in hooks.items() if isinstance(hook, Note)]:
                del hooks[key]

    def state(self) -> dict[str, Tensor]:
        return dict(self._weights)

    def load(self, state: dict[str, Tensor]) -> None:
        self._weights = dict(state)

    def begin(self, run: "Finetuner") -> None:
        self._weights = {name: value.to(run.device) for name, value in self._weights.items()}


class Note:
    """A forward hook that keeps a place's features, averaged over positions: (b, d).

    Copies of the network share it and are not heard.
    """

    def __init__(self, place, seen: dict[str, Tensor], module):
        self.place, self.seen, self.module = place, seen, module

    def __deepcopy__(self, memo) -> "Note":
        return self

    def __call__(self, module, inputs, output) -> None:
        if module is self.module:
            value = output if self.place.item is None else output[self.place.item]
            value = value.movedim(self.place.dim, 1)
            self.seen[str(self.place)] = value.flatten(2).mean(2) if value.ndim > 2 else value


class Gate:
    """A forward hook that multiplies the channels of a place."""

    def __init__(self, place, gate: Tensor):
        self.place, self.gate = place, gate

    def __call__(self, module, inputs, output):
        place = self.place
        value = output if place.item is None else output[place.item]
        shape = [1] * value.ndim
        shape[place.dim] = -1
        value = value * self.gate.view(shape)
        if place.item is None:
            return value
        return type(output)(value if i == place.item else v for i, v in enumerate(output))
