"""Batches for the network, from any step of any epoch: four kinds of loader, one interface.

`len(loader)` is the steps of an epoch on this rank; `loader.epoch(epoch, start)` gives (x, y) on
the device, augmented and mixed. What a batch holds depends on (seed, epoch, step) alone.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import torch
from timm.data import (
    AugMixDataset,
    FastCollateMixup,
    Mixup,
    NaFlexMapDatasetWrapper,
    NaFlexMixup,
    ScheduledBatchSampler,
    create_loader,
    create_naflex_loader,
)
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from vcr_zoo.data import Batches, Images

from . import randomness, workers
from .options import SELF_SUPERVISED
from .randomness import KeyedBatches, Order, Seeded, SeededErasing
from .sources import Readable


class Loader:
    """Batches from a source that subclasses know how to wind to a step of an epoch."""

    def __init__(self, args, source, *, device, dtype=None, mixup=None, erasing=None, limit=None):
        self.args, self.source, self.device, self.dtype = args, source, device, dtype
        inner = getattr(source, "loader", source)
        if isinstance(inner, DataLoader):
            workers.tend(inner)
        self.mixup, self.erasing = mixup, erasing
        self.limit = limit  # pictures of this rank that are no padding; None: all
        self.average_batch = float(args.batch_size)
        self.pictures = 0  # in the whole data set, where batches may be of different size

    def __len__(self) -> int:
        if not self.pictures:
            return len(self.source)
        least = self.pictures // self.args.world_size  # of any rank; one picture is no batch
        return least // self.args.batch_size + (least % self.args.batch_size > 1)

    def sizes(self, step: int) -> list[int] | None:
        """Pictures of each rank in a step; None where all batches are full."""
        if not self.pictures:
            return None
        ranks, size = self.args.world_size, self.args.batch_size
        counts = [-(-(self.pictures - rank) // ranks) for rank in range(ranks)]
        return [min(size, count - step * size) for count in counts]

    def wind(self, epoch: int, start: int) -> None:
        raise NotImplementedError

    def stop_mixing(self) -> None:
        if self.mixup is not None:
            self.mixup.mixup_enabled = False

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch from number `start` on."""
        if self.args.mixup_off_epoch and epoch >= self.args.mixup_off_epoch:
            self.stop_mixing()
        self.wind(epoch, start)
        rest = len(self) - start if self.pictures else None
        for step, (x, y) in enumerate(islice(self.source, rest), start):
            if sizes := self.sizes(step):  # without what a loader padded with
                x, y = x[: sizes[self.args.rank]], y[: sizes[self.args.rank]]
            yield self._finished(x, y, epoch, step)

    def _finished(self, x, y: Tensor, epoch: int, step: int):
        if isinstance(x, list):  # two views, without the prefetcher
            x = torch.cat(x)
        if isinstance(x, dict):  # NaFlex: patches and where they are
            moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in x.items()}
            return moved, y.to(self.device)
        x, y = x.to(self.device, self.dtype), y.to(self.device)
        if self.erasing is not None:
            self.erasing.at(epoch, step)
            x = self.erasing(x)
        if self.mixup is not None:
            randomness.seed_everything(self.args.seed, epoch, randomness.MIX, step, self.args.rank)
            x, y = self.mixup(x, y)
        if self.args.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, y


class TensorLoader(Loader):
    """Small pictures held as one array: no workers, no per-picture Python."""

    def wind(self, epoch: int, start: int) -> None:
        self.source.set_epoch(epoch)
        self.source.start = start


class PictureLoader(Loader):
    """timm's loader over a data set with numbered pictures, each augmented from its own seed."""

    def __init__(self, args, source, keyed: KeyedBatches | None = None, **kwargs):
        super().__init__(args, source, **kwargs)
        self.keyed = keyed

    def wind(self, epoch: int, start: int) -> None:
        if self.keyed is not None:
            self.keyed.epoch, self.keyed.start = epoch, start
        wind_erasing(self.source, epoch, start)

    def stop_mixing(self) -> None:
        super().stop_mixing()
        if hasattr(self.source, "mixup_enabled"):
            self.source.mixup_enabled = False


def seed_erasing(args, source) -> None:
    """Have the prefetcher's random erasing, if there is one, draw from its place in training."""
    if getattr(source, "random_erasing", None) is not None:
        source.random_erasing = SeededErasing(source.random_erasing, args.seed, args.rank)


def wind_erasing(source, epoch: int, step: int) -> None:
    """Have the prefetcher's random erasing, if there is one, draw as it does at a step."""
    erasing = getattr(source, "random_erasing", None)
    if isinstance(erasing, SeededErasing):
        erasing.at(epoch, step)


