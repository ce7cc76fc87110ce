"""From arguments to the parts of a run: model, data, task, optimizer, schedule.

The order is timm's: model, loaders, task, optimizer, (resume,) EMA, compilation, DDP, schedule.
"""

import argparse
import copy
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from timm.data import resolve_input_data_config
from timm.layers import convert_sync_batchnorm
from timm.loss import create_classification_loss
from timm.loss.class_weights import load_class_stats, resolve_class_weights
from timm.models import NaFlexVit
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    LogitDistillationTask,
    MultiLabelClassificationTask,
    TokenDistillationTask,
    TrainingTask,
)
from timm.utils import NativeScaler
from torch import nn
from torch.utils.data import Dataset

from vcr_zoo.data import Images
from vcr_zoo.zoo import check_name

from .loading import Loader, evaluation_loader, mixes, training_loader
from .model import create_model, prepare
from .options import SELF_SUPERVISED, vcr_settings
from .randomness import seed_everything
from .settle import one_of, settle
from .sources import as_multilabel, check, class_names, open_split
from .ssl import SelfSupervisedTask, heads_of
from .task import regularized

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """Everything that one run is made of."""

    args: argparse.Namespace
    device: torch.device
    dtype: torch.dtype | None  # of the model; None: float32
    autocast: Callable
    scaler: NativeScaler | None
    task: TrainingTask
    optimizer: torch.optim.Optimizer
    train: Loader
    validation: Loader | None
    bank: Loader | None  # training pictures as validation sees them, where their neighbors vote
    data_config: dict
    classes: list[str]
    eval_model: nn.Module = None
    eval_model_ema: nn.Module | None = None
    schedule: object | None = None
    epochs: int = 0
    metric: str = "top1"
    placements: list = field(default_factory=list)
    during: Callable | None = None  # measures features while a model is validated

    @property
    def updates_per_epoch(self) -> int:
        return -(-len(self.train) // self.args.grad_accum_steps)

    @property
    def decreasing(self) -> bool:
        return self.metric == "loss"


def wire(args: argparse.Namespace, device: torch.device) -> Parts:
    """Parts of a run up to the optimizer, its weights still those it begins with.

    Raises:
        ValueError, LookupError: for an option that cannot be honoured, saying why.
    """
    settle(args, device)
    dtype = getattr(torch, args.model_dtype) if args.model_dtype else None
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    seed_everything(args.seed, args.rank)
    channels = args.in_chans or (args.input_size[0] if args.input_size else 3)
    train = open_split(args, args.train_split, channels, training=True)
    validation = None
    if args.val_split:
        validation = open_split(args, args.val_split, channels, training=False)
    check(args, train, validation)
    classes = class_names(train)
    blind = args.task in SELF_SUPERVISED
    apart = _check_parts(args, train, validation)
    # whether neighbors vote: of several classes, the same ones, and never a picture for itself
    votes = apart and len(classes) != 1 and classes == class_names(validation)
    _named_defaults(args, train, channels)
    if blind:
        args.num_classes = 0
    if args.task == "multilabel":
        for images in (train, validation):
            if images is not None:
                as_multilabel(args, images)

    seed_everything(args.seed, 0)  # as on rank 0, for EMA's sake, which DDP does not broadcast
    model = create_model(args, channels)
    args.num_classes = 0 if blind else args.num_classes or model.num_classes
    if len(classes) > args.num_classes and not blind:
        raise ValueError(f"{len(classes)} classes, but --num-classes is {args.num_classes}")
    if 0 < len(classes) < args.num_classes and "num_classes" not in args.given:
        log.warning(
            f"{len(classes)} classes, but {args.model} has {args.num_classes} outputs: "
            f"pass --num-classes {len(classes)}"
        )
    if args.naflex_loader and not isinstance(model, NaFlexVit):
        raise ValueError(
            f"--naflex-loader cuts pictures into patches, which {args.model} does not take: "
            "--model naflexvit_base_patch16_gap does"
        )
    data_config = resolve_input_data_config(model, vars(args))
    model = prepare(args, model, device, dtype)

    patch_size = model.get_patch_size() if hasattr(model, "get_patch_size") else (16, 16)
    settings = (data_config, device, dtype, patch_size)
    seen = copy.copy(train)  # the same pictures, before they are told how to be augmented
    train_loader = training_loader(args, train, *settings)
    task = create_task(args, model, data_config, device, dtype)
    if args.lr is None:
        args.lr = scaled_rate(args, train_loader.average_batch)
    return Parts(
        args=args,
        device=device,
        dtype=dtype,
        autocast=autocast(args, device),
        scaler=NativeScaler(device.type) if _needs_scaler(args) else None,
        task=task,
        optimizer=create_optimizer(args, task),
        train=train_loader,
        validation=(None if validation is None else evaluation_loader(args, validation, *settings)),
        bank=evaluation_loader(args, seen, *settings) if blind and votes else None,
        data_config=data_config,
        classes=classes,
        metric=_metric(args, validation, votes),
        placements=list(task.penalties.placements),
    )


def _check_parts(args: argparse.Namespace, train: Dataset, validation) -> bool:
    """Whether there are two splits; warns where both are the same pictures, as timm has it for a
    folder without parts.

    Raises:
        ValueError: where one split would hold the other, because its folder does not exist.
    """
    folders = [getattr(images, "reader", None) for images in (train, validation)]
    if not all(hasattr(reader, "samples") for reader in folders):
        return validation is not None
    own, other = (Path(str(reader.root)) for reader in folders)
    if own in other.parents or other in own.parents:
        split = args.train_split if own in other.parents else args.val_split
        raise ValueError(
            f"{args.data_dir} has no folder '{split}', only one of the two splits: make one, or "
            "pass --val-split '' to go without"
        )
    if own == other:
        log.warning(
            f"{args.data_dir} has no {args.val_split} folder: validating on the training pictures. "
            f"Make one beside train, let --dataset folder/{args.data_dir} divide the pictures, or "
            "pass --val-split '' to go without."
        )
    return own != other


def _named_defaults(args: argparse.Namespace, images: Dataset, channels: int) -> None:
    """What a named data set settles by itself: its classes, and its channels' statistics."""
    if not isinstance(images, Images):
        return
    args.num_classes = args.num_classes or len(images.classes)
    for name in ("mean", "std"):
        known = getattr(images, name)
        if getattr(args, name) is None:
            setattr(args, name, [*known] * (channels if len(known) == 1 else 1))


def create_task(args, model: nn.Module, data_config: dict, device, dtype) -> TrainingTask:
    """timm's task for these options, regularized."""
    common = {
        "criterion": None if args.task in SELF_SUPERVISED else criterion(args),
        "device": device,
        "dtype": dtype,
        "verbose": False,
        "vcr": vcr_settings(args)
        | {
            "sync": args.vcr_sync and args.distributed,
            "input_size": tuple(data_config["input_size"]),
            "seed": args.seed,
        },
    }
    if args.task in SELF_SUPERVISED:
        del common["criterion"]
        seed_everything(args.seed, 0)  # as on rank 0
        task = regularized(SelfSupervisedTask)(
            model,
            args.task,
            hidden=args.ssl_hidden,
            width=args.ssl_width,
            loss=args.ssl_kwargs,
            gather=args.distributed,
            input_size=tuple(data_config["input_size"]),
            **common,
        )
        if args.distributed and args.sync_bn:
            for name, head in heads_of(task.trainable_module).items():  # `prepare` did the network
                setattr(task.trainable_module, name, convert_sync_batchnorm(head))
        return task
    if args.kd_model_name:
        return _distillation(args, model, data_config, common)
    if args.task == "multilabel":
        kind = regularized(MultiLabelClassificationTask)
        return kind(model, threshold=args.multilabel_threshold, **common)
    return regularized(ClassificationTask)(model, **common)


def _distillation(args, model: nn.Module, data_config: dict, common: dict) -> TrainingTask:
    if args.task == "multilabel":
        raise ValueError(
            "timm's distillation tasks have one label a picture, not --task multilabel"
        )
    teacher = args.kd_model_name
    check_name(teacher)
    # timm undoes by it how the student's pictures were normalized, before the teacher sees them
    model.pretrained_cfg = {**model.pretrained_cfg, **{k: data_config[k] for k in ("mean", "std")}}
    common |= {
        "student_model": model,
        "teacher_model": teacher,
        "distill_loss_weight": args.distill_loss_weight,
        "task_loss_weight": args.task_loss_weight,
    }
    if args.kd_distill_type == "feature":
        kind = FeatureDistillationTask
        common["student_feature_dim"] = args.kd_student_feature_dim
        common["teacher_feature_dim"] = args.kd_teacher_feature_dim
    elif args.kd_distill_type == "token":
        kind = TokenDistillationTask
        common |= {"distill_type": args.kd_token_distill_type, "temperature": args.kd_temperature}
    else:
        kind = LogitDistillationTask
        common |= {"loss_type": args.kd_loss_type, "temperature": args.kd_temperature}
    task = regularized(kind)(**common)
    if data_config["input_size"][0] == 1:  # of a teacher that was made for colours
        for name in ("mean_kd", "std_kd"):
            setattr(task.teacher, name, getattr(task.teacher, name).mean(dim=1, keepdim=True))
    return task


def criterion(args: argparse.Namespace) -> nn.Module:
    """The loss that the options describe: --loss, or timm's older --bce-loss and --jsd-loss.

    Raises:
        ValueError: for options that contradict the loss, from timm.
    """
    older = "bce" if args.bce_loss else "jsd" if args.jsd_loss else None
    if args.loss and older and args.loss != older:
        raise ValueError(f"--loss {args.loss} contradicts --{older}-loss")
    kind = args.loss or older
    if kind == "jsd" and args.aug_splits < 2:
        raise ValueError(
            "the jsd loss compares augmentations of a picture: give --aug-splits 2 or 3"
        )
    multilabel = args.task == "multilabel"
    kind = kind or ("bce" if multilabel else "ce")
    stats = load_class_stats(args.class_stats)
    weights = {"class_stats": stats, "power": args.class_weight_power}
    weights |= {"beta": args.class_weight_beta, "max_weight": args.class_weight_max}
    positive = resolve_class_weights(args.pos_weight, "pos_weight", **weights)
    counts = {}
    if kind == "db":
        if stats is None:
            raise ValueError("--loss db needs --class-stats FILE")
        counts = {"class_counts": stats[0], "num_samples": stats[1]}
    return create_classification_loss(
        kind,
        multi_label=multilabel,
        smoothing=0.0 if kind in ("twoway", "zlpr") else args.smoothing,
        soft_targets=mixes(args) and kind != "jsd",
        class_weight=resolve_class_weights(args.class_weight, "class_weight", **weights),
        pos_weight=positive if positive is not None else args.bce_pos_weight,
        bce_target_thresh=args.bce_target_thresh,
        bce_sum=args.bce_sum,
        asl_gamma_pos=args.asl_gamma_pos,
        asl_gamma_neg=args.asl_gamma_neg,
        asl_clip=args.asl_clip,
        asl_reduction=args.asl_reduction,
        poly_epsilon=args.poly_epsilon,
        poly_gamma=args.poly_gamma,
        poly_alpha=args.poly_alpha,
        jsd_splits=args.aug_splits,
        twoway_tp=args.twoway_tp,
        twoway_tn=args.twoway_tn,
        db_neg_scale=args.db_neg_scale,
        db_init_bias=args.db_init_bias,
        db_focal_gamma=args.db_focal_gamma,
        **counts,
    )


def create_optimizer(args: argparse.Namespace, task: TrainingTask) -> torch.optim.Optimizer:
    try:
        return create_optimizer_v2(
            task.get_trainable_module(), **optimizer_kwargs(cfg=args), **args.opt_kwargs
        )
    except TypeError as error:
        raise ValueError(
            f"--opt {args.opt} does not take an option that was given: {error}"
        ) from None


def scaled_rate(args: argparse.Namespace, batch: float) -> float:
    """Learning rate from --lr-base: times batch ratio, or its root for adaptive optimizers."""
    ratio = batch * args.world_size * args.grad_accum_steps / args.lr_base_size
    adaptive = any(word in args.opt.lower() for word in ("ada", "lamb"))
    scale = args.lr_base_scale or ("sqrt" if adaptive else "linear")
    return args.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)


