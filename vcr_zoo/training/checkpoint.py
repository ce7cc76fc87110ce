"""Checkpoints: always whole on disk, and enough in them to go on exactly where they were made."""

import argparse
import contextlib
import logging
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import clean_state_dict
from timm.models._hub import save_config_for_hf
from timm.utils import CheckpointSaver, unwrap_model
from torch import nn

from . import options, randomness
from .loading import StreamLoader
from .wiring import Parts

log = logging.getLogger(__name__)

LAST, BEST = "last.pth.tar", "model_best.pth.tar"
COURSE = (  # what decides which pictures a batch of an epoch holds, and which batches an update
    "seed batch_size grad_accum_steps keep_last train_num_samples aug_repeats epoch_repeats "
    "train_img_sizes train_batch_sizes train_batches_per_epoch train_size_probs "
    "train_size_schedule train_size_schedule_spread train_size_random_mix "
    "naflex_loader naflex_train_seq_lens"
).split()

# By options, of an optimizer
DECIDED = ("lr", "lr_scale", "weight_decay", "momentum", "betas", "eps")
LEARNING = "ssl_kwargs scale color_jitter color_jitter_prob grayscale_prob".split()  # of two views


def write(path: str | Path, save: Callable[[Path], None]) -> None:
    """Make a file by `save`, so that at any moment `path` is the old file or the new, whole.

    Raises:
        OSError: if it cannot be written, for want of space say; what was at `path` is still there.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        save(part)
        with contextlib.suppress(PermissionError):  # of a share whose files have one owner
            part.chmod(0o666 & ~umask())  # safetensors keeps its files to their owner
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(f"could not save {path}: {error}. What was there before is whole.") from error
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def umask() -> int:
    """The bits that this process takes from new files' permissions."""
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


