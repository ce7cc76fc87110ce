"""Several networks as one, beside the controls that say whether it was worth it."""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vcr_zoo.data import Images, load, load_test
from vcr_zoo.diagnostics.cka import pairwise
from vcr_zoo.features import Features, features, load_model, weights_sha256
from vcr_zoo.results import Result, append, paired, versions
from vcr_zoo.training.checkpoint import save_network

from .average import logits_of_each
from .compare import bootstrap
from .concat import concat, normalize, scaling
from .matrix import fingerprint, group_numbers
from .scores import scores, softmax

JOINED, LONG, SHORT = "side by side", "one long run", "one short run"
SHOWN = {"top1": 100, "per_class": 100, "log_loss": 1}  # metric: factor


class Arm(NamedTuple):
    """One way to use networks, once for each seed."""

    metrics: list[dict[str, float]]  # `scores`; of "one short run", their mean over the networks
    right: list[Tensor]  # share of the arm's networks that are right on each test picture: (n,)
    groups: Tensor | None = None  # of the test pictures, for `bootstrap`: (n,)


def several(
    models: Sequence[nn.Module],
    data: str,
    *,
    long: nn.Module | None = None,
    level: str = "fine",
    per: str = "network",
    save: str | Path | None = None,
    cache: str | Path | None = None,
) -> tuple[dict[str, Arm], Tensor]:
    """Probes of every network alone, of their averaged logits, and of all features as one.

    For equal pretraining cost, `models` are N short runs that differ in their seed (of weights and
    of data order), and `long` is one run of N times their length: without "one short run" beside
    them, a gain over the long run may be that of stopping early. Every arm's features are brought
    to one scale in the same way.

    Args:
        per: how `concat.normalize` brings the networks to one scale, on train pictures.
        save: a folder for the joined network, with the shift and scale of these pictures.

    Returns:
        By name "one short run" (mean over the networks), "averaged logits", JOINED and, if it was
        given, "one long run"; and debiased CKA of every pair of networks on validation pictures
        (N, N): near one, they are too alike to gain from.
    """
    joined = concat(models)
    parts = [load(data, name, level=level) for name in ("train", "validation")]
    frozen = [features(joined, images, cache=cache) for images in parts]
    likeness = pairwise(frozen[1].x.split(joined.widths, dim=1))
    raw = [features(long, images, cache=cache) for images in parts] if long else []

    test = load_test(data, level=level)  # every choice below is made on validation alone
    splits = scaled([*frozen, features(joined, test, cache=cache)], joined.widths, per)
    normalize(joined, frozen[0].x, per)
    if save is not None:
        save_network(joined, Path(save))
    each = zip(*(columns(split, joined.widths) for split in splits), strict=True)
    alone = logits_of_each(*zip(*each, strict=True))  # (N, n, k)
    y = splits[-1].y
    arms = {
        SHORT: arm(alone, y, test),
        "averaged logits": arm(alone.mean(dim=0, keepdim=True), y, test),
        JOINED: arm(logits_of_each(*([split] for split in splits)), y, test),
    }
    if long:
        one = scaled([*raw, features(long, test, cache=cache)], [raw[0].x.shape[1]], per)
        arms[LONG] = arm(logits_of_each(*([split] for split in one)), y, test)
    return arms, likeness


def scaled(splits: Sequence[Features], widths: Sequence[int], per: str) -> list[Features]:
    """Features on one scale, that of the first of the splits."""
    mean, std = scaling(splits[0].x, widths, per)
    return [Features(((s.x.double() - mean) / std).float(), s.y, s.classes) for s in splits]


def columns(given: Features, widths: Sequence[int]) -> list[Features]:
    """Features of every network of a `Concat`, apart."""
    return [Features(x, given.y, given.classes) for x in given.x.split(list(widths), dim=1)]


def arm(logits: Tensor, y: Tensor, test: Images) -> Arm:
    """Means over networks: (N, n, k), (n,)."""
    each = [scores(softmax(z), y) for z in logits]
    mean = {name: fmean(one[name] for one in each) for name in each[0]}
    right = (logits.argmax(dim=-1) == y).double().mean(dim=0)
    return Arm([mean], [right], group_numbers(test))


def over_seeds(found: Sequence[tuple[dict[str, Arm], Tensor]]) -> tuple[dict[str, Arm], Tensor]:
    """What `several` gave for every seed as one: arms seed by seed, likeness on average."""
    first, _ = found[0]
    arms = {
        name: Arm(
            [m for arms, _ in found for m in arms[name].metrics],
            [r for arms, _ in found for r in arms[name].right],
            first[name].groups,
        )
        for name in first
    }
    return arms, torch.stack([likeness for _, likeness in found]).mean(dim=0)


