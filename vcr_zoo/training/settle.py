"""Options settled against each other, and refused where they cannot be honoured."""

import argparse
import importlib
import logging
import shlex
from collections.abc import Collection
from pathlib import Path

import torch
import yaml
from timm.layers import set_fast_norm
from timm.optim import get_optimizer_info, list_optimizers
from timm.utils import set_jit_fuser

from vcr_zoo.data import is_named
from vcr_zoo.placement import steps_of
from vcr_zoo.results import closest

from .loading import mixes
from .options import SELF_SUPERVISED, as_yaml, parse, parser
from .task import SCHEDULES as VCR_SCHEDULES

SCHEDULES = (
    *("cosine", "tanh", "step", "multistep", "poly"),
    *("wsd", "rsqrt", "constant", "plateau", "none"),
)

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CHOICES = {
    "amp_dtype": ("float16", "bfloat16"),
    "model_dtype": ("float32", "float16", "bfloat16"),
    "dist_bn": ("", "reduce", "broadcast"),
    "clip_mode": ("norm", "value", "agc"),
    "worker_seeding": ("all", "part"),
    "mixup_mode": ("batch", "pair", "elem"),
    "lr_base_scale": ("", "linear", "sqrt"),
    "sched": SCHEDULES,
    "vcr_schedule": tuple(VCR_SCHEDULES),
    "remode": ("", "const", "rand", "pixel"),
    "train_crop_mode": ("", "rrc", "rkrc", "rkrr"),
    "interpolation": ("", *INTERPOLATIONS),
    "train_interpolation": ("", "random", *INTERPOLATIONS),
}
LEAST = {  # of options that are numbers, where one is given
    **dict.fromkeys("vcr_alpha vcr_beta vcr_delta vcr_eps vcr_rows".split(), 0),
    **dict.fromkeys(
        "workers recovery_interval start_epoch stop_epoch warmup_epochs cooldown_epochs".split(), 0
    ),
    **dict.fromkeys("lr lr_base min_lr warmup_lr weight_decay mixup cutmix".split(), 0),
    **dict.fromkeys("epochs val_interval log_interval checkpoint_hist".split(), 1),
    **dict.fromkeys("batch_size validation_batch_size recount vcr_every".split(), 1),
    **dict.fromkeys("train_num_samples val_num_samples ssl_hidden ssl_width".split(), 1),
}
SHARES = (
    "hflip vflip reprob mixup_prob mixup_switch_prob color_jitter_prob grayscale_prob "
    "gaussian_blur_prob smoothing drop drop_path drop_connect drop_block momentum model_ema_decay"
).split()

PLACES = set(  # options that say where and how a run is done, not what it computes
    "recipe config output experiment overwrite resume workers pin_mem device local_rank dry_run "
    "data_dir log_interval log_tensorboard log_wandb log_trackio recovery_interval save_images "
    "checkpoint_hist validation_batch_size".split()
)
SHAPES = ("vcr_layers", "vcr_share", "vcr_variant", "vcr_schedule")  # of VCR, with weights only
BY_THE_DATA = ("num_classes", "mean", "std", "lr")  # what a run settles where it is left open

VIEWS = {"scale": [0.2, 1.0], "color_jitter": 0.4, "color_jitter_prob": 0.8, "grayscale_prob": 0.2}

log = logging.getLogger(__name__)


