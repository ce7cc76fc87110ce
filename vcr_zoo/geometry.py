"""What a cloud of feature vectors looks like: its effective dimensions, and its neighborhoods."""

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 2**27  # similarities held at a time: half a gigabyte
CHUNK = 2048  # vectors at a time, so that their similarities to a whole bank fit into memory


def effective_rank(eigenvalues: Tensor) -> float:
    """exp of the entropy of the eigenvalues' shares: between 1 and d (Roy and Vetterli, 2007).

    Raises:
        ValueError: if all eigenvalues are zero, as those of constant features are.
    """
    total = eigenvalues.sum()
    if not total > 0:
        raise ValueError("the effective rank is undefined because the features are constant")
    share = eigenvalues / total
    return torch.special.entr(share).sum().exp().item()


def neighbor_votes(
    bank: Tensor, labels: Tensor, classes: int, x: Tensor, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Each class's share of the vote of the k nearest in a bank (Wu et al., 2018).

    Near means a high cosine s; a neighbor's vote weighs exp(s / temperature). A smaller bank votes
    as a whole.

    Args:
        bank, labels: known vectors (m, d) and their classes, int64 (m,).
        x: vectors in question (n, d).

    Returns:
        (n, classes), rows sum to one.

    Raises:
        ValueError: for a k or temperature that is not positive.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k = {k} and temperature {temperature} must be positive")
    bank = F.normalize(bank)
    votes = x.new_zeros(len(x), classes)
    chunk = max(1, min(CHUNK, LARGEST // len(bank)))
    for part, out in zip(x.split(chunk), votes.split(chunk), strict=True):
        similarity, nearest = (F.normalize(part) @ bank.T).topk(min(k, len(bank)))  # (m, k) each
        weights = (similarity / temperature).softmax(dim=1)
        out.scatter_add_(1, labels[nearest], weights)
    return votes
