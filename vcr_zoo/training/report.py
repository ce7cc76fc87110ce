"""What a run tells: a progress line, summary.csv, and loggers for those who have them."""

import csv
import io
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from .checkpoint import write
from .loop import Update

EVERY = 0.2  # seconds between two signs of progress

log = logging.getLogger(__name__)


class Progress:
    """Images a second and the time that is left, on one line or handed to a callable.

    Args:
        to: None for our own line, False for silence, or a callable(description, done, total).
        epochs: of the whole run; total: its batches; done: those that a resumed run has had.
        world_size: processes, each of which sees as many pictures as this one.
    """

    def __init__(
        self,
        to: Callable | bool | None,
        epochs: int,
        total: int,
        done: int,
        name: str,
        world_size: int = 1,
    ):
        self.world_size = world_size
        self.to, self.epochs, self.total, self.done, self.name = to, epochs, total, done, name
        self.batch = done % max(total // max(epochs, 1), 1)  # of the epoch that we are in
        self.seen = 0
        self.began, self.told = time.perf_counter(), 0.0
        self.bar = None
        if to is None:
            self.bar = tqdm(total=total, initial=done, desc=name, unit="batch", mininterval=0.5)
        self.tell(name)

    def step(self, epoch: int, update: Update, rate: float) -> None:
        """Take note of an optimizer step, at a learning rate."""
        x = update.images["patches"] if isinstance(update.images, dict) else update.images
        batches = update.done - self.batch if update.done > self.batch else update.done
        self.batch = update.done
        self.done += batches
        self.seen += batches * len(x) * self.world_size
        if self.bar is not None:
            self.bar.update(batches)
        if (now := time.perf_counter()) - self.told < EVERY:
            return
        self.told = now
        speed = self.seen / (now - self.began)
        where = f"{self.name} epoch {epoch + 1}/{self.epochs}"
        self.tell(where, f"{speed:,.0f} images/s, lr {rate:.2e}")

    def tell(self, description: str, detail: str = "") -> None:
        if self.bar is not None:
            self.bar.set_description_str(description, refresh=False)
            self.bar.set_postfix_str(detail, refresh=False)
        elif self.to:
            self.to(description, self.done, self.total)

    def epoch(self, row: dict) -> None:
        """Say how an epoch went, in a line that stays."""
        shown = {key: value for key, value in row.items() if "." not in key}
        line = "  ".join(f"{key} {value:.4g}" for key, value in shown.items())
        if self.to is None:
            tqdm.write(f"{self.name}: {line}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.to:
            self.to(self.name, self.done, self.total)


def write_summary(folder: Path, history: list[dict]) -> None:
    """Write summary.csv: one row an epoch, columns as in timm's, then VCR's terms by placement."""
    if not history:
        return
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, fieldnames=list(history[-1]), restval="", extrasaction="ignore")
    rows.writeheader()
    rows.writerows(history)
    write(folder / "summary.csv", lambda part: part.write_text(text.getvalue(), newline=""))


class Loggers:
    """TensorBoard, Weights & Biases and Trackio, as asked for.

    Raises:
        ImportError: for one that is not installed, naming the extra that brings it.
        ValueError: for a run that is to be gone on with there but not here.
    """

    def __init__(self, args):
        if args.wandb_resume_id and not args.resume:
            raise ValueError("--wandb-resume-id goes with --resume")
        self.args, self.runs, self.folder, self.writer = args, [], None, None
        self.wandb = _imported("wandb") if args.log_wandb else None
        self.trackio = _imported("trackio") if args.log_trackio else None
        self.board = _imported("torch.utils.tensorboard") if args.log_tensorboard else None

    def begin(self, folder: Path) -> None:
        """Begin to log the run of a folder, into which nothing is written yet."""
        args, self.folder = self.args, folder
        config = {key: value for key, value in vars(args).items() if key != "given"}
        common = {"name": folder.name, "config": config}
        if self.wandb is not None:
            again = {"resume": "must", "id": args.wandb_resume_id} if args.wandb_resume_id else {}
            self.wandb.init(project=args.wandb_project, tags=args.wandb_tags, **common, **again)
            self.runs.append(self.wandb)
        if self.trackio is not None:
            self.trackio.init(project=args.wandb_project or "vcr_zoo", **common)
            self.runs.append(self.trackio)

    def row(self, row: dict) -> None:
        """Log an epoch's row of the summary."""
        if self.board is not None:
            self.writer = self.writer or self.board.SummaryWriter(str(self.folder))
            for key, value in row.items():
                self.writer.add_scalar(key, value, row["epoch"])
            self.writer.flush()
        for run in self.runs:
            run.log(row)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        for run in self.runs:
            run.finish()


def _imported(name: str):
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        package = name.rsplit(".", 1)[-1]
        raise ImportError(
            f"{package} is not installed ({error}): pip install 'vcr_zoo[log]'"
        ) from None
