"""What VCR adds to a training step: time, memory and FLOPs beside the plain step.

Five steps of one network are timed in changing order within one process: plain; VCR as autograd
differentiates the written-out loss (naive); the exact tap; the default, sampled rows of placements
that take turns; and, as the paper's yardstick (arXiv 2306.13292), a BatchNorm inserted at the same
placements.
"""

import inspect
import random
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vcr_zoo.penalty import penalty
from vcr_zoo.placement import Placement, attach, default_input_size, find
from vcr_zoo.results import Result, append, hardware, versions
from vcr_zoo.zoo import check_name

METRICS = ("ratio", "memory", "cosine", "cosine_of_mean")  # that results keep
UNNAMED = ("repeats", "seed", "results")  # settings that do not change what is timed


@dataclass
class Step:
    """One way to take a training step, and how long it took each time."""

    forward: Callable[[Tensor], tuple[Tensor, Tensor | float]]  # images -> logits, penalty
    model: nn.Module
    seconds: list[float] = field(default_factory=list)
    memory: int = 0  # bytes: peak on a GPU; on the CPU saved for backward, matrices left out
    matrices: int = 0  # bytes of saved square matrices, on the CPU
    flops: float = 0
    cycle: int = 1  # steps until every placement had its turn; all figures are means over them


@torch._dynamo.config.patch(skip_nnmodule_hook_guards=False)  # five networks, no shared graph
def bench(
    model: str = "resnet50",
    size: int = 96,
    batch: int = 16,
    layers: str = "blocks",
    rows: int = 64,
    variant: str | None = None,
    share: float | None = None,
    every: int | None = None,
    amp: bool = False,
    compile: str | None = None,
    device: str = "cpu",
    channels_last: bool = False,
    repeats: int = 20,
    seed: int = 0,
    results: str | None = None,
) -> dict[str, dict[str, float]]:
    """Each step's {seconds, ratio, low, high, memory, matrices, flops}.

    `ratio` is the median over repeats of the step's seconds by the plain step's beside it, `low`
    and `high` the quartiles, of fewer than four the extremes; memory and FLOPs are ratios too, the
    latter of the step as it is uncompiled. `naive_over_added` is the time that the naive loss adds
    over the time that this step adds, where it adds any.

    Args:
        rows, variant, share, every: of the sampled step, as `attach` takes them; every is 1 unless
            given where the step is compiled, as in training.
        compile: backend of torch.compile.
        seed: of the order, and a name for this process: what differs from one process to the next
            is as much as what differs within one.
        results: file that receives each of METRICS, which `vcr-zoo card --add` takes.
    """
    settings = {k: v for k, v in locals().items() if k != "results"}
    taps = {
        "exact": {"rows": None},
        "sampled": {"rows": rows, "variant": variant, "share": share, "every": every},
    }
    if compile and every is None:
        taps["sampled"]["every"] = 1
    steps = {
        name: make(name, model, size, layers, taps.get(name), compile, device, channels_last)
        for name in ("plain", "naive", "exact", "sampled", "batchnorm")
    }
    shape = (batch, *images_of(steps["plain"].model, size))
    images = torch.randn(shape, device=device)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    target = torch.arange(batch, device=device) % 10
    for step in steps.values():
        measure(step, images, target, amp)
    order, shuffle = list(steps.values()), random.Random(seed).shuffle
    at_once = max(step.cycle for step in order)  # each follows its own step as often as the others
    for _ in range(repeats):
        shuffle(order)  # so that none always follows the same one
        for step in order:
            step.seconds.append(timed(step, images, target, amp, at_once))
    found = {name: figures(step, steps["plain"], steps["naive"]) for name, step in steps.items()}
    if not penalty_of(settings):  # else the exact step has another gradient
        found["sampled"] |= fidelity(steps["exact"], steps["sampled"], images, amp)
    for one in as_results(found, settings) if results else ():
        append(results, one)
    return found


def as_results(found: dict[str, dict[str, float]], settings: dict) -> Iterator[Result]:
    """What each way takes beside the plain step, time and memory, and how the sampled gradient
    lies to the exact one; the seed stands for the process."""
    on = "{model}, {size} px, batch {batch}".format(**settings)
    usual = {name: p.default for name, p in inspect.signature(bench).parameters.items()}
    others = [name for name in usual if name not in ("model", "size", "batch", *UNNAMED)]
    said = {"amp": "bfloat16"}
    named = [
        said.get(name, name) if settings[name] is True else f"{name} {settings[name]}"
        for name in others
        if settings[name] != usual[name]
    ]
    stamp = {"versions": versions() | {"hardware": hardware(settings["device"])}}
    stamp |= {"command": command_of(settings), "seed": settings["seed"], "model": settings["model"]}
    for arm in [name for name in found if name != "plain"]:
        for metric in (name for name in METRICS if name in found[arm]):
            yield Result(
                data=", ".join([on, *named]),
                protocol="bench step",
                metric=metric,
                value=found[arm][metric],
                settings={"arm": arm} | penalty_of(settings),
                **stamp,
            )


def penalty_of(settings: dict) -> dict:
    """What makes the sampled step's penalty another than VCR as it is."""
    return {k: settings[k] for k in ("variant", "share") if settings[k] is not None}


def command_of(settings: dict) -> str:
    """The command that measures with these settings."""
    words = ["vcr-zoo", "bench", "step"]
    for name, value in settings.items():
        if value is not False and value is not None:
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)


