"""What is measured of every network of the zoo: a pair's runs, and weights that are published."""

import contextlib
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vcr_zoo.data import load, load_test
from vcr_zoo.data.registry import DATASETS
from vcr_zoo.diagnostics.cdnv import cdnv
from vcr_zoo.diagnostics.collapse import nearest_class_correct
from vcr_zoo.diagnostics.corruptions import LEVELS, corrupted
from vcr_zoo.diagnostics.information import information
from vcr_zoo.diagnostics.moments import Moments
from vcr_zoo.diagnostics.spectrum import correlation, effective_rank, spectrum
from vcr_zoo.features import batches, features, load_model, network_sha256, weights_sha256
from vcr_zoo.results import Result, versions
from vcr_zoo.training.evaluate import evaluate, open_pictures
from vcr_zoo.training.options import SELF_SUPERVISED
from vcr_zoo.transfer import matrix

TARGETS = {  # source: data sets that features learned on it are tried on
    "fmnist": ("mnist", "silhouettes", "glyphs", "digits8"),
    "openart": ("stamps", "furniture", "textures", "fluent"),
    "cifar100": ("cifar10", "svhn", "eurosat", "stl10"),
    "folder/imagenet@256": ("food101", "cars", "aircraft", "flowers102", "dtd", "pets"),
}
SHARE = "share_"  # metric of protocol "spectrum": share_8 is the 8th direction's part of variance
DIRECTIONS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512)  # √2 apart
NOISE = "Gaussian noise"  # of `diagnostics.corruptions`
NOISY = 2_000  # test pictures that noise is added to, at every level
LARGE, MANY = 20_000, 600_000  # training pictures, and times classes: probes of more take minutes


class Job(NamedTuple):
    """One evaluation: a protocol on a data set."""

    protocol: str
    data: str
    level: str = "fine"


def suite(recipe: Namespace) -> list[Job]:
    """What is measured of a network trained by a recipe, the quick ones first."""
    source = recipe.dataset
    labelled = recipe.task not in SELF_SUPERVISED
    level = recipe.label_level
    own = [Job("eval", source, level), Job("noise", source, level)] if labelled else []
    own += [Job("spectrum", source), Job("collapse", source, level), Job("information", source)]
    shots = [Job("fewshot", name) for name in (source, *targets(source))]
    return [*own, *shots, *(Job("probe", name) for name in (*targets(source), source))]


def slow(job: Job) -> bool:
    """Whether --quick leaves an evaluation out: it fits on many pictures, or many classes."""
    if job.protocol not in ("knn", "probe"):
        return False
    try:
        train = load(job.data, "train")
        return len(train) > LARGE or len(train) * len(train.classes) > MANY
    except (OSError, LookupError):  # told when it is measured
        return False


def targets(source: str) -> tuple[str, ...]:
    """Data sets that a source is not one of; a thinned source has those of the whole."""
    whole = DATASETS[source].base or source if source in DATASETS else source
    return TARGETS.get(whole, ("silhouettes",))


def measured(
    job: Job, model: str, *, seed: int = 0, cells: Path | None = None, cache: Path | None = None
) -> list[Result]:
    """The results of one evaluation, of a model as `load_model` takes it.

    Args:
        seed: of what is drawn, as few shots are.
        cells: file of `matrix.measure`, whose cells are not measured again.
        cache: folder of features.

    Raises:
        OSError: if the data cannot be had.
    """
    if job.protocol in matrix.PROTOCOLS:
        with tempfile.TemporaryDirectory() as folder:
            cell = matrix.Cell(model, job.data, job.protocol, seed, job.level)
            found = matrix.measure(cell, cells or Path(folder) / "cells.jsonl", cache=cache)
        main = next(iter(found))
        wanted = {main: None, "5-shot": None} if job.protocol == "fewshot" else {main: None}
        return [found[metric] for metric in wanted if metric in found]
    loaded = load_model(model)
    values, settings, fingerprint = OURS[job.protocol](loaded, job, cache)
    blank = Result(model, job.data, job.protocol, "", 0.0, seed, settings)
    known = {"weights": weights_sha256(loaded), "network": network_sha256(loaded)}
    blank = replace(blank, **known, fingerprint=fingerprint, versions=versions())
    return [replace(blank, metric=metric, value=value) for metric, value in values.items()]


