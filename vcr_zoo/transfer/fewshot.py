"""Few-shot accuracy: a ridge regression onto the classes from a handful of pictures of each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vcr_zoo.features import Features

from .check import check

SHOTS = (1, 5, 10, 25)


def fewshot(train: Features, test: Features, **settings) -> dict[str, float]:
    """Mean top-1 accuracy over draws of some pictures of every class: "5-shot" and so on.

    Args:
        settings: of `fewshot_right`.
    """
    return {
        name: share.mean().item() for name, share in fewshot_right(train, test, **settings).items()
    }


def fewshot_right(
    train: Features,
    test: Features,
    *,
    shots: tuple[int, ...] = SHOTS,
    draws: int = 5,
    ridge: float = 0.3,
    seed: int = 0,
) -> dict[str, Tensor]:
    """For every test picture the share of draws that get it right: (n,) for each of `shots`.

    A draw is a function of (seed, draw) alone, so that networks are compared on the same pictures,
    and a larger number of shots holds the smaller ones. Shots that a class cannot give are left
    out.

    Args:
        ridge: of `ridge_scores`. The default is best on average, of 0.01 to 10 in half decades,
            over all shots on validation pictures of silhouettes and Fashion-MNIST, for
            test_resnet.vcr_fmnist4 and test_resnet.base_fmnist4. What is best differs by network
            (1 or less for the first, 0.1 for the second), so that one value favors some.

    Raises:
        ValueError: for features that `check` refuses, or if no number of shots is possible.
    """
    check(train=train, test=test)
    fewest, name = min(zip(torch.bincount(train.y).tolist(), train.classes, strict=True))
    possible = [k for k in shots if k <= fewest]
    if not possible:
        raise ValueError(
            f"class {name!r} has {fewest} pictures, too few for {min(shots)} shots: ask for fewer"
        )
    right = {k: torch.zeros(len(test), dtype=torch.float64) for k in possible}
    for draw in range(draws):
        ranked = shuffled(train.y, len(train.classes), seed * 10_007 + draw)
        for k in possible:
            few = train.subset(ranked[:, :k].flatten())
            right[k] += (ridge_scores(few, test.x, ridge).argmax(dim=1) == test.y).cpu()
    return {f"{k}-shot": right[k] / draws for k in possible}


def shuffled(y: Tensor, classes: int, seed: int) -> Tensor:
    """Indices of pictures, a row for each class, in random order: (classes, fewest)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator).to(y.device)
    members = [order[y[order] == c] for c in range(classes)]
    fewest = min(map(len, members))
    return torch.stack([member[:fewest] for member in members])


def ridge_scores(few: Features, x: Tensor, ridge: float) -> Tensor:
    """Scores (n, classes) of the ridge regression of one-hot labels Y on features X (m, d),
    both centered: the W that minimizes |XW - Y|² + r |W|².

    r is `ridge` times the mean squared length of the rows of X, so that accuracy does not depend
    on the features' scale. As m is small, W = Xᵀ (XXᵀ + r)⁻¹ Y.
    """
    mean = few.x.double().mean(dim=0)
    centered = few.x.double() - mean
    labels = F.one_hot(few.y, len(few.classes)).double()
    shares = labels.mean(dim=0)
    products = centered @ centered.T  # (m, m)
    r = (ridge * products.diagonal().mean()).clamp(min=torch.finfo(torch.float64).tiny)
    products.diagonal().add_(r)
    weight = centered.T @ torch.linalg.solve(products, labels - shares)
    return (x.double() - mean) @ weight + shares