def make(name, model, size, layers, tap, compile, device, channels_last) -> Step:
    """A network prepared for one kind of step; all start from the same weights."""
    torch.manual_seed(0)
    check_name(model)
    fixed = timm.get_pretrained_cfg(model).fixed_input_size
    network = timm.create_model(model, num_classes=10, **({"img_size": size} if fixed else {}))
    form = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device, memory_format=form).train()
    input_size = images_of(network, size)
    collect, cycle = no_penalty, 1
    if tap is not None:
        penalties = attach(network, layers, alpha=1.0, beta=1.0, input_size=input_size, **tap)
        collect, cycle = penalties.collect, max(k for k, _ in penalties.turns)
    elif name != "plain":
        collect = hooked(network, find(network, layers, input_size), naive=name == "naive")
    if compile:
        network.compile(backend=compile)

    def forward(images: Tensor) -> tuple[Tensor, Tensor | float]:
        with collect() as collected:
            output = network(images)
        return output, collected.total

    return Step(forward, network, cycle=cycle)


class Total:
    """What a forward pass without taps adds to the loss."""

    total: Tensor | float = 0.0


def no_penalty():
    return nullcontext(Total())


def hooked(network: nn.Module, placements: list[Placement], *, naive: bool):
    """The written-out penalty for autograd, or a BatchNorm, at every placement."""
    collected = Total()

    def collect():
        collected.total = 0.0
        return nullcontext(collected)

    def hook(place: Placement):
        norm = nn.BatchNorm1d(place.width).to(next(network.parameters()).device)

        def add_penalty(_, inputs, output=None):
            x = inputs if place.side == "input" else output
            x = x if place.item is None else x[place.item]
            x = x.movedim(place.dim, -1).reshape(-1, place.width)
            with torch.autocast(x.device.type, enabled=False):
                collected.total = collected.total + penalty(x.float(), 1.0, 1.0)

        def normalize(_, inputs, output=None):
            value = inputs if place.side == "input" else output
            x = value if place.item is None else value[place.item]
            x = F.batch_norm(
                x.movedim(place.dim, 1), None, None, norm.weight, norm.bias, training=True
            ).movedim(1, place.dim)
            if place.item is None:
                return x
            return type(value)(x if i == place.item else v for i, v in enumerate(value))

        return add_penalty if naive else normalize

    for place in placements:
        module = network.get_submodule(place.name)
        before, after = module.register_forward_pre_hook, module.register_forward_hook
        (before if place.side == "input" else after)(hook(place))
    return collect


def images_of(network: nn.Module, size: int) -> tuple[int, int, int]:
    return (default_input_size(network)[0], size, size)


def take(step: Step, images: Tensor, target: Tensor, amp: bool) -> None:
    """Forward, backward, and gradients cleared; no optimizer, which VCR leaves alone."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        output, added = step.forward(images)
        loss = F.cross_entropy(output, target)
    (loss + added).backward()
    step.model.zero_grad()


def timed(step: Step, images: Tensor, target: Tensor, amp: bool, at_once: int) -> float:
    """Seconds of one step, mean of so many in a row, with the device's work done."""
    wait = partial(torch.cuda.synchronize, images.device) if images.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(at_once):
        take(step, images, target, amp)
    wait()
    return (time.perf_counter() - start) / at_once


def measure(step: Step, images: Tensor, target: Tensor, amp: bool) -> None:
    """Warm up; count FLOPs, and the memory of the largest step."""
    for _ in range(2 * step.cycle):
        take(step, images, target, amp)
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        for _ in range(step.cycle):
            take(step, images, target, amp)
    step.flops = counter.get_total_flops() / step.cycle
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats(images.device)
        others = torch.cuda.memory_allocated(images.device)  # the networks of all steps
        for _ in range(step.cycle):
            take(step, images, target, amp)
        step.memory = torch.cuda.max_memory_allocated(images.device) - others
        return
    turns = [saved_bytes(step, images, target, amp) for _ in range(step.cycle)]
    step.memory, step.matrices = max(turns, key=sum)


def saved_bytes(step: Step, images: Tensor, target: Tensor, amp: bool) -> tuple[int, int]:
    """Bytes kept from forward to backward, each storage once, parameters left out: of features,
    and of square matrices."""
    known = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            square = tensor.ndim in (2, 3) and tensor.shape[-1] == tensor.shape[-2]
            kept[storage.data_ptr()] = (square, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        take(step, images, target, amp)
    features = sum(size for square, size in kept.values() if not square)
    return features, sum(size for square, size in kept.values() if square)


def fidelity(
    exact: Step, sampled: Step, images: Tensor, amp: bool, draws: int = 16
) -> dict[str, float]:
    """Cosine between the penalty's gradient from sampled and from all rows, over all parameters:
    mean of single steps, and of the mean over `draws` steps, or a few more to end a cycle."""
    draws = -(-draws // sampled.cycle) * sampled.cycle

    def gradient(step: Step) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            _, added = step.forward(images)
        parameters = [p for p in step.model.parameters() if p.requires_grad]
        parts = torch.autograd.grad(added, parameters, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).double()

    whole = gradient(exact)
    some = [gradient(sampled) for _ in range(draws)]
    return {
        "cosine": sum(F.cosine_similarity(whole, one, dim=0).item() for one in some) / draws,
        "cosine_of_mean": F.cosine_similarity(whole, sum(some), dim=0).item(),
    }


def figures(step: Step, plain: Step, naive: Step) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(step.seconds, plain.seconds, strict=True))
    quarter = len(ratios) // 4
    added = median(ratios) - 1
    naively = median(n / p for n, p in zip(naive.seconds, plain.seconds, strict=True)) - 1
    return {
        "seconds": median(step.seconds),
        "ratio": median(ratios),
        "low": ratios[quarter],
        "high": ratios[-1 - quarter],
        "memory": step.memory / plain.memory,
        "matrices": step.matrices / plain.memory,
        "flops": step.flops / plain.flops,
        **({"naive_over_added": naively / added} if added > 0 else {}),
    }
