"""A network cut at the end of a block: what lies before, which may be frozen, and the rest."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vcr_zoo.placement import TRACE_BATCH, Trace, without_data


class Part(NamedTuple):
    """Names of the parameters of a part of a network, and of the modules that are wholly in it."""

    parameters: frozenset[str]
    modules: frozenset[str]


class Reached(Exception):
    """Ends a forward pass at a block; carries what the block returned."""


class Blocks:
    """The blocks of a network, in the order of its forward pass, and its classifier.

    At depth t the first t blocks and everything that runs before them are frozen: 0 freezes
    nothing, `len(blocks)` leaves what comes after the last block (a final norm, the classifier),
    and `blocks.head`, one more, leaves the classifier alone.

    Args:
        model: any timm network with a classifier.
        input_size: (channels, height, width) of the pictures; the model's own if None.

    Raises:
        ValueError: for a model without a classifier, or one without blocks.
    """

    def __init__(self, model: nn.Module, input_size: tuple | None = None):
        self.model = model
        self.trace = Trace(model, input_size)
        try:
            self.classifier = self.trace.classifier()
        except LookupError:
            raise ValueError(
                f"{type(model).__name__} has no classifier that its forward pass calls, and so "
                "nothing to learn new classes with: fine-tuning needs a model of timm.create_model"
            ) from None
        order = self.trace.order
        names = sorted(self.trace.blocks(), key=lambda name: order[name, "output"])
        if not names:
            raise ValueError(f"{type(model).__name__} has no blocks that can be told apart")
        self.places = [self.trace.placement(name, "output") for name in names]
        self.names = names
        self.parts: dict[int, Part] = {}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def head(self) -> int:
        """The depth that leaves the classifier alone."""
        return len(self) + 1

    def check(self, t: int) -> int:
        """A depth that this network has.

        Raises:
            LookupError: for another, with the list of blocks.
        """
        if not 0 <= t <= self.head:
            raise LookupError(
                f"depth {t} is beyond {type(self.model).__name__}, which has {len(self)} blocks: "
                f"0 freezes nothing, 1 to {len(self)} end with "
                f"{', '.join(self.names)}, and {self.head} leaves the classifier alone"
            )
        return t

    def frozen(self, t: int) -> Part:
        """What lies before the end of block t: parameters on which that block's output depends."""
        if self.check(t) not in self.parts:
            self.parts[t] = self.part(t)
        return self.parts[t]

    def part(self, t: int) -> Part:
        if t == 0:
            return Part(frozenset(), frozenset())
        names = dict(self.model.named_parameters())
        order = self.trace.order
        if t == self.head:
            inside = f"{self.classifier}."
            end = order[self.classifier, "input"]
            before = [name for name in names if not name.startswith(inside)]
        else:
            end = order[self.names[t - 1], "output"]
            before = self.leading_to(self.names[t - 1])
        modules = {
            name for (name, side), place in order.items() if side == "output" and place <= end
        }
        return Part(frozenset(before), frozenset(modules))

    def leading_to(self, block: str) -> list[str]:
        """Parameters on which a block's output depends, found by differentiating it."""
        refusals = (NotImplementedError, RuntimeError, TypeError, AssertionError)
        try:
            twin = without_data(self.model)
            return self.differentiated(twin, block, "meta")
        except refusals:  # a few models compute with values while they run
            twin = copy.deepcopy(self.model).cpu()
            return self.differentiated(twin, block, "cpu")

    def differentiated(self, twin: nn.Module, block: str, device: str) -> list[str]:
        for module in twin.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        twin.train().requires_grad_(True)
        dtype = next(p.dtype for p in twin.parameters())
        size = (TRACE_BATCH, *self.trace.input_size)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            output = upto(twin, block, torch.zeros(size, device=device, dtype=dtype))
            item = self.places[self.names.index(block)].item
            (output if item is None else output[item]).sum().backward()
        return [name for name, p in twin.named_parameters() if p.grad is not None]