class Saver(CheckpointSaver):
    """timm's choice and names of checkpoints, written whole and with the position of the run.

    `position` is set before each save: what `Parts` alone does not know (see `snapshot`).
    """

    def __init__(self, parts: Parts, folder: Path):
        super().__init__(
            model=parts.task.get_trainable_module(),
            optimizer=parts.optimizer,
            args=argparse.Namespace(**{k: v for k, v in vars(parts.args).items() if k != "given"}),
            amp_scaler=parts.scaler,
            checkpoint_dir=str(folder),
            recovery_dir=str(folder),
            decreasing=parts.decreasing,
            max_history=parts.args.checkpoint_hist,
            task=parts.task,
        )
        self.folder = folder
        for file in folder.glob("*.part"):  # of a run that was killed while it saved
            file.unlink()
        self.position: dict = {}

    def _save(
        self, save_path: str, epoch: int, metric: float | None = None, again: bool = False
    ) -> None:
        whole = self.position["batches"] == 0 and not again  # an epoch that may be among the best
        state = {
            "epoch": epoch,
            "arch": self.args.model,
            "args": self.args,
            "version": 2,
            "optimizer": self.optimizer.state_dict(),
            "saver": self.state_dict(epoch if whole else None, metric),
            "vcr_zoo": self.position,
        }
        state |= self.task.get_checkpoint_state() | self.task.get_checkpoint_state(ema=True)
        if self.amp_scaler is not None:
            state[self.amp_scaler.state_dict_key] = self.amp_scaler.state_dict()
        if metric is not None:
            state["metric"] = metric
        write(save_path, lambda part: torch.save(state, part))

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> tuple:
        """Save `last`, then give it a place among the best; (best metric, best epoch)."""
        self._save(str(self.folder / LAST), epoch, metric)
        self._place(epoch, metric)
        for file in self.folder.glob("recovery-*"):
            file.unlink()
        return self.best_metric, self.best_epoch

    def save_start(self, epoch: int) -> None:
        """Make `last` the beginning of an epoch that is trained again."""
        self._save(str(self.folder / LAST), epoch - 1, again=True)

    def _place(self, epoch: int, metric: float | None) -> None:
        worst = self.checkpoint_files[-1][1] if self.checkpoint_files else None
        full = len(self.checkpoint_files) >= self.max_history
        if full and worst is not None and (metric is None or not self.cmp(metric, worst)):
            return
        if full:
            self._cleanup_checkpoints(1)
        path = self._checkpoint_path(epoch)
        self._duplicate(str(self.folder / LAST), path)
        self._track_checkpoint(path, epoch, metric)

    def save_recovery(self, epoch: int, batch_idx: int = 0) -> None:
        """Save in the middle of an epoch; only the two newest such files are kept."""
        self._save(str(self.folder / f"recovery-{epoch}-{batch_idx}.pth.tar"), epoch)
        for file in sorted(self.folder.glob("recovery-*"), key=_written)[:-2]:
            file.unlink()

    def load_state_dict(self, state: dict, found: Path, first: int, batches: int) -> None:
        """Take over the bookkeeping of a checkpoint of this folder, finishing what a kill may have
        cut off.

        What it says of epochs from `first` on, which are trained again, is left out; and `latest`
        is from now on what comes from here, not what came further before.
        """
        epoch, metric = state.get("pending", (None, None))
        unfinished = found.name == LAST and epoch is not None and epoch < first
        super().load_state_dict({**state, **({"pending": (None, None)} if unfinished else {})})
        self.checkpoint_files = [c for c in self.checkpoint_files if _written(c[0])[0] < first]
        if self.best_epoch is not None and self.best_epoch >= first:
            path, self.best_metric = next(iter(self.checkpoint_files), (None, None))
            self.best_epoch = _written(path)[0] if path else None
        if unfinished:
            self._place(epoch, metric)
        left = [*self.folder.glob("recovery-*"), self.folder / BEST, self.folder / LAST]
        for file in (file for file in left if file.exists() and _position(file) > (first, batches)):
            if file.name == LAST and found.name != LAST:
                self._duplicate(str(found), str(file))
            elif file.name == BEST and self.best_epoch is not None:
                self._duplicate(self._checkpoint_path(self.best_epoch), str(file))
            elif file.name != LAST:
                file.unlink()

    def _duplicate(self, src: str, dst: str) -> None:
        part = Path(f"{dst}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(src, part)
        except OSError:
            shutil.copyfile(src, part)
        part.replace(dst)
        part.unlink(missing_ok=True)  # renaming onto another name of the same file leaves both


def _written(path: str | Path) -> tuple[int, ...]:
    """Epoch, and update of a file of `save_recovery`, in a checkpoint's name."""
    return tuple(int(number) for number in re.findall(r"\d+", Path(path).name))


def _position(path: Path) -> tuple[float, int]:
    """Epoch and batch that a checkpoint goes on from; beyond all others of one that cannot."""
    try:
        return _goes_on(read(path))
    except ValueError:
        return math.inf, 0


def _goes_on(content: dict) -> tuple[int, int]:
    """Epoch and batch."""
    batches = content.get("vcr_zoo", {}).get("batches", 0)
    return content["epoch"] + (batches == 0), batches


def latest(folder: Path) -> Path | None:
    """The checkpoint in a run's folder that came furthest, among those that can be read.

    Raises:
        ValueError: if there are checkpoints, and none is whole.
    """
    newest = [*folder.glob(LAST), *folder.glob("recovery-*.pth.tar")]
    older = list(folder.glob("checkpoint-*.pth.tar"))
    for paths in (newest, older):
        found = []
        for path in paths:
            try:
                content = read(path)
            except ValueError as error:
                log.warning("%s; trying an older checkpoint", error)
                continue
            found.append((*_goes_on(content), path))
        if found:
            return max(found)[-1]
    if newest or older:
        raise ValueError(f"no checkpoint in {folder} is whole; --overwrite begins again")
    return None


def read(path: str | Path) -> dict:
    """Content of a checkpoint.

    Raises:
        ValueError: for a file that is none, or is not whole.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises whatever its zip reader or unpickler met
        raise ValueError(f"{path} is not a whole checkpoint: {type(error).__name__}") from error
    if not isinstance(content, dict) or not {"state_dict", "model"} & content.keys():
        raise ValueError(f"{path} holds no training checkpoint")
    return content


def snapshot(parts: Parts, batches: int, meter: dict, history: list, gather: Callable) -> dict:
    """The position of a run, for `Saver.position`: collective, the content on rank 0 only.

    Args:
        batches: of the current epoch already trained on; 0 between epochs.
        meter: state of the epoch's meter on this rank.
    """
    mine = {"rng": randomness.states(), "meter": meter, "buffers": _buffers(parts)}
    ranks = gather(mine)
    return {
        "batches": batches,
        "steps": len(parts.train),
        "history": history,
        "schedule": _plain(parts.schedule),
        "rates": [group["lr"] for group in parts.optimizer.param_groups],
        "ema_rng": _ema_generator(parts),
        "ranks": ranks,
    }


def _plain(schedule) -> dict:
    """State of the schedule; of timm's plateau also that of torch's inside, which it leaves out."""
    if schedule is None:
        return {}
    inner = getattr(schedule, "lr_scheduler", None)
    return {
        "own": {k: v for k, v in vars(schedule).items() if k not in ("optimizer", "lr_scheduler")},
        "inner": inner.state_dict() if inner is not None else {},
    }


def _buffers(parts: Parts) -> list[dict]:
    """This rank's buffers, of the model and its EMA: batch norm keeps its own on each rank."""
    if not parts.args.distributed:
        return []
    modules = [parts.task.get_trainable_module(ema=ema) for ema in (False, True)]
    return [
        {name: buffer.cpu() for name, buffer in unwrap_model(module).named_buffers()}
        for module in modules
        if module is not None
    ]


def _ema_generator(parts: Parts):
    ema = parts.task.get_trainable_module(ema=True)
    return ema._sr_generator.get_state() if ema is not None else None


def load_weights(parts: Parts, checkpoint: dict, path) -> None:
    """Weights, optimizer and scaler of a checkpoint, before EMA and DDP are set up.

    Raises:
        ValueError: for a checkpoint of another model.
    """
    args, arch = parts.args, checkpoint.get("arch")
    if arch and arch.partition(".")[0] != args.model.partition(".")[0]:  # .tag: the same network
        raise ValueError(f"{path} is a checkpoint of {arch}, but --model is {args.model}")
    task = getattr(checkpoint.get("args"), "task", args.task)
    if task != args.task and not args.no_resume_opt:
        raise ValueError(
            f"{path} is of --task {task}, now {args.task}: go on as before, begin elsewhere by "
            "--experiment NAME, or take its weights alone by --no-resume-opt"
        )
    weights = checkpoint["state_dict" if "state_dict" in checkpoint else "model"]
    try:
        parts.task.load_checkpoint_state(clean_state_dict(weights), checkpoint.get("task_state"))
    except RuntimeError as error:
        first = str(error).split("\n\t")[:2]
        raise ValueError(f"{path} does not fit {args.model}: {' '.join(first)}") from None
    if args.no_resume_opt:
        return
    opt = getattr(checkpoint.get("args"), "opt", args.opt).lower()
    if opt != args.opt:
        raise ValueError(
            f"{path} is of --opt {opt}, now {args.opt}: go on as before, or take its weights alone "
            "by --no-resume-opt"
        )
    if "optimizer" in checkpoint:
        groups = parts.optimizer.param_groups
        present = [{key: group[key] for key in DECIDED if key in group} for group in groups]
        try:
            parts.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}; --no-resume-opt resumes the weights only") from None
        for group, own in zip(parts.optimizer.param_groups, present, strict=True):
            group |= own | {"initial_lr": own["lr"]}
    if parts.scaler is not None and parts.scaler.state_dict_key in checkpoint:
        parts.scaler.load_state_dict(checkpoint[parts.scaler.state_dict_key])


