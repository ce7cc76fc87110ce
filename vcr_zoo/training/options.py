"""Every option of training, in timm's groups and with timm's names, types and defaults.

The flags of timm's training script are taken over one for one, so that a command line or a YAML
file written for it runs here; the last group is ours. A flag overrides --config, which overrides
--recipe.
"""

import argparse
import os
import sys
from argparse import BooleanOptionalAction
from importlib import resources
from pathlib import Path

import yaml
from timm.utils import ParseKwargs

from vcr_zoo.results import closest

ABOUT = """Train a timm model, with VCR if asked for.
With --timm-script PATH, run your own copy of timm's script with its options and --vcr-*."""
EXAMPLE = "train.py my/pictures --model resnet18 --num-classes 3 --vcr"
# What --vcr stands for: chosen on validation for several networks, docs/search.md.
UNTUNED = ("--vcr-layers", "pooled", "--vcr-alpha", "0.39", "--vcr-beta", "0.34")
WITHOUT = ("--vcr-alpha", "0", "--vcr-beta", "0")
SELF_SUPERVISED = ("simclr", "vicreg", "barlow", "simsiam")  # tasks that see no labels
FLAG = {"action": BooleanOptionalAction, "default": False}
FLOATS = {"type": float, "nargs": "+", "default": None}
INTS = {"type": int, "nargs": "+", "default": None}


def continues(args: argparse.Namespace) -> bool:
    """Whether training begins with weights that have learned, and not with random ones."""
    return bool(args.pretrained or args.initial_checkpoint)


def opt(*names: str, **settings) -> tuple[tuple[str, ...], dict]:
    """One row of the table: names and what argparse is told about them."""
    return names, settings


class Shorthand(argparse.Action):
    """A word that `spelled_out` has read already; it leaves no value of its own."""

    def __init__(self, option_strings, dest, help):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self.default = argparse.SUPPRESS

    def __call__(self, *_):
        pass


class Pairs(ParseKwargs):
    """key=value ..., each value a Python literal where it reads as one."""

    def __call__(self, made, namespace, values, option_string=None):
        if wrong := [value for value in values if "=" not in value]:
            raise ValueError(f"{option_string or self.dest} takes key=value, not '{wrong[0]}'")
        super().__call__(made, namespace, values, option_string)


