"""Several networks fine-tuned as one (Zhang and Bottou, 2023).

Joined and then fine-tuned, as any network is ("naive"), a concatenation hardly gains. In two stages
it does: every network is fine-tuned alone, and then a head over all of them is trained a little,
which starts as the average of their logits.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from vcr_zoo.data import Images
from vcr_zoo.features import features, resized

from .concat import Concat, concat, normalize
from .finetune import Finetuner, Settings, Tuned
from .method import Method

if TYPE_CHECKING:
    from .finetune import Finetuner as Run


class JointHead(Method):
    """The second stage: the head alone learns, and stays the one that the network has."""

    name = "two-stage"

    def head(self, model: nn.Module, classes: int) -> None:
        """Keep it."""

    def depth(self, run: "Run", epoch: int) -> int:
        return run.blocks.head


def averaging(networks: Sequence[nn.Module], input_size: Sequence[int] | None = None) -> Concat:
    """Networks with linear heads for the same classes as one, whose logits are their mean.

    The heads lie side by side, divided by the number of networks.

    Args:
        input_size: as for `concat`.

    Raises:
        ValueError: for heads that are not linear, or of different numbers of classes.
    """
    heads = [network.get_classifier() for network in networks]
    if any(not isinstance(head, nn.Linear) for head in heads):
        raise ValueError("networks are joined by their linear classifiers; one has another")
    if len({head.out_features for head in heads}) > 1:
        raise ValueError("networks to be joined tell different numbers of classes apart")
    joined = concat(networks, input_size)
    joined.reset_classifier(heads[0].out_features)
    n = len(heads)
    with torch.no_grad():
        joined.head.weight.copy_(torch.cat([head.weight for head in heads], dim=1) / n)
        joined.head.bias.copy_(sum(head.bias for head in heads) / n)
    return joined


def naive(
    networks: Sequence[nn.Module], train: Images, input_size: Sequence[int] | None = None
) -> Concat:
    """Networks as one, each brought to one scale on the train pictures: to be fine-tuned whole.

    Args:
        input_size: of the pictures that every network gets (channels, height, width); None: each
            those of its own size.
    """
    joined = concat(networks, input_size)
    normalize(joined, features(resized(joined, input_size), train).x)
    return joined


def two_stage(
    networks: Sequence[nn.Module],
    train: Images,
    validation: Images,
    settings: Settings,
    *,
    method: Method | None = None,
    epochs: int = 2,
    lr: float = 1e-3,
    folder: str | Path | None = None,
    **more,
) -> Tuned:
    """Each network fine-tuned alone, then the joint head.

    Args:
        settings, method: of the first stage.
        epochs, lr: of the second; the papers' values.
        folder: for the joined network, with the first stage's below it.
        more: arguments of `Finetuner`.
    """
    first = []
    for i, network in enumerate(networks):
        place = None if folder is None else Path(folder) / f"network-{i}"
        own = replace(settings, seed=settings.seed + 1000 * i)
        run = Finetuner(network, train, validation, method, own, folder=place, **more)
        first.append(run.run().model)
    second = replace(
        settings, epochs=epochs, lr=lr, warmup_epochs=0, patience=0, vcr_alpha=0.0, vcr_beta=0.0
    )
    joined = averaging(first, settings.input_size)
    return Finetuner(joined, train, validation, JointHead(), second, folder=folder, **more).run()