def settle(args: argparse.Namespace, device: torch.device) -> None:
    """Settle what depends on other options, and refuse what cannot be honoured."""
    for module in args.device_modules or ():
        importlib.import_module(module)
    args.data_dir = args.data_dir or args.data
    args.grad_accum_steps = max(1, args.grad_accum_steps)
    _numbers(args)
    _only_where_it_counts(args)
    for name, options in CHOICES.items():
        one_of(args, name, options)
    if args.torchcompile:
        one_of(args, "torchcompile", torch._dynamo.list_backends(exclude_tags=()))
    if args.vcr_every is None:  # compiled, each turn would be a graph of its own
        args.vcr_every = 1 if args.torchcompile else steps_of(None, args.vcr_rows)
    if args.vcr_share is not None and args.vcr_schedule != "constant":
        raise ValueError(
            f"--vcr-schedule {args.vcr_schedule} changes coefficients, which --vcr-share takes the "
            "ratio of alone: give one of the two"
        )
    args.opt = args.opt.lower()
    known = list_optimizers()
    one_of(args, "opt", [*known, *(f"lookahead_{name}" for name in known)])
    regularizes = any((args.vcr_alpha, args.vcr_beta))
    check_shapes(args.given)
    if regularizes and get_optimizer_info(args.opt.removeprefix("lookahead_")).second_order:
        raise ValueError(
            f"--opt {args.opt} differentiates gradients again, which the penalty's closed form "
            "does not allow: take another, or leave --vcr-alpha and --vcr-beta at 0"
        )
    if args.pretrained_path and not args.pretrained:
        raise ValueError("--pretrained-path is read with --pretrained only: add it")
    if args.amp and args.model_dtype not in (None, "float32"):
        raise ValueError("--amp works on float32 weights; leave --model-dtype out")
    if args.amp and device.type == "cpu" and "amp_dtype" not in args.given:
        args.amp_dtype = "bfloat16"
        log.info("AMP on the CPU: bfloat16 (pass --amp-dtype float16 for the other)")
    if args.tta > 1:
        raise ValueError(
            f"--tta {args.tta} would average the scores of neighboring pictures: timm's loaders "
            "make no augmented copies of them"
        )
    if args.aug_splits == 1:
        raise ValueError("--aug-splits 1 makes no splits; give 2 or more, or 0")
    if args.aug_repeats and not args.distributed:
        raise ValueError("--aug-repeats spreads repeats over processes: start several by torchrun")
    if mixes(args) and args.batch_size % 2:
        raise ValueError(f"mixing works on pairs: --batch-size {args.batch_size} is odd")
    if mixes(args) and args.keep_last:
        raise ValueError("mixing works on pairs: --keep-last could leave an odd batch")
    if args.keep_last and (args.train_img_sizes or args.train_batches_per_epoch):
        raise ValueError("--keep-last goes with one batch size, not with a schedule of sizes")
    if args.keep_last and (args.aug_splits or args.aug_repeats):
        raise ValueError("--keep-last counts pictures once: leave --aug-splits, --aug-repeats out")
    if args.torchscript:
        raise ValueError(
            "--torchscript: hooks, which VCR is made of, and torch.jit.script do not mix, and "
            "torch has deprecated it; use --torchcompile"
        )
    if args.fuser:
        _fuser(args.fuser)
    if args.fast_norm:
        set_fast_norm()
    if args.task in SELF_SUPERVISED:
        _self_supervised(args)
    elif args.ssl_hidden or args.ssl_width or args.ssl_kwargs:
        raise ValueError(f"--ssl-... options go with --task {', '.join(SELF_SUPERVISED)}")
    if args.task == "multilabel" and "smoothing" not in args.given:
        args.smoothing = 0.0
    if args.task == "multilabel" and "eval_metric" not in args.given:
        args.eval_metric = "map"
    if args.naflex_loader and args.save_images:
        raise ValueError("--save-images draws pictures, but --naflex-loader gives patches of them")
    if args.naflex_loader and regularizes:
        raise ValueError(
            "--naflex-loader gives padded token sequences of varied length, on which the "
            "statistics of VCR would count padding; leave --vcr-alpha and --vcr-beta at 0"
        )


def check_shapes(given: Collection[str]) -> None:
    """Refuse options that shape VCR where none gives it weights, with a ValueError."""
    shaped = [f"--{name.replace('_', '-')}" for name in SHAPES if name in given]
    if shaped and not {"vcr_alpha", "vcr_beta"} & {*given}:
        raise ValueError(
            f"{', '.join(shaped)} without weights would switch nothing on: add --vcr, or "
            "--vcr-alpha and --vcr-beta"
        )


def _numbers(args: argparse.Namespace) -> None:
    """Refuse numbers outside of what makes sense."""
    for name, bound in LEAST.items():
        value = getattr(args, name)
        if value is not None and not value >= bound:  # NaN is not
            flag, must = name.replace("_", "-"), "be positive" if bound else "not be negative"
            raise ValueError(f"--{flag} must {must}, but is {value}")
    for name in SHARES:
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"--{name.replace('_', '-')} is a share from 0 to 1, not {value}")
    for name in ("scale", "ratio", "cutmix_minmax"):
        value = getattr(args, name)
        if value and (len(value) != 2 or not 0 <= value[0] <= value[1] or value[1] == 0):
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} takes two numbers, the smaller first, not {value}")
    for name in ("clip_grad", "std"):
        value = getattr(args, name)
        if value is not None and not min(value if name == "std" else [value]) > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, but is {value}")
    if args.vcr_rows == 1:
        raise ValueError("--vcr-rows 1: a variance needs two samples or more; 0 takes all")