def load_position(parts: Parts, checkpoint: dict) -> tuple[int, int, dict, list]:
    """Restore the rest after everything is set up: (epoch, batches, meter, history).

    Checkpoints of timm's own script, and of --no-resume-opt, go on at the next epoch. Rows of
    epochs that are trained again are not in the history.

    Raises:
        ValueError: for the middle of an epoch that would go on with other batches.
    """
    epoch, args = checkpoint.get("epoch", -1), parts.args
    ema = parts.task.get_trainable_module(ema=True)
    if ema is not None and "state_dict_ema" in checkpoint:
        state = clean_state_dict(checkpoint["state_dict_ema"])
        parts.task.load_checkpoint_state(state, checkpoint.get("task_state_ema"), ema=True)
    position = checkpoint.get("vcr_zoo")
    if args.start_epoch is not None or position is None or args.no_resume_opt:
        first = epoch + 1 if args.start_epoch is None else args.start_epoch
        if first:
            wind(parts, first)
        rows = position["history"] if position else []
        return first, 0, {}, [row for row in rows if row["epoch"] < first]
    if position["batches"]:
        _check_course(parts, checkpoint)
    _load_schedule(parts, position, epoch)
    if ema is not None and position["ema_rng"] is not None:
        ema._sr_generator.set_state(position["ema_rng"])
    meter = {}
    if len(position["ranks"]) == args.world_size:
        mine = position["ranks"][args.rank]
        randomness.restore(mine["rng"])
        meter = mine["meter"]
        modules = [parts.task.get_trainable_module(), ema]
        for module, saved in zip(modules, mine["buffers"], strict=False):
            own = dict(unwrap_model(module).named_buffers())
            for name, buffer in saved.items():
                own[name].copy_(buffer)
    if position["batches"] == 0:
        return epoch + 1, 0, {}, position["history"]
    return epoch, position["batches"], meter, position["history"]