Outcome = tuple[dict[str, float], dict, str]  # values by metric, settings, fingerprint of the data


def by_eval(model: nn.Module, job: Job, cache: Path | None) -> Outcome:
    """Accuracy of the network's own classifier on the test pictures."""
    images = open_pictures(job.data, "test", job.level, model.pretrained_cfg["input_size"][0])
    return {"top1": evaluate(model, images).top1}, {"level": job.level}, images.fingerprint


@torch.inference_mode()
def by_noise(model: nn.Module, job: Job, cache: Path | None) -> Outcome:
    """What Gaussian noise in test pictures, mean over its five levels, leaves of the accuracy of
    the network's own classifier, and what it takes."""
    images = load_test(job.data, level=job.level)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = images.subset(order[:NOISY])
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(-1, 1, 1) for k in ("mean", "std"))
    clean = right = 0
    for number, (x, y) in enumerate(batches(model, images, 250, torch.device("cpu"))):
        clean += (model.eval()(x).argmax(dim=1) == y).sum().item()
        for level in LEVELS:
            worse = (corrupted(x * std + mean, NOISE, level, number) - mean) / std
            right += (model.eval()(worse).argmax(dim=1) == y).sum().item()
    left = right / (len(images) * len(LEVELS))
    settings = {"level": job.level, "noise": NOISE, "levels": list(LEVELS), "pictures": len(images)}
    return {"top1": left, "lost": clean / len(images) - left}, settings, images.fingerprint


def by_information(model: nn.Module, job: Job, cache: Path | None) -> Outcome:
    """What features of the test pictures tell of their labels, a lower bound in nats."""
    images = load_test(job.data, level=job.level)
    known = features(model, images, cache=cache)
    told = information(known.x, known.y).mean().item()
    return {"nats": told}, {"level": job.level}, images.fingerprint


def by_spectrum(model: nn.Module, job: Job, cache: Path | None) -> Outcome:
    """Effective rank, mean correlation, mean deviation and shares of variance of the features of
    the test pictures."""
    images = load_test(job.data)
    x = features(model, images, cache=cache).x
    eigenvalues = spectrum(x)
    shares = (eigenvalues / eigenvalues.sum()).tolist()
    values = {
        "effective_rank": effective_rank(eigenvalues),
        "correlation": correlation(x),
        "deviation": x.std(dim=0).mean().item(),
    }
    values |= {f"{SHARE}{k}": shares[k - 1] for k in DIRECTIONS if k <= len(shares)}
    return values, {}, images.fingerprint


def by_collapse(model: nn.Module, job: Job, cache: Path | None) -> Outcome:
    """Class-distance normalized variance, and the share of test pictures that are nearest to the
    mean of their own class, each left out of it."""
    images = load_test(job.data, level=job.level)
    known = features(model, images, cache=cache)
    moments = Moments.empty(known.x.double().mean(dim=0), len(known.classes))
    moments.add(known.x, known.y)
    right = nearest_class_correct(known.x, known.y, moments)
    values = {"ncc": right.mean().item()}
    with contextlib.suppress(ValueError):  # undefined where classes differ by chance alone
        values["cdnv"] = cdnv(moments)
    return values, {"level": job.level}, images.fingerprint


OURS: dict[str, Callable[[nn.Module, Job, Path | None], Outcome]] = {
    "eval": by_eval,
    "noise": by_noise,
    "information": by_information,
    "spectrum": by_spectrum,
    "collapse": by_collapse,
}