def _self_supervised(args: argparse.Namespace) -> None:
    """Defaults of tasks that learn from two views, and what does not go with them."""
    for name, value in VIEWS.items():
        if name not in args.given:
            setattr(args, name, value)
    useless = {
        "--mixup and --cutmix": mixes(args),
        "--aug-splits": args.aug_splits,
        "--aug-repeats": args.aug_repeats,
        "--split-bn": args.split_bn,
        "--resplit": args.resplit,
        "--naflex-loader": args.naflex_loader,
        "--keep-last": args.keep_last,
        "--kd-model-name": args.kd_model_name,
        "--loss": args.loss or args.bce_loss or args.jsd_loss,
        "--num-classes": args.num_classes,
        "--class-weight": args.class_weight,
        "--class-stats": args.class_stats,
        "--pos-weight": args.pos_weight,
        "--smoothing": args.smoothing != parser().get_default("smoothing"),
        "--head-init-scale": args.head_init_scale is not None,
        "--head-init-bias": args.head_init_bias is not None,
        "--train-img-sizes": args.train_img_sizes,
        "--train-batches-per-epoch": args.train_batches_per_epoch,
    }
    if refused := next((name for name, asked in useless.items() if asked), None):
        raise ValueError(
            f"{refused} does not go with --task {args.task}, which sees two views of each picture "
            "and no labels: leave it out"
        )
    if args.batch_size < 2:
        raise ValueError(
            f"--task {args.task} compares pictures: --batch-size {args.batch_size} leaves one alone"
        )
    if args.no_aug:
        raise ValueError(
            f"--task {args.task} learns from the difference of two views, which --no-aug makes "
            "identical: leave it out"
        )


def _only_where_it_counts(args: argparse.Namespace) -> None:
    """Refuse options that the kind of data would leave without effect."""
    of_timm = ("class_map", "input_img_mode", "input_key", "target_key", "target_format")
    useless = of_timm if is_named(args.dataset) else ()
    if not args.dataset:
        useless = ("target_key",)
    if args.dataset.lower().startswith("torch/"):
        useless = of_timm[:-1]
    if not is_named(args.dataset) and args.label_level != "fine":
        useless = ("label_level",)
    if not args.dataset.lower().startswith(("tfds/", "wds/", "hfids/")):
        useless += ("epoch_repeats",)
    for name in useless:
        if getattr(args, name):
            what = args.dataset or "a folder"
            raise ValueError(f"--{name.replace('_', '-')} has no effect on {what}: leave it out")
    if args.train_batch_sizes and not args.train_img_sizes:
        raise ValueError("--train-batch-sizes are those of --train-img-sizes: give both")
    if args.during and not args.val_split:
        raise ValueError("--during looks at validation pictures, of which --val-split '' has none")
    missed = [n for n in args.save_epochs or () if n % args.val_interval and n != args.epochs]
    if missed:
        raise ValueError(
            f"--save-epochs {missed[0]}: checkpoints are made after validation, every "
            f"{args.val_interval} epochs by --val-interval"
        )


def one_of(args: argparse.Namespace, name: str, options) -> None:
    """Refuse a value that is not among the options, naming the closest."""
    value = getattr(args, name)
    if value is not None and value not in options:
        flag, near = name.replace("_", "-"), closest(str(value), options)
        shown = "" if len(options) > 10 else f" Choose from {', '.join(filter(None, options))}."
        raise ValueError(f"--{flag} '{value}' does not exist.{near}{shown}")


def _fuser(name: str) -> None:
    try:
        set_jit_fuser(name)
    except (AssertionError, AttributeError, RuntimeError) as error:
        raise ValueError(f"--fuser {name}: this build of torch lacks it ({error})") from None


def settled(name: str, *options: str) -> argparse.Namespace:
    """A recipe's options, with options over it, as a run on the processor settles them: but for
    what it learns from the data.

    Raises:
        LookupError: for a name without a recipe.
        ValueError: for options that do not go together.
    """
    args = parse(["--recipe", name, *options])
    args.distributed = True  # some recipes need several processes
    settle(args, torch.device("cpu"))
    return args


def check_recipe(run: Path, name: str, *options: str) -> None:
    """Refuse a run that was not trained as the recipe of a name says, with options over it.

    Raises:
        LookupError: for a name without a recipe.
        FileNotFoundError: for a folder that no training wrote.
        ValueError: naming the options that differ.
    """
    wanted = settled(name, *options)
    if not (run / "args.yaml").exists():
        raise FileNotFoundError(f"{run} is no folder of a run: it lacks training's args.yaml")
    by_the_device = () if "amp_dtype" in wanted.given else ("amp_dtype",)
    theirs = yaml.safe_load(as_yaml(wanted))
    usual = yaml.safe_load(as_yaml(parse([])))  # of options that the run did not know of
    ours = usual | yaml.safe_load((run / "args.yaml").read_text())
    differ = [
        f"{key} is {ours[key]}, not {value}"
        for key, value in theirs.items()
        if ours[key] != value
        and key not in (*PLACES, *by_the_device)
        and not (value is None and key in BY_THE_DATA)
    ]
    if differ:
        asked = shlex.join(["--recipe", name, *options])
        raise ValueError(
            f"{run} was not trained with {asked}: {'; '.join(differ[:5])}. Give another folder, "
            "train it so, or let the recipe say what it was trained with"
        )
