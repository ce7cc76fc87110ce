"""What a protocol may assume of its features, asked before any number is computed."""

import torch

from vcr_zoo.features import Features


def check(**parts: Features) -> None:
    """Refuse, in words, what would give a meaningless number. Parts by name: train=, test=, ...

    Raises:
        ValueError: for an empty part, features that are not finite, parts of different classes or
            widths, features that are all constant, classes missing from train, or fewer pictures
            to learn from than classes.
    """
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if len(part) == 0:
            raise ValueError(f"the {name} split is empty: choose another split or data set")
        if not part.x.isfinite().all():
            bad = int((~part.x.isfinite()).any(dim=1).sum())
            raise ValueError(
                f"{bad} of {len(part)} pictures of the {name} split have features that are not "
                "finite: look at the weights and at how pictures are normalized"
            )
        if part.classes != first.classes or part.x.shape[1] != first.x.shape[1]:
            raise ValueError(
                f"the {name} split has {len(part.classes)} classes and {part.x.shape[1]} features, "
                f"train {len(first.classes)} and {first.x.shape[1]}: they are not of one data set "
                "and one network"
            )
    if "train" in parts:
        learnable(parts["train"])


def learnable(train: Features) -> None:
    """Refuse a train split that cannot teach its classes."""
    classes = len(train.classes)
    if classes < 2:
        raise ValueError(f"there is only one class, {train.classes[0]!r}: nothing to tell apart")
    if len(train) < classes:
        raise ValueError(f"{len(train)} pictures cannot teach {classes} classes: add pictures")
    counts = torch.bincount(train.y, minlength=classes)
    if missing := [train.classes[i] for i in (counts == 0).nonzero().flatten()]:
        raise ValueError(
            f"no picture of {', '.join(map(repr, missing[:5]))}"
            f"{f' and {len(missing) - 5} more classes' if missing[5:] else ''} in the train split: "
            "drop those classes or split again"
        )
    if (train.x == train.x[0]).all():
        raise ValueError("all pictures have the same features: the network has collapsed")
