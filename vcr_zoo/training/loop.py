"""One epoch of training and one pass over validation."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from timm.utils import dispatch_clip_grad, reduce_tensor
from torch import Tensor, nn

from . import randomness
from .wiring import Parts

PATIENCE = 10  # non-finite losses in a row that a loss scaler may try to mend


class Update(NamedTuple):
    """What the outside may want to know after an optimizer step."""

    done: int  # batches of this epoch that are behind us
    index: int  # of this update in the epoch
    images: Tensor | dict[str, Tensor]


class Meter:
    """Means over the pictures of an epoch of every scalar a step reports, summed on the device.

    A placement's terms have one column each: `variance.<name>` and `covariance.<name>`.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self.names: list[str] = []
        self.sums = self.count = 0.0
        self.dtype = torch.float if parts.device.type == "mps" else torch.double  # which it lacks

    def add(self, result: dict, pictures: int) -> Tensor:
        """Take in a step's result; its scalars as a vector, in the order of `names`."""
        result = {key: value for key, value in result.items() if key != "output"}
        if not self.names:
            self.names = [name for key in result for name in self._columns(key)]
        values = torch.cat([value.detach().reshape(-1).float() for value in result.values()])
        self.sums = self.sums + values.to(self.dtype) * pictures
        self.count += pictures
        return values

    def _columns(self, key: str) -> list[str]:
        if key in ("vcr_variance", "vcr_covariance"):
            return [f"{key[4:]}.{placement}" for placement in self.parts.placements]
        return [key]

    def means(self, distributed: bool = False) -> dict[str, float]:
        """Name to mean, over all ranks if distributed."""
        if not self.names:
            return {}
        total = torch.cat([self.sums, self.sums.new_tensor([self.count])])
        if distributed:
            total = reduce_tensor(total, 1)
        means = (total[:-1] / total[-1]).tolist()
        return dict(zip(self.names, means, strict=True))

    def state(self) -> dict:
        sums = self.sums.tolist() if self.names else []
        return {"names": self.names, "sums": sums, "count": self.count}

    def load(self, state: dict) -> None:
        self.names, self.count = list(state["names"]), state["count"]
        if self.names:
            self.sums = torch.tensor(state["sums"], dtype=self.dtype, device=self.parts.device)


class Watch:
    """Stops a run whose loss is no number, naming the step and the term that went first.

    On an accelerator the look is taken every --log-interval updates and before anything is saved,
    because each look waits for the device.
    """

    def __init__(self, parts: Parts):
        self.parts, self.recent, self.row = parts, [], 0

    def see(self, names: list[str], values: Tensor, epoch: int, step: int) -> None:
        self.recent.append((names, values, epoch, step))
        often = 1 if self.parts.device.type == "cpu" else self.parts.args.log_interval
        if len(self.recent) >= often:
            self.look()

    def look(self) -> None:
        """Raise FloatingPointError if any loss since the last look was not finite."""
        recent, self.recent = self.recent, []
        if not recent:
            return
        finite = torch.stack([values for _, values, _, _ in recent]).isfinite().all(dim=1)
        for good, (names, values, epoch, step) in zip(finite.tolist(), recent, strict=True):
            self.row = 0 if good else self.row + 1
            if self.row > (PATIENCE if self.parts.scaler is not None else 0):
                raise FloatingPointError(_diagnosis(names, values.tolist(), epoch, step))


def _diagnosis(names: list[str], values: list[float], epoch: int, step: int) -> str:
    terms = dict(zip(names, values, strict=True))
    tapped = [name.split(".", 1)[1] for name in names if name.startswith("variance.")]
    order = [f"{what}.{where}" for where in tapped for what in ("variance", "covariance")]
    order += [name for name in names if name not in order and name != "loss"] + ["loss"]
    bad = next(name for name in order if not math.isfinite(terms[name]))
    what, _, where = bad.partition(".")
    term = f"the {what} term at placement {where}" if where else f"the {what}"
    return (
        f"epoch {epoch}, step {step}: {term} is {terms[bad]}. Stopped; checkpoints already saved "
        "are whole. Lower --lr, clip with --clip-grad, or go back to float32."
    )