OPTIONS = {
    "Dataset": [
        opt("data", nargs="?", const=None, help="folder of the data (as --data-dir)"),
        opt("--data-dir", help="folder of the data"),
        opt("--dataset", default="", help="a named data set of ours, or timm's prefix/name"),
        opt("--train-split", default="train"),
        opt("--val-split", default="validation", help="empty: train without validation"),
        opt("--train-num-samples", type=int, help="train on this many pictures, the same each run"),
        opt("--val-num-samples", type=int),
        opt("--dataset-download", **FLAG, help="let torch/, tfds/ and hfids/ data sets download"),
        opt("--class-map", type=str, default="", help="file with one class folder per line"),
        opt(
            "--input-img-mode",
            type=str,
            help="PIL mode of pictures; default RGB, or L at 1 channel",
        ),
        opt("--input-key", type=str, help="name of the picture in a record"),
        opt("--target-key", type=str, help="name of the label in a record; a,b,c for several"),
        opt("--target-format", type=str, default=None, choices=("index", "multihot")),
        opt("--dataset-trust-remote-code", **FLAG),
    ],
    "Model": [
        opt("--model", type=str, default="resnet50"),
        opt("--pretrained", **FLAG),
        opt("--pretrained-path", type=str, help="start from this file, or from baseline:NAME"),
        opt(
            "--initial-checkpoint", type=str, default="", help="start from this checkpoint as it is"
        ),
        opt("--resume", type=str, default="", help="checkpoint to go on from, or 'auto'"),
        opt("--no-resume-opt", action="store_true", default=False, help="resume weights only"),
        opt("--num-classes", type=int),
        opt("--gp", type=str, help="global pooling: fast, avg, max, avgmax, avgmaxc"),
        opt("--img-size", type=int),
        opt("--in-chans", type=int),
        opt("--input-size", type=int, nargs=3, help="channels height width"),
        opt("--crop-pct", type=float),
        opt("--mean", **FLOATS),
        opt("--std", **FLOATS),
        opt("--interpolation", type=str, default=""),
        opt("-b", "--batch-size", type=int, default=128, help="pictures per process and step"),
        opt("-vb", "--validation-batch-size", type=int),
        opt("--channels-last", **FLAG),
        opt("--fuser", type=str, default=""),
        opt("--grad-accum-steps", type=int, default=1),
        opt("--grad-checkpointing", **FLAG),
        opt("--fast-norm", **FLAG),
        opt("--model-kwargs", nargs="*", default={}, action=Pairs),
        opt("--head-init-scale", type=float),
        opt("--head-init-bias", type=float),
        opt("--torchcompile-mode", type=str),
        opt("--torchscript", **FLAG),
        opt("--torchcompile", nargs="?", type=str, default=None, const="inductor"),
    ],
    "Device": [
        opt("--device", type=str, default="cuda"),
        opt("--amp", **FLAG),
        opt("--amp-dtype", type=str, default="float16"),
        opt("--model-dtype", type=str),
        opt("--no-ddp-bb", action="store_true", default=False, help="no buffer broadcast in DDP"),
        opt("--synchronize-step", **FLAG),
        opt("--local_rank", type=int, default=0),
        opt("--device-modules", type=str, nargs="+", help="Python modules to import first"),
    ],
    "Optimizer": [
        opt("--opt", type=str, default="sgd"),
        opt("--opt-eps", type=float),
        opt("--opt-betas", **FLOATS),
        opt("--momentum", type=float, default=0.9),
        opt("--weight-decay", type=float, default=2e-5),
        opt("--clip-grad", type=float),
        opt("--clip-mode", type=str, default="norm", help="norm, value or agc"),
        opt("--layer-decay", type=float),
        opt("--layer-decay-min-scale", type=float, default=0),
        opt("--layer-decay-no-opt-scale", type=float),
        opt("--opt-kwargs", nargs="*", default={}, action=Pairs),
    ],
    "Learning rate schedule": [
        opt("--sched", type=str, default="cosine"),
        opt("--sched-on-updates", **FLAG),
        opt("--lr", type=float, help="overrides --lr-base"),
        opt("--lr-base", type=float, default=0.1, help="at a global batch of --lr-base-size"),
        opt("--lr-base-size", type=int, default=256),
        opt("--lr-base-scale", type=str, default="", help="linear or sqrt"),
        opt("--lr-noise", **FLOATS),
        opt("--lr-noise-pct", type=float, default=0.67),
        opt("--lr-noise-std", type=float, default=1.0),
        opt("--lr-cycle-mul", type=float, default=1.0),
        opt("--lr-cycle-decay", type=float, default=0.5),
        opt("--lr-cycle-limit", type=int, default=1),
        opt("--lr-k-decay", type=float, default=1.0),
        opt("--lr-decay-fn", type=str, help="shape of the decay of wsd and rsqrt"),
        opt("--lr-stable-timescale", type=float, help="in epochs, of rsqrt"),
        opt("--warmup-lr", type=float, default=1e-5),
        opt("--min-lr", type=float, default=0),
        opt("--epochs", type=int, default=300),
        opt(
            "--stop-epoch",
            type=int,
            help="stop before this epoch, on the schedule of --epochs; 0 saves what it starts from",
        ),
        opt("--epoch-repeats", type=float, default=0.0),
        opt("--start-epoch", type=int),
        opt("--decay-milestones", type=int, nargs="+", default=[90, 180, 270]),
        opt("--decay-epochs", type=float, default=90),
        opt("--warmup-epochs", type=int, default=5),
        opt("--warmup-prefix", **FLAG),
        opt("--cooldown-epochs", type=int, default=0),
        opt("--patience-epochs", type=int, default=10),
        opt("--decay-rate", "--dr", type=float, default=0.1),
    ],
    "Augmentation and regularization": [
        opt("--no-aug", action="store_true", default=False),
        opt("--train-crop-mode", type=str),
        opt("--scale", type=float, nargs="+", default=[0.08, 1.0]),
        opt("--ratio", type=float, nargs="+", default=[3.0 / 4.0, 4.0 / 3.0]),
        opt("--hflip", type=float, default=0.5),
        opt("--vflip", type=float, default=0.0),
        opt("--color-jitter", type=float, default=0.4),
        opt("--color-jitter-prob", type=float),
        opt("--grayscale-prob", type=float),
        opt("--gaussian-blur-prob", type=float),
        opt("--aa", type=str, help="AutoAugment policy"),
        opt("--aug-repeats", type=float, default=0),
        opt("--aug-splits", type=int, default=0),
        opt("--jsd-loss", **FLAG),
        opt("--bce-loss", **FLAG),
        opt("--bce-sum", **FLAG),
        opt("--bce-target-thresh", type=float),
        opt("--bce-pos-weight", type=float),
        opt("--reprob", type=float, default=0.0, help="chance of random erasing"),
        opt("--remode", type=str, default="pixel"),
        opt("--recount", type=int, default=1),
        opt("--resplit", **FLAG),
        opt("--mixup", type=float, default=0.0),
        opt("--cutmix", type=float, default=0.0),
        opt("--cutmix-minmax", **FLOATS),
        opt("--mixup-prob", type=float, default=1.0),
        opt("--mixup-switch-prob", type=float, default=0.5),
        opt("--mixup-mode", type=str, default="batch"),
        opt("--mixup-off-epoch", type=int, default=0),
        opt(
            "--smoothing", type=float, default=0.1, help="of labels; 0 for multilabel if not given"
        ),
        opt("--train-interpolation", type=str, default="random"),
        opt("--drop", type=float, default=0.0),
        opt("--drop-connect", type=float),
        opt("--drop-path", type=float),
        opt("--drop-block", type=float),
    ],
    "Task and loss": [
        opt(
            "--task",
            type=str,
            default="classification",
            choices=("classification", "multilabel", *SELF_SUPERVISED),
            help="the last four learn without labels, from two views of each picture",
        ),
        opt("--ssl-hidden", type=int, help="width of the projector's hidden layers"),
        opt("--ssl-width", type=int, help="width of its embeddings"),
        opt(
            "--ssl-kwargs",
            nargs="*",
            default={},
            action=Pairs,
            help="of the self-supervised loss: temperature=0.2, say",
        ),
        opt("--multilabel-threshold", type=float, default=0.5),
        opt("--loss", type=str, help="ce, bce, asl, poly, jsd, twoway, zlpr or db"),
        opt("--class-weight", type=str, help="number, list, file, inv_freq or effective_num"),
        opt("--pos-weight", type=str, help="number, list, file or neg_pos"),
        opt("--class-stats", type=str, help="JSON with pos_counts and num_samples"),
        opt("--class-weight-power", type=float, default=1.0),
        opt("--class-weight-beta", type=float, default=0.999),
        opt("--class-weight-max", type=float),
        opt("--asl-gamma-pos", type=float, default=1.0),
        opt("--asl-gamma-neg", type=float, default=4.0),
        opt("--asl-clip", type=float, default=0.05),
        opt("--asl-reduction", type=str, default="batchmean"),
        opt("--poly-epsilon", type=float, default=2.0),
        opt("--poly-gamma", type=float, default=0.0),
        opt("--poly-alpha", type=float),
        opt("--twoway-tp", type=float, default=4.0),
        opt("--twoway-tn", type=float, default=1.0),
        opt("--db-neg-scale", type=float, default=2.0),
        opt("--db-init-bias", type=float, default=0.05),
        opt("--db-focal-gamma", type=float, default=2.0),
    ],
    "Batch norm": [
        opt("--bn-momentum", type=float),
        opt("--bn-eps", type=float),
        opt("--sync-bn", **FLAG),
        opt("--dist-bn", type=str, default="reduce", help="reduce, broadcast, or empty"),
        opt("--split-bn", **FLAG),
    ],
    "Exponential moving average": [
        opt("--model-ema", **FLAG),
        opt("--model-ema-force-cpu", **FLAG),
        opt("--model-ema-decay", type=float, default=0.9998),
        opt("--model-ema-warmup", **FLAG),
    ],
    "Miscellaneous": [
        opt("--seed", type=int, default=42),
        opt("--worker-seeding", type=str, default="all"),
        opt("--log-interval", type=int, default=50),
        opt("--val-interval", type=int, default=1),
        opt("--recovery-interval", type=int, default=0, help="save every so many updates too"),
        opt("--checkpoint-hist", type=int, default=10),
        opt("--save-epochs", **INTS, help="keep a checkpoint after these many epochs"),
        opt("-j", "--workers", type=int, default=4),
        opt("--save-images", **FLAG),
        opt("--pin-mem", **FLAG),
        opt("--no-prefetcher", action="store_true", default=False),
        opt("--output", type=str, default="", help="parent of the run's folder; default runs"),
        opt("--experiment", type=str, default="", help="name of the run's folder"),
        opt("--eval-metric", type=str, default="top1"),
        opt("--tta", type=int, default=0),
        opt("--use-multi-epochs-loader", **FLAG),
        opt("--log-wandb", **FLAG),
        opt("--wandb-project", type=str),
        opt("--wandb-tags", type=str, nargs="+", default=[]),
        opt("--wandb-resume-id", type=str, default=""),
        opt("--train-img-sizes", **INTS),
        opt("--train-batch-sizes", **INTS),
        opt("--train-size-probs", **FLOATS),
        opt("--train-size-schedule", default="constant", choices=("constant", "progressive")),
        opt("--train-size-schedule-spread", type=float, default=0.65),
        opt("--train-size-random-mix", type=float, default=0.1),
        opt("--train-batches-per-epoch", "--train-steps-per-epoch", type=int),
        opt("--variable-batch-loss-scale", default="none", choices=("none", "sqrt", "linear")),
        opt("--naflex-loader", **FLAG),
        opt("--naflex-train-seq-lens", type=int, nargs="+", default=[128, 256, 576, 784, 1024]),
        opt("--naflex-max-seq-len", type=int, default=576),
        opt("--naflex-patch-sizes", **INTS),
        opt("--naflex-patch-size-probs", **FLOATS),
        opt("--naflex-loss-scale", default="linear", choices=("none", "sqrt", "linear")),
        opt("--naflex-patchify-channels-first", **FLAG),
    ],
    "Distillation": [
        opt("--kd-model-name", type=str, help="the teacher"),
        opt("--kd-distill-type", default="logit", choices=["logit", "feature", "token"]),
        opt("--kd-loss-type", type=str, default="kl"),
        opt("--distill-loss-weight", type=float),
        opt("--task-loss-weight", type=float),
        opt("--kd-temperature", type=float, default=4.0),
        opt("--kd-student-feature-dim", type=int),
        opt("--kd-teacher-feature-dim", type=int),
        opt("--kd-token-distill-type", default="soft", choices=["soft", "hard"]),
    ],
    "VCR and this project": [
        opt("--recipe", type=str, default="", help="a packaged recipe, as test_resnet.vcr_fmnist4"),
        opt("--vcr", action=Shorthand, help=f"without tuning: {' '.join(UNTUNED)}"),
        opt("--no-vcr", action=Shorthand, help=f"without VCR: {' '.join(WITHOUT)}"),
        opt("--vcr-alpha", type=float, default=0.0, help="weight of the variance term"),
        opt("--vcr-beta", type=float, default=0.0, help="weight of the covariance term"),
        opt("--vcr-delta", type=float, default=1.0, help="smooth-L1 threshold; 0: plain square"),
        opt("--vcr-eps", type=float, default=1e-4, help="added to variances"),
        opt("--vcr-layers", type=str, default="blocks", help="blocks, stages, pooled or modules"),
        opt("--vcr-rows", type=int, default=64, help="samples of a map in a step; 0: all of them"),
        opt("--vcr-every", type=int, help="steps in which maps take turns; 4, or 1 of all samples"),
        opt("--vcr-schedule", type=str, default="constant", help="or rise, fall: over the run"),
        opt("--vcr-share", type=float, help="of the norm of the gradient that passes; see docs"),
        opt("--vcr-variant", type=str, help="another penalty: see vcr_zoo.variants"),
        opt("--vcr-sync", **FLAG, help="statistics over all processes"),
        opt("--during", **FLAG, help="log deviation, correlation and rank of features each epoch"),
        opt("--label-level", default="fine", choices=("fine", "coarse"), help="of named data sets"),
        opt("--loader", default="auto", choices=("auto", "timm", "tensor"), help="of named sets"),
        opt("--keep-last", **FLAG, help="train on the short last batch of an epoch too"),
        opt("--overwrite", **FLAG, help="begin again in a folder that holds a run"),
        opt("--on-bad-image", default="error", choices=("error", "skip")),
        opt("--dry-run", **FLAG, help="print what would be done, train one step, stop"),
        opt("--log-tensorboard", **FLAG),
        opt("--log-trackio", **FLAG),
    ],
}


