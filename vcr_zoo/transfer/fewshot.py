"""Few-shot accuracy: a ridge regression onto the classes from a handful of pictures of each."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vcr_zoo.features import Features

from .check import check

SHOTS = (1, 5, 10, 25)
RIDGES = tuple(10 ** (k / 2) for k in range(-4, 3))  # 0.01 to 10


def fewshot(
    train: Features,
    validation: Features,
    test: Features,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Mean top-1 accuracy over draws of some train pictures of every class, "5-shot" and so on; and
    "ridge_5" and so on, chosen on validation. Test is read once, at the end.

    Raises:
        ValueError: for features that `check` refuses, or if no number of shots is possible.
    """
    settings = {"draws": draws, "seed": seed}
    ridges = choose_ridges(train, validation, shots=shots, **settings)
    right = fewshot_right(train, test, ridges, **settings)
    accuracy = {f"{k}-shot": share.mean().item() for k, share in right.items()}
    return accuracy | {f"ridge_{k}": ridge for k, ridge in ridges.items()}


def choose_ridges(
    train: Features,
    validation: Features,
    *,
    shots: Sequence[int] = SHOTS,
    ridges: Sequence[float] = RIDGES,
    draws: int = 5,
    seed: int = 0,
) -> dict[int, float]:
    """For every number of shots that all classes can give, the ridge of `ridge_scores` that tells
    most validation pictures right, mean over draws; of equals the largest.

    One ridge for all networks would favor those that it happens to suit.

    Raises:
        ValueError: for features that `check` refuses, or if no number of shots is possible.
    """
    check(train=train, validation=validation)
    fewest, name = min(zip(torch.bincount(train.y).tolist(), train.classes, strict=True))
    possible = [k for k in shots if k <= fewest]
    if not possible:
        raise ValueError(
            f"class {name!r} has {fewest} pictures, too few for {min(shots)} shots: ask for fewer"
        )
    descending, chosen = sorted(ridges, reverse=True), {}
    for k in possible:
        right = told(train, validation, k, descending, draws, seed).mean(dim=1)
        chosen[k] = descending[right.argmax()]  # the first of equals
    return chosen


def fewshot_right(
    train: Features,
    test: Features,
    ridges: Mapping[int, float],
    *,
    draws: int = 5,
    seed: int = 0,
) -> dict[int, Tensor]:
    """For every test picture the share of draws that get it right: (n,) for each number of shots
    that `ridges` has.

    A draw is a function of (seed, draw) alone, so that networks are compared on the same pictures,
    and a larger number of shots holds the smaller ones.
    """
    check(train=train, test=test)
    return {k: told(train, test, k, [ridge], draws, seed)[0] for k, ridge in ridges.items()}


def told(
    train: Features, asked: Features, k: int, ridges: Sequence[float], draws: int, seed: int
) -> Tensor:
    """Share of draws of k pictures of a class that tell each picture right: (ridges, n)."""
    right = torch.zeros(len(ridges), len(asked), dtype=torch.float64)
    for draw in range(draws):
        few = train.subset(
            shuffled(train.y, len(train.classes), seed * 10_007 + draw)[:, :k].flatten()
        )
        for row, scores in zip(right, ridge_scores(few, asked.x, ridges), strict=True):
            row += (scores.argmax(dim=1) == asked.y).cpu()
    return right / draws


def shuffled(y: Tensor, classes: int, seed: int) -> Tensor:
    """Indices of pictures, a row for each class, in random order: (classes, fewest)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator).to(y.device)
    members = [order[y[order] == c] for c in range(classes)]
    fewest = min(map(len, members))
    return torch.stack([member[:fewest] for member in members])


def ridge_scores(few: Features, x: Tensor, ridges: Iterable[float]) -> Iterable[Tensor]:
    """For each ridge the scores (n, classes) of the ridge regression of one-hot labels Y on
    features X (m, d), both centered: the W that minimizes |XW - Y|² + r |W|².

    r is the ridge times the mean squared length of the rows of X, so that accuracy does not depend
    on the features' scale. One decomposition serves all ridges: of XXᵀ if there are fewer samples
    than features, where W = Xᵀ (XXᵀ + r)⁻¹ Y, or else of XᵀX, where W = (XᵀX + r)⁻¹ Xᵀ Y.
    """
    mean = few.x.double().mean(dim=0)
    centered, x = few.x.double() - mean, x.double() - mean
    labels = F.one_hot(few.y, len(few.classes)).double()
    shares = labels.mean(dim=0)
    m, d = centered.shape
    squares, axes = torch.linalg.eigh(centered @ centered.T if m < d else centered.T @ centered)
    wanted = axes.T @ (labels - shares if m < d else centered.T @ (labels - shares))
    back = centered.T @ axes if m < d else axes
    squares = squares.clamp(min=0)
    for ridge in ridges:
        r = (ridge * squares.sum() / m).clamp(min=torch.finfo(torch.float64).tiny)
        yield x @ (back @ (wanted / (squares + r)[:, None])) + shares