class StreamLoader(Loader):
    """timm's loader over a stream, wound by reading and dropping what was already seen."""

    def wind(self, epoch: int, start: int) -> None:
        place = self.args.seed, epoch, randomness.SAMPLE, self.args.rank
        self.source.dataset.set_epoch(epoch)
        reader = getattr(self.source.dataset, "reader", None)
        if hasattr(reader, "worker_seed"):  # webdataset's shuffle would go on from its own history
            reader.ds, reader.worker_seed = None, randomness.mixed(*place)
        wind_erasing(self.source, epoch, 0)  # what was seen is read again
        randomness.seed_everything(*place)  # from which workers, new each epoch, are seeded

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch from number `start` on, never more than its length says."""
        return islice(super().epoch(epoch), start, len(self))


class NaFlexLoader(Loader):
    """timm's loader of pictures at their own aspect, cut into patches: batches of varied shape."""

    def wind(self, epoch: int, start: int) -> None:
        dataset = self.source.dataset
        if isinstance(dataset, FromStep):
            dataset.base_dataset.epoch, dataset.start = epoch, start
            dataset.set_epoch(epoch)
        wind_erasing(self.source, epoch, start)


class FromStep(NaFlexMapDatasetWrapper):
    """timm's schedule of batches of varied shape, from step `start` on."""

    start = 0

    def _prepare_epoch_batches(self, epoch: int) -> list:
        return super()._prepare_epoch_batches(epoch)[self.start :]