def updates(parts: Parts, epoch: int, start: int, meter: Meter, watch: Watch) -> Iterator[Update]:
    """Train on an epoch from batch `start` on, pausing after each optimizer step."""
    args, task, steps = parts.args, parts.task, len(parts.train)
    task.get_trainable_module().train()
    parts.optimizer.zero_grad()
    for step, (x, y) in enumerate(parts.train.epoch(epoch, start), start):
        index = step // args.grad_accum_steps
        group = range(
            index * args.grad_accum_steps, min((index + 1) * args.grad_accum_steps, steps)
        )
        is_update = step + 1 == group.stop
        randomness.seed_everything(args.seed, epoch, randomness.MODEL, step, args.rank)
        task.penalties.step = epoch * steps + step
        task.progress = task.penalties.step / (max(parts.epochs, 1) * steps)
        with nullcontext() if is_update else task.no_sync():
            with parts.autocast():
                result = task(x, y)
            loss = weighted(parts, result, x, step, group)
            values = meter.add(result, len(y))
            watch.see(meter.names, values, epoch, step)
            backward(parts, loss, is_update)
        if is_update:
            after_update(parts, epoch * parts.updates_per_epoch + index + 1)
            yield Update(step + 1, index, x)
    if hasattr(parts.optimizer, "sync_lookahead"):
        parts.optimizer.sync_lookahead()


def weighted(parts: Parts, result: dict, x, step: int, group: range) -> Tensor:
    """A batch's loss as its share of the update's, so that DDP's mean over ranks is right."""
    args, sizes = parts.args, parts.train.sizes(step)
    if sizes is not None:  # --keep-last: batches of different size
        total = sum(sum(parts.train.sizes(other)) for other in group)
        share = sizes[args.rank] * args.world_size / total
        if not args.vcr_sync or "vcr_loss" not in result:
            return result["loss"] * share
        return result["base_loss"] * share + result["vcr_loss"] * (sum(sizes) / total)
    loss = result["loss"] / len(group) if len(group) > 1 else result["loss"]
    mode = args.naflex_loss_scale if args.naflex_loader else args.variable_batch_loss_scale
    pictures = len(x["patches"]) if isinstance(x, dict) else len(x)
    if mode != "none" and (args.naflex_loader or args.train_img_sizes):
        ratio = pictures / parts.train.average_batch
        loss = loss * (ratio**0.5 if mode == "sqrt" else ratio)
    if args.naflex_loader and args.distributed:
        everyone = reduce_tensor(loss.new_tensor(float(pictures)), 1)
        loss = loss * (args.world_size * pictures / everyone)
    return loss


def backward(parts: Parts, loss: Tensor, is_update: bool) -> None:
    """Back-propagate and, at the end of a group, clip and step."""
    args, optimizer = parts.args, parts.optimizer
    clipped = None
    if args.clip_grad is not None:
        clipped = parts.task.get_clip_parameters(exclude_head="agc" in args.clip_mode)
    again = getattr(optimizer, "is_second_order", False)
    if parts.scaler is not None:
        parts.scaler(
            loss,
            optimizer,
            clip_grad=args.clip_grad,
            clip_mode=args.clip_mode,
            parameters=clipped,
            create_graph=again,
            need_update=is_update,
        )
        return
    loss.backward(create_graph=again)
    if is_update:
        if clipped is not None:
            dispatch_clip_grad(clipped, value=args.clip_grad, mode=args.clip_mode)
        optimizer.step()


def after_update(parts: Parts, count: int) -> None:
    """Gradients, EMA and schedule after update number `count` of the whole run."""
    parts.optimizer.zero_grad()
    parts.task.update_ema(step=count)
    if parts.args.synchronize_step and parts.device.type == "cuda":
        torch.cuda.synchronize()
    if parts.schedule is not None:
        parts.schedule.step_update(num_updates=count)


@torch.inference_mode()
def validate(
    parts: Parts, model: nn.Module, watch: AbstractContextManager | None = None
) -> dict[str, float]:
    """The task's metrics over the validation split, accuracies in percent as timm logs them.

    Args:
        watch: gives what else is measured while the validation pictures pass.
    """
    args = parts.args
    limits = {"max_samples": parts.validation.limit}
    if parts.bank is not None:
        limits["bank_samples"] = parts.bank.limit
    evaluator = parts.task.create_evaluator(**limits)
    model.eval()

    def shown(loader, take) -> None:
        for x, y in loader.epoch():
            with parts.autocast():
                output = model(x)
            take(output[0] if isinstance(output, tuple | list) else output, y)

    if parts.bank is not None:
        shown(parts.bank, evaluator.remember)
    with watch or nullcontext({}) as seen:
        shown(parts.validation, evaluator.update)
    return dict(evaluator.compute(distributed=args.distributed)) | seen