def upto(model: nn.Module, name: str, x: Tensor, side: str = "output"):
    """What a module returns for pictures x, or is given, without running what comes after."""

    def stop(module, inputs, output=None):
        raise Reached(inputs[0] if side == "input" else output)

    module = model.get_submodule(name)
    if side == "input":
        handle = module.register_forward_pre_hook(stop)
    else:
        handle = module.register_forward_hook(stop)
    try:
        model(x)
    except Reached as reached:
        return reached.args[0]
    finally:
        handle.remove()
    raise RuntimeError(f"the forward pass did not reach {name}")


class Tail(nn.Module):
    """A network from the end of block t on: takes what that block returned, gives logits.

    What learns, and its buffers, are the model's own tensors. The part before is a copy without
    data on torch's meta device: it is called, because the code around the blocks cannot be taken
    apart, but computes nothing, and its modules know from the first batch of a size what they give.
    """

    def __init__(self, model: nn.Module, blocks: Blocks, t: int):
        super().__init__()
        self.block, self.item = blocks.names[t - 1], blocks.places[t - 1].item
        self.input_size = blocks.trace.input_size
        self.dtype = next(p.dtype for p in model.parameters())
        part = blocks.frozen(t)
        self.network = sharing(model, part)
        for name in part.modules:
            if name.rpartition(".")[0] not in part.modules:
                module = self.network.get_submodule(name)
                module.forward = Remembered(module.forward)
        self.network.get_submodule(self.block).register_forward_hook(self.inject)
        self.given: Tensor | None = None

    def inject(self, module, inputs, output):
        if self.item is None:
            return self.given
        return type(output)(
            self.given if i == self.item else value for i, value in enumerate(output)
        )

    def forward(self, rows: Tensor) -> Tensor:
        self.given = rows
        nothing = torch.empty(len(rows), *self.input_size, device="meta", dtype=self.dtype)
        try:
            return self.network(nothing)
        finally:
            self.given = None


class Head(nn.Module):
    """The classifier of a network alone: takes pooled features, gives logits."""

    def __init__(self, model: nn.Module, blocks: Blocks):
        super().__init__()
        self.network, self.classifier = model, model.get_submodule(blocks.classifier)

    def forward(self, rows: Tensor) -> Tensor:
        return self.classifier(rows)


class Remembered:
    """A function of tensors without data that runs once for each of their shapes."""

    def __init__(self, function: Callable):
        self.function, self.known = function, {}

    def __call__(self, *inputs, **more):
        tensors = tree_leaves((inputs, more))
        key = tuple(tuple(x.shape) if isinstance(x, Tensor) else repr(x) for x in tensors)
        if key not in self.known:
            self.known[key] = self.function(*inputs, **more)
        return self.known[key]


def sharing(model: nn.Module, part: Part) -> nn.Module:
    """A copy of the model with its own tensors, but those of the part, which are without data."""
    memo = {}
    for name, parameter in model.named_parameters():
        kept = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        memo[id(parameter)] = kept if name in part.parameters else parameter
    for name, buffer in model.named_buffers():
        inside = name.rpartition(".")[0] in part.modules
        memo[id(buffer)] = buffer.to("meta") if inside else buffer
    return copy.deepcopy(model, memo)


@torch.no_grad()
def tail(model: nn.Module, blocks: Blocks, t: int, x: Tensor) -> Tail | Head | None:
    """The model from the end of block t on, if that gives the same logits for pictures x.

    None where it does not: in networks whose later blocks need more of the earlier part than what
    block t returns, and before a classifier whose input is dropped at random.
    """
    if t == blocks.head and getattr(model, "drop_rate", 0.0):
        return None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        found = Head(model, blocks) if t == blocks.head else Tail(model, blocks, t)
        found.eval()
        same = torch.allclose(found(activation(model, blocks, t, x)), model(x), atol=1e-5)
    except (NotImplementedError, RuntimeError, TypeError, AttributeError):
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found if same else None


def activation(model: nn.Module, blocks: Blocks, t: int, x: Tensor) -> Tensor:
    """What block t returns for pictures x or, if all is frozen, what enters the classifier."""
    if t == blocks.head:
        return upto(model, blocks.classifier, x, "input")
    output, item = upto(model, blocks.names[t - 1], x), blocks.places[t - 1].item
    return output if item is None else output[item]