def report(arms: dict[str, Arm], likeness: Tensor) -> str:
    """Arms and likeness as text, accuracies in percent, with what joining gains over each."""
    head = f"{'':16}  {'top1':>6}  {'per class':>9}  {'log loss':>8}"
    gains = [f"{JOINED} gains in top1 over test pictures [95 %]", "over seeds [95 %]"]
    seeds = len(arms[JOINED].metrics)
    lines = ["  ".join([head, *gains[: 1 + (seeds > 1)]])]
    for name, one in arms.items():
        means = [f * fmean(m[metric] for m in one.metrics) for metric, f in SHOWN.items()]
        shown = name if LONG in arms or name != SHORT else "one network"
        line = f"{shown:16}  {means[0]:6.2f}  {means[1]:9.2f}  {means[2]:8.4f}"
        if name != JOINED:
            pairs = zip(arms[JOINED].right, one.right, strict=True)
            won = torch.stack([a - b for a, b in pairs]).mean(dim=0)
            pictures = bootstrap(won, one.groups)
            line += f"  {pictures.scaled(100)!s:{len(gains[0])}}"
            line += f"  {gain(arms[JOINED], one)}" if seeds > 1 else ""
        lines.append(line.rstrip())
    lines += ["", "CKA between the networks (debiased, on validation pictures):"]
    lines += ["  ".join(f"{value:6.3f}" for value in row) for row in likeness.tolist()]
    off = likeness[~torch.eye(len(likeness), dtype=torch.bool)].mean().item()
    verdict = "alike: expect little from joining them" if off > 0.95 else "different"
    return "\n".join([*lines, f"mean of the pairs {off:.3f}: the networks are {verdict}"])


def gain(one: Arm, other: Arm) -> str:
    """Paired difference of top-1 over seeds, in points."""
    pairs = zip(one.metrics, other.metrics, strict=True)
    return str(paired(a["top1"] - b["top1"] for a, b in pairs).scaled(100))


def run(
    names: Sequence[str],
    data: str,
    *,
    long: str | None = None,
    seeds: Sequence[int] = (0,),
    out: str | Path,
    save: str | None = None,
    cache: str | Path | None = None,
    **settings,
) -> list[tuple[dict[str, Arm], Tensor]]:
    """`several` for every seed, "{seed}" in names and folders standing for it; each number is
    appended to the jsonl file `out`.

    Args:
        settings: `level` and `per` of `several`.

    Raises:
        ValueError: for several seeds that would be the same networks, or saved in one folder.
        FileExistsError: for a folder that holds a network.
    """
    given = {"a network": names, "--long": [long] if long else [], "--output": [save or "{seed}"]}
    for what, texts in given.items():
        if len(seeds) > 1 and any("{seed}" not in text for text in texts):
            raise ValueError(f"several seeds, but {what} is the same for all: put {{seed}} in it")
    for folder in [save.replace("{seed}", str(seed)) for seed in seeds] if save else []:
        if any((Path(folder) / name).exists() for name in ("config.json", "model.safetensors")):
            raise FileExistsError(f"{folder} holds a network already: choose another --output")
    found = []
    for seed in dict.fromkeys(seeds):
        *own, one, folder = (
            text and text.replace("{seed}", str(seed)) for text in (*names, long, save)
        )
        models = [load_model(name) for name in own]
        pair = (one, load_model(one)) if one else None
        kept = {"save": folder, "cache": cache, **settings}
        arms, likeness = several(models, data, long=pair and pair[1], **kept)
        how = {"seed": seed, "command": line(own, data, one, seed, settings)}
        which = {"networks": [*names], **({"long": long} if long else {})}
        for result in records(arms, own, models, data, settings | which, long=pair, **how):
            append(out, result)
        found.append((arms, likeness))
    return found


def line(names: Sequence[str], data: str, long: str | None, seed: int, settings: dict) -> str:
    """The command that measures this again."""
    words = ["vcr-zoo", "concat", *names, "--data", data, "--seeds", str(seed)]
    words += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return shlex.join([*words, *(["--long", long] if long else [])])


def records(
    arms: dict[str, Arm],
    names: Sequence[str],
    models: Sequence[nn.Module],
    data: str,
    settings: dict,
    *,
    long: tuple[str, nn.Module] | None = None,
    seed: int = 0,
    command: str = "",
) -> list[Result]:
    """Every number of what `several` gave for one seed, with how to get it again.

    The weights are the sha256 of all networks' sums, in order; of a single one, its own.
    """
    parts = [load(data, name, level=settings["level"]) for name in ("train", "validation")]
    parts.append(load_test(data, level=settings["level"]))
    whole = hashlib.sha256(" ".join(map(weights_sha256, models)).encode()).hexdigest()
    alone = (long[0], weights_sha256(long[1])) if long else None
    found = []
    for name, one in arms.items():
        model, weights = alone if name == LONG else (" + ".join(names), whole)
        for metric, value in one.metrics[0].items():
            result = Result(
                model=model,
                data=data,
                protocol="concat",
                metric=metric,
                value=value,
                seed=seed,
                settings={"arm": name, **settings},
                weights=weights,
                fingerprint=fingerprint(*parts),
                versions=versions(),
                command=command,
            )
            found.append(result)
    return found
