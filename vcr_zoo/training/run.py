"""A run from arguments to a folder of weights."""

import argparse
import copy
import json
import logging
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import closing, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

from timm.utils import distribute_bn, unwrap_model
from torch import nn
from torchvision.utils import save_image

from . import checkpoint, distributed, options
from .dry_run import dry_run
from .loop import Meter, Watch, updates, validate
from .report import Loggers, Progress, write_summary
from .timm_script import launch
from .wiring import Parts, finish, wire

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INTERRUPTED = 75  # exit code of a run that was told to stop and saved; sysexits' "try again later"


@dataclass
class Run:
    """What a finished run leaves."""

    folder: Path
    model: nn.Module  # the EMA's weights if there is one; on the CPU, in eval mode
    metrics: dict[str, float]  # of the last epoch, best_<metric> and best_epoch, if there was one
    history: list[dict] = field(default_factory=list)  # rows of summary.csv


def train(
    args: argparse.Namespace,
    progress: Callable | bool | None = None,
    during: Callable | None = None,
) -> Run | None:
    """Train as `parse` understood it.

    With --dry-run nothing is left and None returned.

    Args:
        progress: None for a line of our own, False for none, or a callable(text, done, total).
        during: what measures features for --during: `vcr_zoo.diagnostics.during.During`.

    Raises:
        ValueError, LookupError, OSError: before anything is trained, for what cannot be done.
        FloatingPointError: if the loss stops being a number.
        KeyboardInterrupt: after SIGTERM or Ctrl-C, once everything is saved.
    """
    device = distributed.start(args)
    together = distributed.Together(args)
    with together.losing_nobody(), together.signals():
        folder = run_folder(args)
        if args.during and (during is None or args.torchcompile or args.naflex_loader):
            raise ValueError(
                "--during does not go with --torchcompile or --naflex-loader; from Python call "
                "train(args, during=vcr_zoo.diagnostics.during.During)"
            )
        loggers = Loggers(args)
        found = resumed_from(args, folder)
        content = checkpoint.read(found) if found else None
        together.agree(
            content and (content.get("epoch"), content.get("vcr_zoo", {}).get("batches"))
        )
        if found and args.rank == 0:
            log.info("Going on from %s", found)
        parts = wired(args, device)
        if content:
            checkpoint.load_weights(parts, content, found)
        finish(parts)
        if args.during:
            parts.during = during(args.vcr_layers, parts.data_config["input_size"])
        if args.dry_run:
            with nullcontext() if args.rank == 0 else redirect_stdout(None):
                dry_run(parts, folder)
            together.close()
            return None
        run = _epochs(parts, folder, content, found, together, loggers, progress)
        together.close()
    return run


def wired(args: argparse.Namespace, device) -> Parts:
    """As `wire`, where timm's assertions about options are errors like ours."""
    try:
        return wire(args, device)
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        raise ValueError(f"timm does not take an option that was given: {error or line}") from error


def run_folder(args: argparse.Namespace) -> Path:
    """Folder of the run, free to be written to.

    Raises:
        FileExistsError: if it holds another run, unless that is resumed or to be overwritten.
    """
    folder = Path(args.output or "runs") / options.run_name(args)
    own = args.resume == "auto" or (
        args.resume and Path(args.resume).parent.resolve() == folder.resolve()
    )
    free = own or args.dry_run or args.overwrite
    checkpoints = any(folder.glob("*.pth.tar"))
    known = checkpoints or any((folder / name).exists() for name in ("args.yaml", WEIGHTS))
    held = next(folder.iterdir(), None) if folder.is_dir() else None
    if held and args.overwrite and not (known or args.dry_run):
        raise FileExistsError(
            f"{folder} holds no run, but {held.name}, which --overwrite would remove: --experiment "
            "NAME takes another folder"
        )
    if not free and (checkpoints or (folder / WEIGHTS).exists()):
        go_on = "--resume auto goes on with it, " if checkpoints else ""
        raise FileExistsError(
            f"{folder} already holds a run: {go_on}--overwrite begins again in its place, "
            "--experiment NAME takes another folder"
        )
    return folder