def _check_course(parts: Parts, checkpoint: dict) -> None:
    """Refuse to go on in the middle of an epoch that would now be other batches than before.

    Raises:
        ValueError: naming what differs.
    """
    args, position = parts.args, checkpoint["vcr_zoo"]
    before, now = vars(checkpoint["args"]), vars(args)
    same = [*COURSE, *(["workers"] if isinstance(parts.train, StreamLoader) else [])]
    same += LEARNING if args.task in options.SELF_SUPERVISED else []
    pairs = [
        (f"--{name.replace('_', '-')}", before.get(name, now[name]), now[name]) for name in same
    ]
    pairs.append(("the number of processes", len(position["ranks"]), args.world_size))
    pairs.append(
        ("the batches of an epoch", position.get("steps", len(parts.train)), len(parts.train))
    )
    for what, old, new in pairs:
        if old != new:
            raise ValueError(
                f"the checkpoint is from the middle of epoch {checkpoint['epoch']}, and {what} "
                f"was {old}, now {new}: go on as before, or train that epoch again by "
                f"--start-epoch {checkpoint['epoch']}"
            )


def _load_schedule(parts: Parts, position: dict, epoch: int) -> None:
    """Restore the schedule and its rates, or wind the present one if the options differ."""
    schedule, saved = parts.schedule, position["schedule"]
    if schedule is None:
        return
    changed = _settings(_plain(schedule)) != _settings(saved)
    if changed:
        log.info("The learning rate follows the present options, not the checkpoint's")
        wind(parts, epoch + (position["batches"] == 0))
        return
    vars(schedule).update(saved["own"])
    if saved["inner"]:
        schedule.lr_scheduler.load_state_dict(saved["inner"])
    groups = parts.optimizer.param_groups  # creating the schedule set them to its beginning
    for group, rate in zip(groups, position["rates"], strict=True):
        group["lr"] = rate


def _settings(schedule: dict) -> dict:
    """What options decide of a schedule's state, which is all but what plateaus count."""
    own = schedule.get("own", {})
    return {k: v for k, v in own.items() if k not in ("metric", "restore_lr")}


def wind(parts: Parts, epoch: int) -> None:
    """Set the learning rates to those of an epoch's beginning."""
    if parts.schedule is None:
        return
    if parts.args.sched_on_updates:
        parts.schedule.step_update(epoch * parts.updates_per_epoch)
    else:
        parts.schedule.step(epoch)


def export(parts: Parts, folder: Path) -> nn.Module:
    """Write config.json and model.safetensors, and return what timm makes of them, in eval mode.

    The weights are the EMA's if there is one. timm.create_model("local-dir:FOLDER",
    pretrained=True) loads them, without this package, with the run's own preprocessing.
    """
    args = parts.args
    trained = unwrap_model(parts.task.get_eval_model(ema=parts.task.has_ema()))
    model = timm.create_model(
        args.model,
        num_classes=args.num_classes,
        in_chans=parts.data_config["input_size"][0],
        global_pool=args.gp,
        bn_eps=args.bn_eps,  # part of what the network computes; None: the network's own
        **args.model_kwargs,
    )
    split = {k for k in trained.state_dict() if ".aux_bn." in k}  # --split-bn's other halves
    weights = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu()
        for name, tensor in trained.state_dict().items()
        if name not in split
    }
    model.load_state_dict(weights)
    config = {"pretrained_cfg": {"tag": options.run_name(args).partition(".")[2]}}
    if len(parts.classes) == args.num_classes:
        config["label_names"] = parts.classes
    if not args.pretrained:  # what timm says of the weights that it has itself
        for claim in ("license", "origin_url", "paper_ids", "notes", "description"):
            model.pretrained_cfg.pop(claim, None)
    save_network(model, folder, config, parts.data_config)
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def save_network(
    model: nn.Module, folder: Path, config: dict | None = None, data_config: dict | None = None
) -> None:
    """config.json and model.safetensors, for timm.create_model("local-dir:FOLDER").

    Args:
        config: what else is to stand in config.json.
        data_config: how pictures are prepared; None: as the model's own configuration says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    write(
        folder / "config.json",
        lambda part: save_config_for_hf(model, part, config, data_config=data_config),
    )
    write(  # last: where they are, the run is finished
        folder / "model.safetensors",
        lambda part: safetensors.torch.save_file(weights, part, metadata={"format": "pt"}),
    )
