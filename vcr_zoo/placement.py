"""Where the penalty sits in a network: find the tensors, tap them, collect what they add.

`find` names the tensors: the outputs of blocks (after the residual addition, as in the paper), of
stages, the pooled vector that enters the classifier, or modules named by the user. `attach` taps
them with forward hooks, so state-dict keys never change and `detach` leaves no trace.
"""

import contextlib
import copy
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from timm.models import group_modules
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vcr_zoo.penalty import (
    Terms,
    begin,
    check_settings,
    covariance,
    covariance_penalty,
    full_precision,
    sampled,
    variance_penalty,
)
from vcr_zoo.results import closest
from vcr_zoo.variants import VARIANTS, WITHOUT_VARIANCE

LAYERS = ("blocks", "stages", "pooled")
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NOT_BLOCKS = ("stem", "downsample", "patch_embed", "pos_block", "cpe", "global_block")
EVERY = 4  # steps in which maps take turns, unless said otherwise
TRACE_BATCH = 3  # no network has three channels or positions where a batch is expected


@dataclass(frozen=True)
class Placement:
    """One regularized tensor: what a module returns or, for `pooled`, what it is given."""

    name: str  # the module, as in model.get_submodule
    side: str  # "output" or "input"
    item: int | None  # which of a tuple; None for a bare tensor
    dim: int  # axis of the features
    width: int  # number of features
    rows_per_image: int
    writers: tuple[str, ...] = ()  # modules that change this tensor in place

    def __str__(self) -> str:
        return f"{self.name}.{self.side}" if self.side == "input" else self.name


def find(
    model: nn.Module, layers: str | Iterable[str] = "blocks", input_size: tuple | None = None
) -> list[Placement]:
    """Where a penalty would sit, in the order of the forward pass.

    Args:
        model: any timm architecture, or a module that takes a batch of images.
        layers: "blocks", "stages", "pooled" or module names; several as a list or with commas.
        input_size: (channels, height, width) of the images; the model's own if None.

    Raises:
        LookupError: for a layer that the model has not, or that its forward pass does not reach.
        ValueError: for an input size that the model does not take.
    """
    trace = Trace(model, input_size)
    keys = {key for word in split(layers) for key in trace.named(word)}
    return [trace.placement(*key) for key in sorted(keys, key=trace.order.get)]


def split(layers: str | Iterable[str]) -> list[str]:
    words = layers.split(",") if isinstance(layers, str) else list(layers)
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise LookupError(f"no layers named: choose from {', '.join(LAYERS)} or module names.")
    return words


