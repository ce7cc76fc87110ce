"""Averaged logits: what several networks give without being joined, at the same cost."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vcr_zoo.features import Features

from .check import check
from .probe import choose
from .scores import scores, softmax


def average(
    trains: Sequence[Features],
    validations: Sequence[Features],
    tests: Sequence[Features],
    **settings,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """A linear probe on every network by itself, their logits averaged: the control for `concat`,
    whose probe may weigh features of all networks against each other.

    Returns:
        `scores` of the averaged logits, and of every network alone.

    Args:
        trains, validations, tests: of every network, the same pictures in the same order.
        settings: of `probe`.

    Raises:
        ValueError: for no networks, other pictures, or features that `check` refuses.
    """
    logits = logits_of_each(trains, validations, tests, **settings)
    mean, *alone = (scores(softmax(z), tests[0].y) for z in (logits.mean(dim=0), *logits))
    return mean, alone


def logits_of_each(
    trains: Sequence[Features],
    validations: Sequence[Features],
    tests: Sequence[Features],
    **settings,
) -> Tensor:
    """What a linear probe on every network alone says of the test pictures: (networks, n, k).

    Args, Raises: as `average`.
    """
    networks = list(zip(trains, validations, tests, strict=True))
    if not networks or any(not torch.equal(test.y, tests[0].y) for test in tests):
        raise ValueError("averaging needs features of one network or more, of the same pictures")
    logits = []
    for train, validation, test in networks:
        check(train=train, validation=validation, test=test)
        classifier, _ = choose(train, validation, **settings)
        logits.append(classifier.logits(test.x)[0])
    return torch.stack(logits)
