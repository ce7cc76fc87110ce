"""Which network to start from on given pictures, judged without training on them."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vcr_zoo.data import Images, load, named
from vcr_zoo.features import Features, features, load_model

from .scores import softmax
from .transferability import h_score, leep, logme, nce

DECIDING = ("logme", "h_score")  # every network has these; leep and nce only one with a head


class Standing(NamedTuple):
    """One network's scores and its mean place by those of DECIDING, 1 being the best."""

    model: str
    scores: dict[str, float]
    place: float


def rank(
    models: Sequence[str],
    where: str | Path,
    *,
    limit: int = 5000,
    seed: int = 0,
    cache: str | Path | None = None,
) -> list[Standing]:
    """Networks in the order in which their features suit the pictures, the best first.

    Args:
        models: names or paths that `load_model` takes.
        where: a name that `vcr_zoo.data.load` takes, or a folder's path. Only the train part is
            looked at, so that the others can judge the choice.
        limit: pictures looked at, drawn at random from the seed, of each class its share.

    Raises:
        LookupError: for a `where` that is neither, or a model that does not exist.
        ValueError: for no models, or pictures from which nothing can be told.
    """
    if not models:
        raise ValueError("no networks to rank: name some")
    images = pictures(where, limit, seed)
    scores = {name: scored(load_model(name), images, cache) for name in dict.fromkeys(models)}
    places = dict.fromkeys(scores, 0.0)
    for score in DECIDING:
        order = sorted(scores, key=lambda name: -scores[name][score])
        for place, name in enumerate(order, start=1):
            places[name] += place / len(DECIDING)
    standings = [Standing(name, scores[name], places[name]) for name in scores]
    return sorted(standings, key=lambda s: (s.place, -s.scores["logme"]))


def pictures(where: str | Path, limit: int, seed: int) -> Images:
    """At most `limit` train pictures of a named set or a folder."""
    images = load(named(where), "train")
    return images.subset(drawn(torch.tensor(images.y), limit, seed))


def drawn(y: Tensor, limit: int, seed: int) -> Tensor:
    """Indices of at most `limit` pictures, at random, of each class its share and at least one:
    (n,) -> sorted (m,).

    Raises:
        ValueError: for a limit below the number of classes.
    """
    sizes = torch.bincount(y)
    if limit < (classes := int((sizes > 0).sum())):
        raise ValueError(
            f"{limit} pictures of {classes} classes tell nothing: raise --limit well above that"
        )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[y[order].argsort(stable=True)]  # class by class, at random within each
    place = torch.arange(len(y)) - (sizes.cumsum(0) - sizes)[y[order]]
    share = place / sizes[y[order]]  # that of a class which is drawn before this picture
    return order[share.argsort(stable=True)[:limit]].sort().values


def scored(model: nn.Module, images: Images, cache: str | Path | None = None) -> dict[str, float]:
    """Every score of one network; leep and nce if it has a linear head."""
    found = features(model, images, cache=cache)
    scores = {"logme": logme(found), "h_score": h_score(found)}
    head = model.get_classifier() if hasattr(model, "get_classifier") else None
    if isinstance(head, nn.Linear):
        scores |= head_scores(head, found)
    return scores


@torch.no_grad()
def head_scores(head: nn.Linear, found: Features) -> dict[str, float]:
    """Scores of what the network's own classes say about the new ones."""
    p = softmax(head(found.x.to(head.weight)).cpu())
    classes = len(found.classes)
    return {"leep": leep(p, found.y, classes), "nce": nce(p, found.y, classes)}


def report(standings: Sequence[Standing], where: str | Path) -> str:
    """The scores as a table, and what to do with them."""
    names = list(dict.fromkeys(name for s in standings for name in s.scores))
    width = max(len(s.model) for s in standings)
    lines = ["  ".join([" " * width, *(name.rjust(8) for name in names), "mean place"])]
    for s in standings:
        values = [f"{s.scores[n]:8.3f}" if n in s.scores else " " * 8 for n in names]
        lines.append("  ".join([s.model.ljust(width), *values, f"{s.place:10.1f}"]))
    best, *others = standings
    by = " and ".join(DECIDING)
    lines += ["", f"Start from {best.model}: its mean place by {by} is the best on {where}."]
    if tied := [s.model for s in others if s.place == best.place]:
        lines.append(
            f"The two disagree: {', '.join(tied)} has that mean place, too, and a lower logme."
        )
    if others:
        first, second = (shlex.quote(s.model) for s in standings[:2])
        lines.append("These scores need no training and are rough. Decide between the first two by")
        lines.append("a probe's accuracy on validation; that on test is for a report, once, after:")
        lines.append(
            f"vcr-zoo transfer {first} --against {second} --data {shlex.quote(named(where))}"
        )
    return "\n".join(lines)