class TwoViews:
    """A picture transformed twice, which timm's loader makes all first and all second views."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, picture) -> tuple:
        return self.transform(picture), self.transform(picture)


class SeededByNumber(Dataset):
    """Pictures that set the generators before they are augmented by whoever asked for them."""

    def __init__(self, images: Dataset, seed: int):
        self.images, self.seed, self.epoch = images, seed, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        randomness.seed_everything(self.seed, self.epoch, randomness.SAMPLE, index, devices=False)
        return self.images[index]


def tensor_obstacle(args, images: Dataset, data_config: dict, training: bool = True) -> str:
    """The first thing asked for that the tensor path would not do; empty if there is none.

    For validation the options of training do not count, so that it is the same in every run.
    """
    wanted = {
        "pictures that are not a named data set": not isinstance(images, Images),
        "--crop-pct below 1": data_config["crop_pct"] != 1.0,
        "an --interpolation other than bilinear": data_config["interpolation"] != "bilinear",
        "--naflex-loader": args.naflex_loader,
    }
    if training:
        wanted |= {
            "--train-img-sizes": args.train_img_sizes,
            "--train-batches-per-epoch": args.train_batches_per_epoch,
            "--aug-repeats": args.aug_repeats,
            "--aug-splits": args.aug_splits,
        }
    if training and not args.no_aug:
        wanted |= {
            "a --train-interpolation other than bilinear": args.train_interpolation != "bilinear",
            "--gaussian-blur-prob": args.gaussian_blur_prob,
            "--aa": args.aa,
            "--train-crop-mode": args.train_crop_mode,
        }
    return next((what for what, asked in wanted.items() if asked), "")


def uses_tensors(args, images: Dataset, data_config: dict, training: bool = True) -> bool:
    """Whether the fast path of small pictures serves this run.

    Raises:
        ValueError: if --loader tensor asks for it and something else stands against it.
    """
    obstacle = tensor_obstacle(args, images, data_config, training)
    if args.loader == "tensor" and obstacle:
        raise ValueError(f"--loader tensor cannot do {obstacle}; use --loader timm")
    return args.loader != "timm" and not obstacle


def training_loader(args, images: Dataset, data_config: dict, device, dtype, patch_size) -> Loader:
    """Loader of the training split.

    Raises:
        ValueError: if an epoch would have no batch, or options exclude each other.
    """
    if uses_tensors(args, images, data_config):
        loader = _tensor_training(args, images, data_config, device, dtype)
    elif args.naflex_loader:
        loader = _naflex_training(args, images, data_config, device, dtype, patch_size)
    else:
        loader = _timm_training(args, images, data_config, device, dtype)
    if args.keep_last and isinstance(loader, StreamLoader | NaFlexLoader):
        raise ValueError("--keep-last goes with numbered pictures in batches of one size")
    if args.keep_last:
        loader.pictures = len(images)
    if len(loader) == 0:
        raise ValueError(
            f"{len(images)} pictures do not fill one batch of {args.batch_size} on each of "
            f"{args.world_size} processes: lower --batch-size"
            f"{'' if args.task in SELF_SUPERVISED else ', or pass --keep-last'}"
        )
    return loader


def evaluation_loader(args, images: Dataset, data_config: dict, device, dtype, patch_size=None):
    """Loader of the validation split: every picture once, without augmentation."""
    size = args.validation_batch_size or args.batch_size
    if uses_tensors(args, images, data_config, training=False):
        share = images.subset(range(args.rank, len(images), args.world_size))
        batches = Batches(share, size, device=device, **_normalized(data_config))
        return TensorLoader(args, batches, device=device, dtype=dtype)
    kind = create_loader
    own = {"input_size": data_config["input_size"], "crop_pct": data_config["crop_pct"]}
    if args.naflex_loader:
        kind = create_naflex_loader
        own = {
            "patch_size": patch_size,
            "max_seq_len": args.naflex_max_seq_len,
            "patchify_channels_last": not args.naflex_patchify_channels_first,
            "crop_pct": data_config["crop_pct"],
        }
    few = args.world_size > 1 and isinstance(images, IterableDataset)  # less padding, as in timm
    source = kind(
        _named_errors(args, images),
        batch_size=size,
        is_training=False,
        interpolation=data_config["interpolation"],
        num_workers=min(2, args.workers) if few else args.workers,
        **own,
        **_common(args, data_config, device, dtype),
    )
    limit = getattr(source.sampler, "num_valid_samples", None)
    loader = NaFlexLoader if args.naflex_loader else PictureLoader
    return loader(args, source, device=device, dtype=dtype, limit=limit)


def _tensor_training(args, images, data_config, device, dtype) -> Loader:
    batches = Batches(
        images,
        args.batch_size,
        is_training=True,
        device=device,
        scale=tuple(args.scale),
        ratio=tuple(args.ratio),
        hflip=args.hflip,
        vflip=args.vflip,
        color_jitter=args.color_jitter or 0.0,
        color_jitter_prob=1.0 if args.color_jitter_prob is None else args.color_jitter_prob,
        grayscale_prob=args.grayscale_prob or 0.0,
        views=2 if args.task in SELF_SUPERVISED else 1,
        no_aug=args.no_aug,
        seed=args.seed,
        rank=args.rank,
        world_size=args.world_size,
        drop_last=not args.keep_last,
        **_normalized(data_config),
    )
    mixup = Mixup(**mixup_settings(args)) if mixes(args) else None
    erasing = None
    if args.reprob > 0 and not args.no_aug:
        erasing = RandomErasing(
            args.reprob,
            mode=args.remode,
            max_count=args.recount,
            num_splits=2 if args.resplit else 0,
            device=device,
        )
        erasing = SeededErasing(erasing, args.seed, args.rank)
    return TensorLoader(args, batches, device=device, dtype=dtype, mixup=mixup, erasing=erasing)


def _timm_training(args, images, data_config, device, dtype) -> Loader:
    stream = isinstance(images, IterableDataset)
    if not stream:
        images = _named_errors(args, images)
    if args.aug_splits:
        images = AugMixDataset(images, num_splits=args.aug_splits)
    collate = mixup = None
    if mixes(args) and args.no_prefetcher:
        mixup = Mixup(**mixup_settings(args))
    elif mixes(args):
        if args.aug_splits:
            raise ValueError("--aug-splits and mixup do not go together with the prefetcher")
        collate = FastCollateMixup(**mixup_settings(args))
    source = create_loader(
        images,
        input_size=data_config["input_size"],
        collate_fn=collate,
        num_aug_splits=args.aug_splits,
        num_aug_repeats=args.aug_repeats,
        persistent_workers=not (args.mixup_off_epoch or stream),  # they would go on as they were
        **_sizes(args, data_config),
        **_augmentation(args, data_config),
        **_common(args, data_config, device, dtype),
    )
    seed_erasing(args, source)
    if args.task in SELF_SUPERVISED:
        images.transform = TwoViews(images.transform)
    if stream:
        return StreamLoader(args, source, device=device, dtype=dtype, mixup=mixup)
    source, keyed = _seeded(args, source)
    loader = PictureLoader(args, source, keyed, device=device, dtype=dtype, mixup=mixup)
    if isinstance(keyed.batches, ScheduledBatchSampler):
        loader.average_batch = keyed.batches.average_batch_size
    return loader


def _seeded(args, source) -> tuple:
    """timm's loader, drawing keyed batches instead of shuffled ones."""
    inner = getattr(source, "loader", source)
    order = inner.sampler if args.aug_repeats else None
    if order is None:
        count = len(inner.dataset)
        order = Order(count, args.seed, args.rank, args.world_size, pad=not args.keep_last)
    if isinstance(inner.batch_sampler, ScheduledBatchSampler):
        batches = inner.batch_sampler
        batches.sampler = order
    else:
        batches = BatchSampler(order, args.batch_size, drop_last=not args.keep_last)
    again = bool(args.aug_repeats or args.train_batches_per_epoch)
    keyed = KeyedBatches(batches, args.seed, args.rank, by_step=again)
    rebuilt = DataLoader(
        Seeded(inner.dataset),
        batch_sampler=keyed,
        num_workers=inner.num_workers,
        collate_fn=inner.collate_fn,
        pin_memory=inner.pin_memory,
        worker_init_fn=inner.worker_init_fn,
        persistent_workers=inner.persistent_workers,
    )
    if inner is source:
        return rebuilt, keyed
    source.loader = rebuilt
    return source, keyed


