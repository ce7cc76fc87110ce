"""What a run would do and cost: the resolved configuration, then one step of it."""

from pathlib import Path

import torch
from timm.utils import unwrap_model
from torch.utils.flop_counter import FlopCounterMode

from vcr_zoo.placement import flops as penalty_flops

from .loop import Meter, Watch, updates
from .options import SELF_SUPERVISED, as_yaml
from .wiring import Parts


def dry_run(parts: Parts, folder: Path) -> None:
    """Print the configuration, train one optimizer step, and say what it took."""
    args, model = parts.args, unwrap_model(parts.task.get_eval_model())
    print(as_yaml(args))
    print(f"model       {args.model}, {sum(w.numel() for w in model.parameters()):,} parameters")
    weights = list(unwrap_model(parts.task.get_trainable_module()).parameters())
    if args.task in SELF_SUPERVISED:
        heads = sum(w.numel() for w in weights) - sum(w.numel() for w in model.parameters())
        print(f"method      {args.task} {args.ssl_kwargs or ''}, two views of each picture")
        print(f"            projector (and predictor): {heads:,} parameters")
    print(f"input       {'x'.join(map(str, parts.data_config['input_size']))}, {parts.data_config}")
    print(f"placements  {len(parts.placements)} regularized tensors")
    for place in parts.placements:
        rows = place.rows_per_image
        print(f"            {place}: axis {place.dim}, width {place.width}, {rows} rows an image")
    validation = "none" if parts.validation is None else f"{len(parts.validation)} batches"
    print(
        f"steps       {len(parts.train)} batches of {args.batch_size} on each of "
        f"{args.world_size} processes, {parts.updates_per_epoch} updates an epoch, "
        f"{parts.epochs} epochs; validation {validation}"
    )
    plain, extra = flops(parts)
    seen = len(parts.train) * args.batch_size * args.world_size * parts.epochs
    print(f"compute     {plain / 1e9:.3g} GFLOP a picture, VCR adds {100 * extra / plain:.2g} %")
    print(
        f"            estimated {seen * (plain + extra):.3g} FLOP in all, of {seen:,} pictures seen"
    )

    saved: dict[int, int] = {}  # storage: bytes kept for the first backward pass
    held = {w.untyped_storage().data_ptr() for w in weights}
    backward = False  # has begun: from then on storages are freed, and others lie in their places

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not backward and storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal backward
        backward = True
        return tensor

    meter = Meter(parts)
    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        next(iter(updates(parts, 0, 0, meter, Watch(parts))))
    kept = sum(saved.values())
    state = sum(
        value.nbytes
        for values in parts.optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    fixed = sum(w.nbytes * (2 + args.model_ema) for w in weights) + state
    print(
        f"memory      estimated {(fixed + kept) / 2**20:,.0f} MiB on each process: "
        f"{fixed / 2**20:,.0f} of weights, gradients and optimizer, {kept / 2**20:,.0f} kept "
        "for the backward pass"
    )
    if parts.device.type == "cuda":
        print(f"            peak on the GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB")
    print("one step    " + ", ".join(f"{k} {v:.4g}" for k, v in meter.means().items()))
    print(f"folder      {folder} (nothing written)")


def flops(parts: Parts) -> tuple[float, float]:
    """FLOPs of training on one picture, on both of its views: the network's (with its projector),
    and what VCR adds to them.

    The network's forward pass is counted by torch, its backward taken as twice that.
    """
    args, model = parts.args, unwrap_model(parts.task.get_eval_model())
    views = 2 if args.task in SELF_SUPERVISED else 1
    if views > 1:
        model = unwrap_model(parts.task.get_trainable_module())
    if parts.args.naflex_loader:
        return float("nan"), 0.0
    was_training = model.training
    weight = next(model.parameters())
    batch = 2
    x = torch.zeros(batch, *parts.data_config["input_size"], dtype=weight.dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x.to(weight.device))
    model.train(was_training)
    places, turns = parts.placements, parts.task.penalties.turns
    extra = views * penalty_flops(places, turns, views * args.batch_size, args.vcr_rows)
    return 3 * views * counter.get_total_flops() / batch, extra
