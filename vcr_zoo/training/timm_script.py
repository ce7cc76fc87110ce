"""timm's own training script, the user's unmodified copy, run with VCR switched on.

The script asks timm for a task class by name. It finds a subclass that adds the penalty, and VCR's
options are taken off the command line before the script reads it.
"""

import argparse
import csv
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    LogitDistillationTask,
    MultiLabelClassificationTask,
    TokenDistillationTask,
)

from .options import OPTIONS, read_yaml, spelled_out, vcr_settings
from .settle import check_shapes
from .task import regularized

TASKS = (
    ClassificationTask,
    MultiLabelClassificationTask,
    LogitDistillationTask,
    FeatureDistillationTask,
    TokenDistillationTask,
)
TITLE = "VCR and this project"
PERIOD = 50  # steps between two rows of vcr.csv
TERMS = ("base_loss", "vcr_loss", "vcr_variance", "vcr_covariance")
STEPS = "vcr_steps"  # in the task's part of a checkpoint


def launch(argv: list[str]) -> int:
    """Run the script named by --timm-script with the other options, VCR's excepted.

    VCR's terms go to vcr.csv beside the script's summary.csv if --output and --experiment say where
    that is, else to --output or the current folder.

    Raises:
        ValueError: for a script that is not there, or that names no task class of timm's.
    """
    own = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False)
    own.add_argument("--timm-script", required=True)
    for names, settings in OPTIONS[TITLE]:
        if names[0].startswith(("--vcr", "--no-vcr")):
            own.add_argument(*names, **settings)
    words = spelled_out(argv)
    ours, theirs = own.parse_known_args(words)
    flags = {word.partition("=")[0] for word in words}
    check_shapes([action.dest for action in own._actions if flags & {*action.option_strings}])
    if ours.vcr_every is None and any(w.startswith("--torchcompile") for w in theirs):
        ours.vcr_every = 1  # as in `settle`
    script = Path(ours.timm_script)
    if not script.is_file():
        raise ValueError(f"--timm-script {script}: there is no such file")
    stated = stated_to(theirs)
    if ours.vcr_schedule != "constant":
        raise ValueError(f"--vcr-schedule {ours.vcr_schedule}: timm's script tells no progress")
    vcr = vcr_settings(ours) | {"seed": stated.seed}
    before = sys.argv, list(sys.path)
    sys.argv = [str(script), *theirs]
    sys.path.insert(0, str(script.parent))
    try:
        module = loaded(script)
        switched = switch(module, vcr, output_folder(stated))
        if not switched:
            raise ValueError(f"{script} uses none of timm's tasks: it needs timm 1.0.29 or later")
        return module.main() or 0
    finally:
        sys.argv, sys.path[:] = before


def loaded(script: Path) -> ModuleType:
    """The script as a module, its main not yet called."""
    spec = importlib.util.spec_from_file_location("timm_train_script", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def switch(module: ModuleType, vcr: dict, folder: Path) -> list[str]:
    """Replace the task classes in a module's namespace; the names that were."""
    switched = []
    for task in TASKS:
        if getattr(module, task.__name__, None) is task:
            setattr(module, task.__name__, logged(regularized(task), vcr, folder))
            switched.append(task.__name__)
    return switched


def logged(task: type, vcr: dict, folder: Path) -> type:
    """A regularized task with its VCR arguments bound, which writes its terms down.

    Its steps go into the script's checkpoints, so that a resumed run goes on with them.
    """

    table = Table(folder / "vcr.csv")

    class Logged(task):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, vcr=vcr, **kwargs)
            self.steps, self.seen = 0, []

        def get_task_state(self, module=None, ema=False):
            state = super().get_task_state(module, ema)
            return state if ema or not self.penalties.placements else state | {STEPS: self.steps}

        def load_task_state(self, state, strict=True, module=None, ema=False):
            super().load_task_state(state, strict, module, ema)
            if state and not ema:
                self.steps = state.get(STEPS, 0)

        def forward(self, input, target):
            self.penalties.step = self.steps
            result = super().forward(input, target)
            if self.penalties.placements and self.training:
                cycle = max(k for k, _ in self.penalties.turns)  # steps until all had their turn
                place = self.steps % max(PERIOD, cycle)
                if place < cycle and os.environ.get("RANK", "0") == "0":
                    kept = {key: result[key].detach() for key in TERMS}
                    self.seen = [*self.seen, kept] if place else [kept]
                    if len(self.seen) == cycle:  # not where the script was resumed in between
                        table.write(terms(self, self.seen))
                        self.seen = []
                self.steps += 1
            return result

    Logged.__name__ = task.__name__
    return Logged


def terms(task, results: list[dict]) -> dict:
    """Mean terms of the latest steps, one column a placement and term."""

    base, vcr, *each = (torch.stack([r[key] for r in results]).mean(dim=0) for key in TERMS)
    row = {"step": task.steps, "base_loss": base.item(), "vcr_loss": vcr.item()}
    for kind, values in zip(("variance", "covariance"), each, strict=True):
        named = zip(task.penalties.placements, values.tolist(), strict=True)
        row |= {f"{kind}.{place}": value for place, value in named}
    return row


class Table:
    """A CSV file that grows by rows; of an earlier run it keeps those before our first step."""

    def __init__(self, path: Path):
        self.path, self.begun = path, False

    def write(self, row: dict) -> None:
        if not self.begun:
            self.begun = True
            kept = [old for old in self._rows() if int(old["step"]) < row["step"]]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row), extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, fieldnames=list(row)).writerow(row)

    def _rows(self) -> list[dict]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))


def stated_to(theirs: list[str]) -> argparse.Namespace:
    """What the script's options, or the YAML file among them, say of its seed and its folder."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config", default="")
    finder.add_argument("--seed", type=int, default=42)
    finder.add_argument("--output", default="")
    finder.add_argument("--experiment", default="")
    found, _ = finder.parse_known_args(theirs)
    if found.config:
        values = read_yaml(found.config)
        known = {key: values[key] for key in ("seed", "output", "experiment") if key in values}
        finder.set_defaults(**known)
        found, _ = finder.parse_known_args(theirs)
    return found


def output_folder(stated: argparse.Namespace) -> Path:
    """Where the script will write, if its options name both parts of that."""
    if stated.output and stated.experiment:
        return Path(stated.output) / stated.experiment
    return Path(stated.output or ".")