def _naflex_training(args, images, data_config, device, dtype, patch_size) -> Loader:
    if args.aug_splits or args.aug_repeats or args.use_multi_epochs_loader or args.train_img_sizes:
        raise ValueError(
            "--naflex-loader excludes --aug-splits, --aug-repeats, --train-img-sizes and "
            "--use-multi-epochs-loader"
        )
    patches = {"patch_size": patch_size}
    if args.naflex_patch_sizes:
        patches = {
            "patch_size_choices": args.naflex_patch_sizes,
            "patch_size_choice_probs": args.naflex_patch_size_probs,
        }
    mixup = None
    if mixes(args):
        settings = mixup_settings(args)
        if settings.pop("cutmix_minmax") or settings.pop("mode") != "batch":
            raise ValueError("--naflex-loader mixes whole batches, without --cutmix-minmax")
        mixup = NaFlexMixup(**settings, mixup_off_epoch=args.mixup_off_epoch)
    source = create_naflex_loader(
        SeededByNumber(_named_errors(args, images), args.seed),
        train_seq_lens=tuple(args.naflex_train_seq_lens),
        mixup_fn=mixup,
        rank=args.rank,
        world_size=args.world_size,
        seed=args.seed,
        persistent_workers=False,
        batch_size=args.batch_size,
        patchify_channels_last=not args.naflex_patchify_channels_first,
        **patches,
        **_augmentation(args, data_config),
        **_common(args, data_config, device, dtype),
    )
    source.dataset.__class__ = FromStep
    seed_erasing(args, source)
    return NaFlexLoader(args, source, device=device, dtype=dtype)


def mixes(args: argparse.Namespace) -> bool:
    """Whether pictures and their labels are mixed."""
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def mixup_settings(args: argparse.Namespace) -> dict:
    return {
        "mixup_alpha": args.mixup,
        "cutmix_alpha": args.cutmix,
        "cutmix_minmax": args.cutmix_minmax,
        "prob": args.mixup_prob,
        "switch_prob": args.mixup_switch_prob,
        "mode": args.mixup_mode,
        "label_smoothing": args.smoothing,
        "num_classes": args.num_classes,
        "multi_label": args.task == "multilabel",
    }


def _named_errors(args, images: Dataset) -> Dataset:
    strict = args.on_bad_image == "error" and hasattr(images, "_max_retries")
    return Readable(images) if strict else images


def _normalized(data_config: dict) -> dict:
    return {name: data_config[name] for name in ("input_size", "mean", "std")}


def _common(args, data_config: dict, device, dtype) -> dict:
    return {
        "mean": data_config["mean"],
        "std": data_config["std"],
        "pin_memory": args.pin_mem and device.type != "cpu",  # there is nothing to pin for
        "img_dtype": dtype or torch.float32,
        "device": device,
        "distributed": args.distributed,
        "use_prefetcher": not args.no_prefetcher,
    }


def _augmentation(args, data_config: dict) -> dict:
    plain = args.no_aug or not args.train_interpolation
    names = (
        "no_aug train_crop_mode scale ratio hflip vflip color_jitter color_jitter_prob"
        " grayscale_prob gaussian_blur_prob worker_seeding"
    )
    return {name: getattr(args, name) for name in names.split()} | {
        "is_training": True,
        "re_prob": args.reprob,
        "re_mode": args.remode,
        "re_count": args.recount,
        "re_split": args.resplit,
        "auto_augment": args.aa,
        "interpolation": data_config["interpolation"] if plain else args.train_interpolation,
        "num_workers": args.workers,
    }


def _sizes(args, data_config: dict) -> dict:
    """Picture and batch sizes: fixed, or scheduled where several were asked for."""
    sizes = args.train_img_sizes
    if args.train_batches_per_epoch and not sizes:
        sizes = [data_config["input_size"][1:]]  # one size: the schedule only counts batches
    if not sizes:
        return {"batch_size": args.batch_size}
    progressive = args.train_size_schedule == "progressive"
    return {
        "batch_size": args.batch_size,
        "input_size_choices": sizes,
        "batch_size_choices": args.train_batch_sizes,
        "batch_choice_weights": args.train_size_probs,
        "batch_choice_seed": args.seed,
        "batch_choice_schedule": args.train_size_schedule,
        "batch_schedule_epochs": args.epochs if progressive else None,
        "batch_schedule_spread": args.train_size_schedule_spread,
        "batch_schedule_random_mix": args.train_size_random_mix,
        "num_batches": args.train_batches_per_epoch,
    }
