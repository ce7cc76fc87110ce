"""What a network that was taught coarse classes knows of the fine ones within them."""

import torch
from torch import Tensor

from vcr_zoo.features import Features

from .check import check
from .probe import choose


def parents(fine: Tensor, coarse: Tensor) -> Tensor:
    """The coarse class of every fine one, from both labels of the same pictures: (fine classes,).

    Raises:
        ValueError: if a fine class has pictures in two coarse ones, or if some number below the
            largest label is no picture's.
    """
    found = torch.full((int(fine.max()) + 1,), -1)
    found[fine] = coarse
    if (found < 0).any() or (found[fine] != coarse).any():
        raise ValueError("the fine classes do not lie within the coarse ones")
    return found


def coarse_to_fine(
    train: Features, validation: Features, test: Features, parents: Tensor, **settings
) -> dict[str, float]:
    """A linear probe of the fine classes on features of a network trained on the coarse ones.

    Args:
        parents: the coarse class of every fine one (fine classes,).
        settings: of `probe`.

    Returns:
        top1 of the fine classes; coarse_top1, how often the coarse class of the answer is right;
        within_top1, the share of pictures that are told apart from the other fine classes of their
        own coarse class, over those whose coarse class has several.

    Raises:
        ValueError: for features that `check` refuses, or if no coarse class has several fine ones.
    """
    check(train=train, validation=validation, test=test)
    classifier, how = choose(train, validation, **settings)
    accuracies, _ = levels(classifier.logits(test.x)[0], test.y, parents.to(test.y))
    return {**accuracies, **how}


def levels(logits: Tensor, y: Tensor, parents: Tensor) -> tuple[dict[str, float], Tensor]:
    """The three accuracies of `coarse_to_fine`, within_top1 first, and which pictures that have
    siblings are told apart from them: (n, fine classes), (n,), (fine classes,) -> ..., (m,) bool.
    """
    siblings = parents[y][:, None] == parents  # (n, fine classes)
    several = siblings.sum(dim=1) > 1
    if not several.any():
        raise ValueError("no coarse class of the test pictures has several fine classes")
    answer = logits.argmax(dim=1)
    within = torch.where(siblings, logits, -torch.inf).argmax(dim=1)
    told = (within == y)[several]
    return {
        "within_top1": told.double().mean().item(),
        "top1": (answer == y).double().mean().item(),
        "coarse_top1": (parents[answer] == parents[y]).double().mean().item(),
    }, told
