"""Several networks as one, beside the controls that say whether it was worth it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from vcr_zoo.data import load, load_test
from vcr_zoo.diagnostics.cka import pairwise
from vcr_zoo.features import Features, features

from .average import average
from .concat import concat, normalize
from .probe import probe


def several(
    models: Sequence[nn.Module],
    data: str,
    *,
    long: nn.Module | None = None,
    level: str = "fine",
    per: str = "network",
    save: str | Path | None = None,
    cache: str | Path | None = None,
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Probes of every network alone, of their averaged logits, and of all features as one.

    For equal pretraining cost, `models` are N short runs that differ in their seed (of weights and
    of data order), and `long` is one run of N times their length: without "one short run" beside
    them, a gain over the long run may be that of stopping early.

    Args:
        per: how `concat.normalize` brings the networks to one scale, on train pictures.
        save: a folder for the joined network, with the shift and scale of these pictures.

    Returns:
        Metrics of `probe` by arm: "one short run" (mean over the networks), "averaged logits",
        "side by side" and, if it was given, "one long run"; and debiased CKA of every pair of
        networks on validation pictures (N, N): near one, they are too alike to gain from.
    """
    joined = concat(models)
    parts = {name: load(data, name, level=level) for name in ("train", "validation")}
    frozen = {name: features(joined, images, cache=cache) for name, images in parts.items()}
    raw = {name: given.x for name, given in frozen.items()}
    likeness = pairwise(raw["validation"].split(joined.widths, dim=1))
    normalize(joined, raw["train"], per)
    shift, scale = joined.shift, joined.scale
    if save is not None:
        save_for_hf(joined, str(save), safe_serialization=True)
    kept = [features(long, images, cache=cache) for images in parts.values()] if long else []

    test = load_test(data, level=level)  # every choice below is made on validation alone
    splits = [
        Features((given.x - shift) / scale, given.y, given.classes) for given in frozen.values()
    ]
    splits.append(features(joined, test, cache=cache))
    each = list(zip(*(columns(split, joined.widths) for split in splits), strict=True))
    averaged, short = average(*zip(*each, strict=True))
    arms = {
        "one short run": {m: sum(s[m] for s in short) / len(short) for m in short[0]},
        "averaged logits": averaged,
        "side by side": probe(*splits),
    }
    if long:
        arms["one long run"] = probe(*kept, features(long, test, cache=cache))
    return arms, likeness


def columns(given: Features, widths: Sequence[int]) -> list[Features]:
    """Features of every network of a `Concat`, apart."""
    return [Features(x, given.y, given.classes) for x in given.x.split(list(widths), dim=1)]


def report(arms: dict[str, dict[str, float]], likeness: Tensor) -> str:
    """Arms and likeness as text, accuracies in percent."""
    lines = [f"{'':16}  {'top1':>6}  {'per class':>9}  {'log loss':>8}"]
    for name, m in arms.items():
        lines.append(
            f"{name:16}  {100 * m['top1']:6.2f}  {100 * m['per_class']:9.2f}  {m['log_loss']:8.4f}"
        )
    lines += ["", "CKA between the networks (debiased, on validation pictures):"]
    lines += ["  ".join(f"{value:6.3f}" for value in row) for row in likeness.tolist()]
    off = likeness[~torch.eye(len(likeness), dtype=torch.bool)].mean().item()
    verdict = "alike: expect little from joining them" if off > 0.95 else "different"
    return "\n".join([*lines, f"mean of the pairs {off:.3f}: the networks are {verdict}"])