class _Parser(argparse.ArgumentParser):
    """argparse that raises, so that a program which calls us gets an exception, not an exit."""

    def error(self, message: str):
        raise ValueError(message)


def parser() -> argparse.ArgumentParser:
    """The command line of training."""
    usage, epilog = "train.py [FOLDER] [options]", f"example: {EXAMPLE}"
    made = _Parser(prog="train.py", usage=usage, description=ABOUT, epilog=epilog)
    made.add_argument("-c", "--config", type=str, default="", help="YAML file of options")
    for title, rows in OPTIONS.items():
        group = made.add_argument_group(title)
        for names, settings in rows:
            group.add_argument(*names, **settings | {"help": described(settings)})
    return made


def described(settings: dict) -> str | None:
    """What an option's line of --help says, with its default where there is one."""
    default, said = settings.get("default"), settings.get("help")
    if default in (None, "", []) or default is False:
        return said
    return f"{said or ''} (default: {default})".lstrip()  # spelled out: `parse` hides defaults


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Arguments of a run from a command line, a --config file and a --recipe.

    The set `given` on the result holds the names that any of the three stated.

    Raises:
        ValueError: for an option, key or value that does not exist, with the closest that do.
        LookupError: for a recipe that does not exist.
    """
    argv = spelled_out(argv)
    stated = _stated(argv)
    made = parser()
    config = stated.get("config")
    above = checked(made, read_yaml(config)) if config else {}
    recipe = stated.get("recipe") or above.get("recipe", "")
    beneath = checked(made, read_yaml(recipe_file(recipe))) if recipe else {}
    made.set_defaults(**{**beneath, **above, "recipe": recipe})
    args = made.parse_args(argv)
    args.given = {*beneath, *above, *stated}
    return args


def spelled_out(argv: list[str] | None) -> list[str]:
    """A command line with the options that --vcr and --no-vcr stand for, which others on it
    override."""
    argv = sys.argv[1:] if argv is None else list(argv)
    shorthands = {"--vcr": UNTUNED, "--no-vcr": WITHOUT}
    return [*(option for word in argv for option in shorthands.get(word, ())), *argv]


def _stated(argv: list[str]) -> dict:
    """What the command line itself states, by name."""
    made = parser()
    for action in made._actions:
        action.default = argparse.SUPPRESS
    stated, unknown = made.parse_known_args(argv)
    if unknown:
        flags = [flag for action in made._actions for flag in action.option_strings]
        raise ValueError(f"unknown option {unknown[0]}.{closest(unknown[0].split('=')[0], flags)}")
    return vars(stated)


def read_yaml(path: str | Path) -> dict:
    """Content of a YAML file of options, as it stands there.

    Raises:
        ValueError: for a file that cannot be read, or is something else.
    """
    try:
        content = yaml.safe_load(Path(path).read_text()) or {}
    except OSError as error:
        raise ValueError(f"cannot read the configuration {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one 'option: value' a line")
    return content


def checked(made: argparse.ArgumentParser, values: dict) -> dict:
    """The values of a YAML file, each of its option's type.

    Raises:
        ValueError: for a key that is no option, or a value of the wrong type.
    """
    actions = {
        action.dest: action for action in made._actions if action.dest not in ("help", "config")
    }
    unknown = [key for key in values if key not in actions]
    if unknown:
        near = closest(str(unknown[0]).replace("-", "_"), actions)
        if unknown[0] == "vcr":
            near = f" --vcr stands for {' '.join(UNTUNED)}: give these three."
        raise ValueError(f"unknown key '{unknown[0]}' in the configuration.{near}")
    return {key: _typed(actions[key], value) for key, value in values.items()}


def _typed(action: argparse.Action, value):
    """One YAML value as its option would have parsed it."""
    wanted = action.type or (bool if action.nargs == 0 else str)
    if value is None and action.default is None:
        return None
    if isinstance(action, ParseKwargs):
        if isinstance(value, dict):
            return value
        namespace = argparse.Namespace()
        action(None, namespace, value.split() if isinstance(value, str) else value)
        return getattr(namespace, action.dest)
    if action.nargs in ("+", 3):
        values = value if isinstance(value, list | tuple) else [value]
        if action.nargs == 3 and len(values) != 3:
            raise ValueError(f"'{action.dest}' takes 3 values, not {len(values)}: {value}")
        return [_scalar(action, wanted, item) for item in values]
    return _scalar(action, wanted, value)


def _scalar(action: argparse.Action, wanted: type, value):
    accepted = {int: int, float: (int, float, str), bool: bool, str: str}[wanted]
    wrong = not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool)
    try:
        typed = value if wrong else wanted(value)
    except ValueError:
        wrong = True
    if wrong:
        raise ValueError(f"'{action.dest}' must be of type {wanted.__name__}, not {value!r}")
    if action.choices and typed not in action.choices:
        raise ValueError(f"'{action.dest}' is {typed!r}; choose from {', '.join(action.choices)}")
    return typed


def recipes() -> list[str]:
    """Names of the packaged recipes."""
    folder = resources.files("vcr_zoo") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def recipe_file(name: str) -> Path:
    """File of a packaged recipe.

    Raises:
        LookupError: if there is none of that name.
    """
    if name not in recipes():
        near = closest(name, recipes()) or f" There are: {', '.join(recipes())}."
        raise LookupError(f"no recipe '{name}'.{near}")
    return Path(str(resources.files("vcr_zoo") / "recipes" / f"{name}.yaml"))


def as_yaml(args: argparse.Namespace) -> str:
    """The options of a run as a file that --config reads: what it computes, not what it began
    with."""
    once = {"help", "config", "overwrite", "dry_run", "resume", "wandb_resume_id"}
    known = {action.dest for action in parser()._actions} - once
    values = {key: value for key, value in vars(args).items() if key in known}
    return yaml.safe_dump(values, sort_keys=True)


def vcr_settings(args: argparse.Namespace) -> dict:
    """The --vcr-* options as `vcr_zoo.placement.attach` takes them."""
    return {
        "layers": args.vcr_layers,
        "alpha": args.vcr_alpha,
        "beta": args.vcr_beta,
        "delta": args.vcr_delta or None,
        "eps": args.vcr_eps,
        "rows": args.vcr_rows or None,
        "every": args.vcr_every,
        "variant": args.vcr_variant,
        "share": args.vcr_share,
        "schedule": args.vcr_schedule,
        "sync": args.vcr_sync,
    }


def run_name(args: argparse.Namespace) -> str:
    """Name of the run's folder."""
    return args.experiment or args.recipe or args.model.replace("/", "_").replace(os.sep, "_")