def resumed_from(args: argparse.Namespace, folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one.

    Raises:
        FileExistsError: for a finished run whose checkpoints are gone, which would begin again.
    """
    if args.resume == "auto":
        found = checkpoint.latest(folder)
        if not found and (folder / WEIGHTS).exists() and not args.overwrite:
            raise FileExistsError(
                f"{folder} holds a finished run, without a checkpoint to go on from: --overwrite "
                "begins again in its place, --experiment NAME takes another folder"
            )
        return found
    return Path(args.resume) if args.resume else None


def _epochs(parts: Parts, folder: Path, content, found, together, loggers, progress) -> Run:
    """Train, validate and save, epoch by epoch."""
    args, primary = parts.args, parts.args.rank == 0
    first, batches, metered, history = _begin(parts, content)
    saver = None
    if primary:
        loggers.begin(folder)
        saver = _saver(parts, folder, content, found, (first, batches))
    end = parts.epochs if args.stop_epoch is None else min(parts.epochs, args.stop_epoch)
    steps = len(parts.train)
    to, done = progress if primary else False, first * steps + batches
    watch = Watch(parts)

    def position(batches: int, meter: Meter | None) -> None:
        """Tell the saver where we are; every rank takes part."""
        watch.look()
        state = meter.state() if meter else {}
        made = checkpoint.snapshot(parts, batches, state, history, together.gather)
        if saver:
            saver.position = made

    if content and args.start_epoch is not None:
        position(0, None)
        if saver:
            saver.save_start(first)
    metrics = history[-1] if history else {}
    with closing(Progress(to, end, end * steps, done, folder.name, args.world_size)) as line:
        for epoch in range(first, end):
            meter = Meter(parts)
            if metered:
                meter.load(metered)
                metered = {}
            for update in updates(parts, epoch, batches, meter, watch):
                line.step(epoch, update, parts.optimizer.param_groups[0]["lr"])
                if args.save_images and primary and update.index % args.log_interval == 0:
                    file = folder / f"train-batch-{update.done - 1}.jpg"
                    save_image(update.images, file, padding=0, normalize=True)
                stop = together.stop()
                due = args.recovery_interval and (update.index + 1) % args.recovery_interval == 0
                if due or stop:
                    position(update.done, meter)
                    if saver:
                        saver.save_recovery(epoch, update.index)
                if stop:
                    together.close()
                    raise KeyboardInterrupt(f"stopped at epoch {epoch}, batch {update.done}; saved")
            batches = 0
            row, metric = _measure(parts, epoch, end, meter)
            if parts.schedule is not None:
                parts.schedule.step(epoch + 1, metric)
            if row is None:
                continue
            metrics = row
            history.append(row)
            position(0, None)
            if saver:
                write_summary(folder, history)
                saver.save_checkpoint(epoch, metric)
                loggers.row(row)
                line.epoch(row)
                if epoch + 1 in (args.save_epochs or ()):
                    saver.save_milestone(epoch + 1)
    if not primary:
        return Run(folder, None, metrics, history)
    loggers.close()
    if history:
        best = {f"best_{parts.metric}": saver.best_metric, "best_epoch": saver.best_epoch}
        metrics = {**metrics, **best}
    return Run(folder, checkpoint.export(parts, folder), metrics, history)


def _saver(parts: Parts, folder: Path, content, found, start: tuple) -> checkpoint.Saver:
    """The run's folder, with its options written down, and what saves into it from an epoch and
    batch on."""
    inside = content and folder.resolve() in found.resolve().parents  # or in a folder of its own
    folder.mkdir(parents=True, exist_ok=True)
    if parts.args.overwrite and not inside:  # only now that nothing can be refused any more
        _emptied(folder)
    args = copy.copy(parts.args)
    if inside:  # where it went on from is no part of what the whole run computes
        args.start_epoch = None
    written = options.as_yaml(args)
    checkpoint.write(folder / "args.yaml", lambda part: part.write_text(written))
    saver = checkpoint.Saver(parts, folder)
    if content and "saver" in content and found.parent.resolve() == folder.resolve():
        saver.load_state_dict(content["saver"], found, *start)
    return saver


def _emptied(folder: Path) -> None:
    """Remove what a folder holds, entry by entry, since it may be a link.

    Raises:
        OSError: if a checkpoint cannot be removed, which the new run would go on from.
    """
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(OSError):  # what another process still reads, over NFS
                old.unlink()
    if left := [*folder.glob("*.pth.tar")]:
        raise OSError(f"--overwrite: {left[0]} cannot be removed, and would be gone on from")


def _begin(parts: Parts, content: dict | None) -> tuple[int, int, dict, list]:
    """Where to begin: epoch, batches of it that are done, their meter, and earlier epochs' rows."""
    first = parts.args.start_epoch or 0
    if first >= parts.epochs:
        raise ValueError(f"--start-epoch {first}: the run has {parts.epochs} epochs, from 0 on")
    if content:
        return checkpoint.load_position(parts, content)
    if first:
        checkpoint.wind(parts, first)
    return first, 0, {}, []


def _measure(parts: Parts, epoch: int, end: int, meter: Meter) -> tuple[dict | None, float | None]:
    """An epoch's row of the summary and its metric; nothing if it is one that is not validated."""
    args = parts.args
    trained = meter.means(args.distributed)
    if args.distributed and args.dist_bn:
        model = parts.task.get_trainable_module()
        distribute_bn(model, args.world_size, args.dist_bn == "reduce")
    due = not (epoch + 1) % args.val_interval or epoch + 1 == end
    validated = _validated(parts) if due else {}
    if hasattr(parts.task, "collapsed") and args.rank == 0:
        for layer in parts.task.collapsed(validated):
            log.warning("epoch %d: %s", epoch, layer)
    if not due:
        return None, None
    plain = {"loss": trained["base_loss"]} if "base_loss" in trained else {}  # without VCR
    return _row(parts, epoch, trained, validated), {**trained, **plain, **validated}[parts.metric]


def _validated(parts: Parts) -> dict:
    """Metrics of validation, of the EMA if there is one; {} without a validation split."""
    args = parts.args
    if parts.validation is None:
        return {}
    model = _judged(parts)
    watch = parts.during if args.rank == 0 else None
    return validate(parts, model, watch and watch(unwrap_model(model)))


def _judged(parts: Parts) -> nn.Module:
    """The network that validation sees: the EMA if there is one, with batch norm's statistics of
    all ranks; one that is kept on the CPU as a copy on the device."""
    args, ema = parts.args, parts.eval_model_ema
    if ema is None:
        return parts.eval_model
    elsewhere, shared = args.model_ema_force_cpu, args.distributed and args.dist_bn
    model = copy.deepcopy(unwrap_model(ema)).to(parts.device) if elsewhere else ema
    if shared:
        whole = model if elsewhere else parts.task.get_trainable_module(ema=True)
        distribute_bn(whole, args.world_size, args.dist_bn == "reduce")
    if shared and elsewhere:
        unwrap_model(ema).load_state_dict(model.state_dict())
    return model


def _row(parts: Parts, epoch: int, trained: dict, validated: dict) -> dict:
    """An epoch's row of summary.csv, in timm's names: epoch, train_*, eval_*, lr."""
    rates = [group["lr"] for group in parts.optimizer.param_groups]
    row = {"epoch": epoch}
    row |= {f"train_{name}": value for name, value in trained.items() if "." not in name}
    row |= {f"eval_{name}": value for name, value in validated.items() if "." not in name}
    row |= {"lr": sum(rates) / len(rates)}
    row |= {f"train_{name}": value for name, value in trained.items() if "." in name}
    return row | {f"eval_{name}": value for name, value in validated.items() if "." in name}


def main(
    argv: list[str] | None = None, prog: str = "train.py", during: Callable | None = None
) -> int:
    """The command line: 0 done, 2 wrong request, 3 diverged, 75 stopped and saved."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("timm.utils.checkpoint_saver").setLevel(logging.WARNING)
    try:
        if any(word.startswith("--timm-script") for word in argv):
            return launch(argv)
        run = train(options.parse(argv), during=during)
    except KeyboardInterrupt as stopped:
        print(f"{prog}: {str(stopped) or 'stopped'}; --resume auto goes on", file=sys.stderr)
        return INTERRUPTED
    except FloatingPointError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 3
    except (LookupError, ValueError, OSError, ImportError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"{prog}: {message}", file=sys.stderr)
        return 2
    if run is not None and run.model is not None:
        print(f"--result\n{json.dumps(run.metrics, indent=4)}")
        print(f"timm.create_model({f'local-dir:{run.folder}'!r}, pretrained=True)")
    return 0