class Trace:
    """One forward pass over a copy of the model without data, and what it tells about it."""

    def __init__(self, model: nn.Module, input_size: tuple | None = None):
        self.model = model
        self.input_size = tuple(input_size or default_input_size(model))
        self.values: dict[tuple[str, str], Tensor | tuple] = {}  # (module, side): what passed
        self.order: dict[tuple[str, str], int] = {}
        self.residual: list[tuple[str, ...]] = []  # modules around every residual addition
        self.storages: dict[int, list[tuple[str, str]]] = {}  # where those values live
        self.writes: dict[tuple[str, str], list[str]] = {}  # who then changes them in place
        refusals = (NotImplementedError, RuntimeError, TypeError, AssertionError)
        try:
            self.run("meta")
        except refusals:  # a few models compute with values while they run
            try:
                self.run("cpu")
            except refusals as error:
                raise ValueError(
                    f"{type(model).__name__} does not take images of {self.input_size} (channels, "
                    f"height, width; input_size=... says others): {error}"
                ) from error

    def run(self, device: str) -> None:
        """Forward a batch through a copy of the model in training mode, watching."""
        for record in (self.values, self.order, self.residual, self.storages, self.writes):
            record.clear()
        twin = without_data(self.model) if device == "meta" else copy.deepcopy(self.model).cpu()
        dtype = next((p.dtype for p in twin.parameters()), torch.float32)
        stack = []
        for name, module in twin.named_modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
            if name:
                module.register_forward_pre_hook(self.enter(name, stack))
                module.register_forward_hook(self.leave(name, stack))
        with torch.random.fork_rng(devices=[]), torch.no_grad(), Watch(self, stack):
            twin.train()(torch.zeros(TRACE_BATCH, *self.input_size, device=device, dtype=dtype))

    def enter(self, name: str, stack: list[str]):
        def hook(_, inputs):
            stack.append(name)
            self.note(name, "input", inputs)

        return hook

    def leave(self, name: str, stack: list[str]):
        def hook(_, __, output):
            stack.pop()
            self.note(name, "output", output)

        return hook

    def note(self, name: str, side: str, value) -> None:
        if (name, side) not in self.values:
            self.order[name, side] = len(self.order)
        self.values[name, side] = value
        _, tensor = first_tensor(value)
        if tensor is not None:
            self.storages.setdefault(tensor.untyped_storage()._cdata, []).append((name, side))

    # Which tensors are meant

    def named(self, layer: str) -> list[tuple[str, str]]:
        """The (module, side) pairs that one word of `layers` stands for."""
        if layer == "blocks":
            return [(name, "output") for name in self.blocks()]
        if layer == "stages":
            return [(name, "output") for name in self.stages()]
        if layer == "pooled":
            return [(self.classifier(), "input")]
        if (layer, "output") not in self.values:
            kind = type(self.model).__name__
            if layer in dict(self.model.named_modules()):
                raise LookupError(
                    f"the forward pass of {kind} does not call layer {layer!r}; name a module that "
                    f"it calls, or one of {', '.join(LAYERS)}."
                )
            known = [name for name, side in self.values if side == "output"]
            raise LookupError(
                f"{kind} has no layer {layer!r}.{closest(layer, [*LAYERS, *known])} "
                f"Or one of {', '.join(LAYERS)}."
            )
        return [(layer, "output")]

    def blocks(self) -> list[str]:
        """Blocks of the architecture: where it adds residuals, else where timm groups layers."""
        return self.residual_blocks() or self.matcher_blocks() or self.feature_modules()

    def residual_blocks(self) -> list[str]:
        """Called modules of those classes that add a residual: see `block_of`."""
        modules = dict(self.model.named_modules())
        hits = {name for stack in self.residual if (name := self.block_of(stack))}
        hits = {name for name in hits if not outside_blocks(name)}
        classes = {type(modules[name]) for name in hits}
        called = [name for name, side in self.order if side == "output" and self.usable(name)]
        same = [
            name for name in called if type(modules[name]) in classes and not outside_blocks(name)
        ]
        in_container = [name for name in same if isinstance(parent(modules, name), CONTAINERS)]
        stage_like = {
            name for name in same if any(inner.startswith(name + ".") for inner in in_container)
        }
        kept = [name for name in same if name not in stage_like]
        return [name for name in kept if not any(name.startswith(outer + ".") for outer in kept)]

    def block_of(self, stack: tuple[str, ...]) -> str | None:
        """The block around an addition: the innermost member of a container, else numbered one."""
        modules = dict(self.model.named_modules())
        inside_out = [name for name in reversed(stack) if not isinstance(modules[name], CONTAINERS)]
        in_container = (n for n in inside_out if isinstance(parent(modules, n), CONTAINERS))
        numbered = (n for n in inside_out if n[-1].isdigit())
        return next(in_container, None) or next(numbered, None)

    def matcher_blocks(self) -> list[str]:
        """The largest modules within one of timm's layer groups, for networks without residuals."""
        if not hasattr(self.model, "group_matcher"):
            return []
        groups = group_modules(self.model, self.model.group_matcher(coarse=False), reverse=True)
        ids = {}  # module: the groups of the parameters at or below it
        for name, group in groups.items():
            for prefix in itertools.accumulate(name.split("."), lambda a, b: f"{a}.{b}"):
                ids.setdefault(prefix, set()).add(group)
        called = [name for name, side in self.order if side == "output" and self.usable(name)]
        inner = [name for name in called if len(ids.get(name, ())) == 1]
        stem, head = min(groups.values()), max(groups.values())
        largest = [
            name
            for name in inner
            if name.rpartition(".")[0] not in inner and not ids[name] <= {stem, head}
        ]
        modules = dict(self.model.named_modules())
        return [n for n in largest if isinstance(parent(modules, n), CONTAINERS)] or largest

    def feature_modules(self) -> list[str]:
        """Modules that timm names in `feature_info`."""
        info = getattr(self.model, "feature_info", [])
        names = [entry["module"] for entry in getattr(info, "info", info)]
        return [name for name in names if (name, "output") in self.values and self.usable(name)]

    def stages(self) -> list[str]:
        """The last block up to each of timm's feature modules; all blocks where it names blocks."""
        blocks = self.blocks()
        ends = [self.order[name, "output"] for name in self.feature_modules()]
        upto = [[name for name in blocks if self.order[name, "output"] <= end] for end in ends]
        return list(dict.fromkeys(before[-1] for before in upto if before)) or blocks

    def classifier(self) -> str:
        """The module whose input is the pooled feature vector."""
        modules = dict(self.model.named_modules())
        head = self.model.get_classifier() if hasattr(self.model, "get_classifier") else None
        head = head[0] if isinstance(head, (tuple, list, nn.ModuleList)) else head
        for name, module in modules.items():
            if module is head and self.usable(name, "input"):
                return name
        raise LookupError(
            f"{type(self.model).__name__} has no classifier that its forward pass calls, so no "
            f"pooled vector: choose blocks, stages or module names."
        )

    # What is known about them

    def usable(self, name: str, side: str = "output") -> bool:
        """Whether features of the whole batch pass here."""
        _, tensor = first_tensor(self.values.get((name, side)))
        return tensor is not None and tensor.is_floating_point()

    def placement(self, name: str, side: str) -> Placement:
        value = self.values[name, side]
        item, tensor = first_tensor(value)
        if tensor is None:
            raise LookupError(f"layer {name!r} passes no tensor with a batch axis")
        dim = self.feature_axis(name, side, tensor)
        return Placement(
            name,
            side,
            item if isinstance(value, (tuple, list)) else None,
            dim,
            width=tensor.shape[dim],
            rows_per_image=tensor.numel() // (tensor.shape[dim] * TRACE_BATCH),
            writers=tuple(self.writes.get((name, side), ())),
        )

    def feature_axis(self, name: str, side: str, value: Tensor) -> int:
        """Last for vectors and tokens. For maps the axis as long as the module's parameters; if
        several are, the one that keeps its length when the images are twice as large; else last
        unless the module convolves."""
        if value.ndim <= 3:
            return value.ndim - 1
        module = self.model.get_submodule(name)
        widths = {p.shape[0] for p in (*module.parameters(), *module.buffers()) if p.ndim}
        first, last = value.shape[1] in widths, value.shape[-1] in widths
        if first != last:
            return 1 if first else value.ndim - 1
        _, larger = first_tensor(self.larger.get((name, side)))
        if larger is not None:
            kept = [dim for dim in (1, value.ndim - 1) if larger.shape[dim] == value.shape[dim]]
            if len(kept) == 1:
                return kept[0]
        convolves = any(isinstance(part, nn.Conv2d) for part in module.modules())
        return 1 if convolves else value.ndim - 1

    @functools.cached_property
    def larger(self) -> dict:
        """What passes where for images of twice the size; nothing if the model refuses them."""
        channels, height, width = self.input_size
        try:
            return Trace(self.model, (channels, 2 * height, 2 * width)).values
        except ValueError:
            return {}