def autocast(args: argparse.Namespace, device: torch.device) -> Callable:
    """A function that opens the run's autocast context, a null one without --amp."""
    if not args.amp:
        return nullcontext
    return partial(torch.autocast, device_type=device.type, dtype=getattr(torch, args.amp_dtype))


def _needs_scaler(args: argparse.Namespace) -> bool:
    return args.amp and args.amp_dtype == "float16"


def _metric(args: argparse.Namespace, validation, votes: bool) -> str:
    names = ("loss", "map", "micro_f1", "macro_f1", "sample_f1")
    if args.task != "multilabel":
        names = ("loss", "top1", "top5")
    if args.task in SELF_SUPERVISED:
        names = ("loss", "top1") if votes else ("loss",)
        if not votes and "eval_metric" not in args.given:
            args.eval_metric = "loss"
    one_of(args, "eval_metric", names)
    if args.eval_metric == "top5" and args.num_classes <= 5:
        raise ValueError(
            f"--eval-metric top5 is always 100 with {args.num_classes} classes: take top1 or loss"
        )
    return args.eval_metric if validation is not None else "loss"


def finish(parts: Parts) -> None:
    """EMA, compilation, DDP and schedule: what comes after weights may have been resumed."""
    args, task = parts.args, parts.task
    if args.model_ema:
        task.setup_ema(
            decay=args.model_ema_decay,
            use_warmup=args.model_ema_warmup,
            device="cpu" if args.model_ema_force_cpu else None,
        )
    if args.torchcompile:  # a network with taps shares no graph with one without
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
    parts.eval_model = task.get_eval_model()
    if task.has_ema():
        parts.eval_model_ema = task.get_eval_model(ema=True)
    if args.distributed:
        ids = [parts.device] if parts.device.type != "cpu" else None
        own = {"broadcast_buffers": False} if args.no_ddp_bb else {}
        task.prepare_distributed(device_ids=ids, **own)
    parts.schedule, parts.epochs = create_scheduler_v2(
        parts.optimizer,
        **scheduler_kwargs(args, decreasing_metric=parts.decreasing),
        updates_per_epoch=parts.updates_per_epoch,
    )
