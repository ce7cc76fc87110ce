"""Parts of a data set, fixed by a hash of each picture's group: the same on every machine."""

import hashlib

import numpy as np

from .dataset import Pictures


def position(groups: np.ndarray, salt: str) -> np.ndarray:
    """Each group's place in [0, 1): str (n,) -> float64 (n,). One group, one place."""
    names, index = np.unique(groups, return_inverse=True)
    digests = [hashlib.sha256(f"{salt}|{name}".encode()).digest()[:8] for name in names.tolist()]
    places = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    return places[index] if len(names) else np.zeros(0)


def parts(pictures: Pictures, test_share: float, validation_share: float) -> dict[str, np.ndarray]:
    """Indices of the train, validation and test parts; no group is in two of them.

    Parts that come with the pictures stay; else `test_share` of all groups become the test part,
    and `validation_share` of each class's other groups, at least one of two, the validation part.
    """
    y, groups, test, validation = pictures.y, pictures.groups, pictures.test, pictures.validation
    if test is None:
        test = position(groups, "test") < test_share
    if validation is None:
        validation = np.zeros(len(y), dtype=bool)
        rest = np.flatnonzero(~test)
        chosen = share_of_each_class(y[rest], groups[rest], validation_share, "validation")
        validation[rest] = chosen
    return {
        "train": np.flatnonzero(~test & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(test),
    }


def share_of_each_class(y: np.ndarray, groups: np.ndarray, share: float, salt: str) -> np.ndarray:
    """Whether each picture's group is among the first of its class by hash: (n,), (n,) -> (n,)."""
    names, first, index = np.unique(groups, return_index=True, return_inverse=True)
    place, label = position(names, salt), y[first]
    chosen = np.zeros(len(names), dtype=bool)
    for one in np.unique(label):
        members = np.flatnonzero(label == one)
        count = max(round(share * len(members)), int(share > 0 and len(members) > 1))
        chosen[members[np.argsort(place[members], kind="stable")[:count]]] = True
    return chosen[index]


def long_tail(y: np.ndarray, groups: np.ndarray, ratio: float) -> np.ndarray:
    """Indices that thin the classes exponentially, first to last: (n,), (n,) -> sorted (m,).

    Class k of K keeps its largest-class size times ratio ** (-k / (K - 1)); which pictures stay is
    fixed by their groups' hash. Larger ratios keep subsets of what smaller ratios keep.
    """
    sizes = np.bincount(y)
    keep = sizes.max() * float(ratio) ** (-np.arange(len(sizes)) / max(1, len(sizes) - 1))
    place = position(groups, "long tail")
    chosen = []
    for label, size in enumerate(np.minimum(sizes, np.maximum(1, keep.round().astype(int)))):
        members = np.flatnonzero(y == label)
        chosen.append(members[np.argsort(place[members], kind="stable")[:size]])
    return np.sort(np.concatenate(chosen))