class Watch(TorchDispatchMode):
    """Notes residual additions and in-place operations while a model runs."""

    def __init__(self, trace: Trace, stack: list[str]):
        super().__init__()
        self.trace, self.stack = trace, stack

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor):
            a, b = args[:2]
            tensors = isinstance(a, Tensor) and isinstance(b, Tensor)
            if tensors and a.shape == b.shape and a.ndim >= 3 and len(a) == TRACE_BATCH:
                self.trace.residual.append(tuple(self.stack))
        if func._schema.is_mutable and args and isinstance(args[0], Tensor):
            for key in self.trace.storages.get(args[0].untyped_storage()._cdata, ()):
                self.trace.writes.setdefault(key, []).append(self.stack[-1] if self.stack else "")
        return func(*args, **(kwargs or {}))


def first_tensor(value) -> tuple[int, Tensor | None]:
    """The first tensor of a value, or of its items, that has the batch as its first axis."""
    for item, tensor in enumerate(value if isinstance(value, (tuple, list)) else (value,)):
        if isinstance(tensor, Tensor) and tensor.ndim >= 2 and len(tensor) == TRACE_BATCH:
            return item, tensor
    return 0, None


def outside_blocks(name: str) -> bool:
    """Whether a module belongs to a stem, to downsampling or to position embeddings."""
    return any(part.startswith(NOT_BLOCKS) for part in name.split("."))


def parent(modules: dict[str, nn.Module], name: str) -> nn.Module:
    return modules[name.rpartition(".")[0]]


def without_data(model: nn.Module) -> nn.Module:
    """A copy of the model whose parameters and buffers have shapes but no values."""
    memo = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = tensor.detach().to("meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, memo)


def default_input_size(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) that a timm model was built for."""
    channels, *size = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or size
    return (getattr(model, "in_chans", channels), *size)


class Collected:
    """What the taps added in one forward pass.

    V and K of every placement, without a gradient: (m,) each; of a module that is called several
    times their sums. K is zero where its weight is, because it is not computed there. Of placements
    that take turns: k times V and K in the one of k steps that they take part in, zero in the
    others, so that means over k steps are those of V and K.
    """

    total: Tensor | float = 0.0  # add this to the loss
    variance: Tensor | None = None  # where nothing is tapped
    covariance: Tensor | None = None


class Penalties:
    """The taps on a model; made by `attach`."""

    def __init__(self, placements: list[Placement], weights: list[tuple[float, float]], **settings):
        self.placements = placements
        self.weights = weights  # (alpha, beta) of every placement
        self.delta, self.eps = settings["delta"], settings["eps"]
        self.rows, self.seed, self.group = settings["rows"], settings["seed"], settings["group"]
        self.variant, self.share = settings["variant"], settings["share"]
        self.turns = turns(placements, settings["every"])
        self.takes_part = [True] * len(placements)  # in this step
        self.step = 0  # who takes part, and with which rows, is a function of (seed, step)
        self.offsets = torch.zeros(len(placements), dtype=torch.int64)
        self.switched: set[nn.Module] = set()  # modules told to leave their input as it is
        self.must_clone: set[int] = set()  # placements changed in place where no flag forbids it
        self.undo = []  # what detach has to call
        self.active = True
        self.collecting = False
        self.few: list[tuple[int, Tensor]] = []  # samples of placements where few take part
        self.done: list[tuple[int, Tensor, Tensor]] = []  # penalty and terms of the others

    @contextlib.contextmanager
    def collect(self) -> Iterator[Collected]:
        """Gather the penalties of one forward pass; read them after the block.

        With activation checkpointing call backward before the next `collect`: the recomputed pass
        samples the rows of the latest one.

        Raises:
            RuntimeError: if a placement was not reached while gradients were recorded.
        """
        if self.rows is not None:
            generator = torch.Generator().manual_seed(hash((self.seed, self.step)) % 2**63)
            self.offsets.copy_(torch.randint(2**31, self.offsets.shape, generator=generator))
        self.takes_part = [self.step % k == turn for k, turn in self.turns]
        self.step += 1
        self.few, self.done = [], []
        self.collecting = True
        collected = Collected()
        try:
            yield collected
        finally:
            self.collecting = False
            few, self.few, done, self.done = self.few, [], self.done, []
        if not self.placements or not torch.is_grad_enabled():
            return
        missed = {p for p, wanted in zip(self.placements, self.takes_part, strict=True) if wanted}
        missed -= {self.placements[i] for i, *_ in (*few, *done)}
        if missed := [p for p in self.placements if p in missed]:
            raise RuntimeError(
                f"the forward pass did not regularize {missed[0]}"
                f"{f' and {len(missed) - 1} more' if missed[1:] else ''}: is the model in training "
                "mode? Activation checkpointing must use use_reentrant=False. Where torch.compile "
                "met the architecture without taps first, set torch._dynamo.config."
                "skip_nnmodule_hook_guards = False before, or it takes that graph again."
            )
        penalties = [penalty for _, penalty, _ in done]
        terms = {}  # (V, K) of every placement; of a module that is called twice there are two
        for i, _, values in done:
            terms.setdefault(i, []).append(self.turns[i][0] * values)
        for members, (alpha, beta) in alike(few, [self.weighted(i) for i, _ in few]):
            features = torch.stack([samples for _, samples in members])
            v, k = Terms.apply(features, self.delta, self.eps, beta > 0)
            penalties.append((alpha * v + beta * k).sum())
            for (i, _), values in zip(members, torch.stack([v, k], dim=1).detach(), strict=True):
                terms.setdefault(i, []).append(self.turns[i][0] * values)
        collected.total = torch.stack(penalties).sum()
        zero = torch.zeros_like(next(iter(terms.values()))[0])
        each = [sum(terms.get(i, ()), zero) for i in range(len(self.placements))]
        collected.variance, collected.covariance = torch.stack(each).unbind(dim=1)

    def weighted(self, i: int) -> tuple[float, float]:
        """alpha and beta of placement i in a step that it takes part in."""
        alpha, beta = self.weights[i]
        return alpha * self.turns[i][0], beta * self.turns[i][0]

    def tapped(self, i: int, x: Tensor) -> Tensor:
        """The tensor at placement i, tapped."""
        place, weights = self.placements[i], self.weighted(i)
        rows = self.rows if place.rows_per_image > 1 else None
        settings = (*weights, self.delta, self.eps)
        share = None if self.share is None else self.share * self.turns[i][0]
        if self.variant is None:
            where = (place.dim, rows, self.offsets[i])
            y, few, done = begin(x, *settings, *where, self.group, share)
        else:
            (y, taken), few = sampled(x, place.dim, rows, self.offsets[i], share), None
            with torch.autocast(x.device.type, enabled=False):
                taken, n = full_precision(taken), x.numel() // place.width
                done = VARIANTS[self.variant](taken, *settings, n), terms_of(taken, *settings[2:])
        if self.collecting and few is not None:
            self.few.append((i, few))
        elif self.collecting:
            self.done.append((i, *done))
        return y.clone() if i in self.must_clone else y

    def insert(self, i: int, module: nn.Module) -> None:
        """Hook placement i into its module."""
        register = {
            "input": module.register_forward_pre_hook,
            "output": module.register_forward_hook,
        }[self.placements[i].side]
        self.undo.append(register(Hook(self, i, module)).remove)

    def keep_apart(self, i: int, writer: nn.Module) -> None:
        """Stop a module from changing placement i in place, which autograd refuses on a view."""
        if getattr(writer, "inplace", False) is True:
            writer.inplace = False
            self.switched.add(writer)
            self.undo.append(lambda: setattr(writer, "inplace", True))
        elif writer not in self.switched:
            self.must_clone.add(i)

    def detach(self) -> None:
        """Take the taps out and leave the model as it was."""
        self.active = False
        while self.undo:
            self.undo.pop()()


@torch.no_grad()
def terms_of(features: Tensor, delta: float | None, eps: float) -> Tensor:
    """V and K, for logging: (n, d) -> (2,)."""
    cov = covariance(features)
    return torch.stack([variance_penalty(cov.diagonal(), eps), covariance_penalty(cov, delta)])


def steps_of(every: int | None, rows: int | None) -> int:
    """In how many steps maps take turns: as asked, or EVERY where samples of them are drawn."""
    if every is not None:
        return every
    return EVERY if rows else 1


def turns(placements: list[Placement], every: int) -> list[tuple[int, int]]:
    """(k, turn) of every placement: it takes part in the steps that leave `turn` over when divided
    by k. Maps share the steps evenly among themselves, vectors take part in all."""
    maps = [i for i, place in enumerate(placements) if place.rows_per_image > 1]
    k = max(1, min(every, len(maps)))  # no step goes without
    return [(k, maps.index(i) % k) if i in maps else (1, 0) for i in range(len(placements))]


def flops(
    placements: list[Placement], turns: list[tuple[int, int]], pictures: int, rows: int | None
) -> float:
    """What the penalties compute for one of a batch of pictures, mean over steps: two products of
    the samples with (d, d) matrices, HᵀH in forward and HM in backward. (At most: of fewer samples
    than features it may be products with (n, n) matrices.)"""
    total = 0.0
    for place, (every, _) in zip(placements, turns, strict=True):
        n = place.rows_per_image * pictures
        if rows and place.rows_per_image > 1:
            n = min(n, rows)
        total += 4 * n * place.width**2 / pictures / every
    return total


def alike(few: list[tuple[int, Tensor]], weights: list[tuple[float, float]]):
    """Placements whose samples can be stacked, and their weights."""
    stacks = {}
    for (i, samples), weight in zip(few, weights, strict=True):
        key = (samples.shape, samples.dtype, weight)
        stacks.setdefault(key, []).append((i, samples))
    return [(members, weight) for (*_, weight), members in stacks.items()]


class Hook:
    """A forward hook that taps one placement; copies of the model share it and stay untapped."""

    def __init__(self, penalties: Penalties, i: int, module: nn.Module):
        self.penalties, self.i, self.module = penalties, i, module

    def __deepcopy__(self, memo) -> "Hook":
        return self

    def __call__(self, module: nn.Module, inputs, output=None):
        penalties = self.penalties
        if module is not self.module or not (penalties.active and module.training):
            return None
        if not torch.is_grad_enabled() or not penalties.takes_part[self.i]:
            return None
        place = penalties.placements[self.i]
        value = inputs if place.side == "input" else output
        if place.item is None:
            return penalties.tapped(self.i, value)
        items = list(value)
        items[place.item] = penalties.tapped(self.i, items[place.item])
        return type(value)(items) if type(value) in (tuple, list) else type(value)(*items)


def attach(
    model: nn.Module,
    layers: str | Iterable[str] = "blocks",
    *,
    alpha: float | Iterable[float],
    beta: float | Iterable[float],
    delta: float | None = 1.0,
    eps: float = 1e-4,
    rows: int | None = 64,
    every: int | None = None,
    variant: str | None = None,
    share: float | None = None,
    sync: bool = False,
    input_size: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Penalties:
    """Tap a model's features, so that training it under `collect` also regularizes them.

        penalties = attach(model, "pooled", alpha=0.39, beta=0.34)
        with penalties.collect() as collected:
            loss = criterion(model(images), labels)
        (loss + collected.total).backward()

    Only modules in training mode are tapped, and only while gradients are recorded. With both
    weights zero nothing is attached. Attach before copying, compiling or distributing the model;
    who compiles it with and without taps in one process sets
    torch._dynamo.config.skip_nnmodule_hook_guards = False, as training does.

    Args:
        layers: where, see `find`; the penalties of all placements are summed (arXiv 2306.13292).
            "pooled" takes timm's classifiers alone, all others any module.
        alpha, beta: weights of the variance and covariance terms; one number, or one for each
            word of `layers`. A placement that two words name has the weights of the later one.
        delta, eps: see `vcr_zoo.penalty.tap`.
        rows: at most so many samples of each map or sequence take part in a step, others in the
            next, which makes the penalty nearly free; None takes all. Pooled vectors are few and
            all take part. Squared covariances of few samples come out larger: see docs/vcr.md.
        every: maps and sequences take turns, each in one of so many steps with so many times its
            weights; None: 4 where `rows` are sampled and 1, all in every step, where all are taken.
        variant: of `vcr_zoo.variants`, instead of VCR as it is.
        share: scale the penalty's gradient at each placement to this share of the norm of the
            gradient that passes there; alpha and beta then count by their ratio alone.
        sync: take statistics over all processes of the default group.
        seed: of the sampled rows.

    Raises:
        LookupError: for a layer that the model has not.
        ValueError: for a negative weight, weights that do not match the layers, or other settings
            that `vcr_zoo.penalty.tap` refuses.
    """
    words = split(layers)
    check_settings(0, 0, delta, eps, rows)
    if variant is not None and variant not in VARIANTS:
        raise LookupError(f"no variant {variant!r}.{closest(variant, VARIANTS)} {[*VARIANTS]}")
    if share is not None and not 0 < share < math.inf:
        raise ValueError(f"share={share} must be positive and finite")
    if sync and (variant is not None or share is not None):
        what = "share" if variant is None else f"variant={variant!r}"
        raise ValueError(f"{what} has no form that is synchronized over processes")
    every = steps_of(every, rows)
    if every < 1:
        raise ValueError(f"every={every}: 1 takes all placements in every step")
    alphas, betas = per_word("alpha", alpha, words), per_word("beta", beta, words)
    weights = {}
    if variant in WITHOUT_VARIANCE and any(alphas) and not any(betas):
        raise ValueError(f"variant={variant!r} has no variance term: beta weighs it, and is 0")
    if any(alphas) or any(betas):
        trace = Trace(model, input_size)
        for word, pair in zip(words, zip(alphas, betas, strict=True), strict=True):
            for key in trace.named(word) if any(pair) else ():
                weights[key] = pair
    keys = sorted(weights, key=trace.order.get) if weights else []
    penalties = Penalties(
        [trace.placement(*key) for key in keys],
        [weights[key] for key in keys],
        delta=delta,
        eps=eps,
        rows=rows,
        every=every,
        seed=seed,
        variant=variant,
        share=share,
        group=dist.group.WORLD if sync else None,
    )
    for i, place in enumerate(penalties.placements):
        penalties.insert(i, model.get_submodule(place.name))
        for writer in place.writers:
            penalties.keep_apart(i, model.get_submodule(writer))
    return penalties


def per_word(name: str, weight: float | Iterable[float], words: list[str]) -> list[float]:
    weights = [weight] * len(words) if isinstance(weight, (int, float)) else list(weight)
    if len(weights) not in (1, len(words)):
        raise ValueError(
            f"{len(weights)} values of {name} for {len(words)} layers ({', '.join(words)}): give "
            "one, or one for each"
        )
    if wrong := [w for w in weights if not 0 <= w < math.inf]:
        raise ValueError(f"{name} must be zero or more, and finite, not {wrong[0]}")
    return weights if len(weights) == len(words) else weights * len(words)
