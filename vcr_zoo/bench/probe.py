"""The whole sweep of the linear probe, beside scikit-learn's solver looped over the same C."""

import time

import torch

from vcr_zoo.transfer.logistic import fit
from vcr_zoo.transfer.probe import STRENGTHS


def made(n: int, d: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features like those of a network after a ReLU: a spectrum that falls as 1 / rank, classes
    that overlap, a mean far from zero: (n, d), (n,)."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1).pow(-0.5)
    scale = scale * (d / scale.square().sum()).sqrt()
    means = 0.09 * torch.randn(classes, d, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    x = (means[y] + torch.randn(n, d, generator=generator)) * scale
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    return (x @ rotation + 0.5).clamp(min=0), y


def bench(
    n: int = 10_000, d: int = 512, classes: int = 100, tolerance: float = 1e-4, seed: int = 0
) -> dict[str, float]:
    """Seconds for 45 values of C by both, and how far apart their test accuracies are.

    Both stop when the largest entry of the gradient of the mean loss is below `tolerance`; ours,
    whose tolerance is for features of root mean square one, gets the stricter of the two.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "the comparison needs scikit-learn: pip install 'vcr_zoo[test]'"
        ) from error
    x, y = made(n + 5000, d, classes, seed)
    train, test = (x[:n], y[:n]), (x[n:], y[n:])
    start = time.perf_counter()
    ours = fit(*train, classes, STRENGTHS, tolerance=tolerance)
    seconds = time.perf_counter() - start
    mine = (ours.logits(test[0]).argmax(dim=-1) == test[1]).double().mean(dim=-1)

    train, test = ([part.numpy() for part in pair] for pair in (train, test))
    theirs = []
    start = time.perf_counter()
    for c in STRENGTHS:
        model = LogisticRegression(C=c, tol=tolerance, max_iter=100_000)
        theirs.append(model.fit(*train))
    sklearn_seconds = time.perf_counter() - start
    scores = torch.tensor([model.score(*test) for model in theirs])
    return {
        "seconds": seconds,
        "sklearn_seconds": sklearn_seconds,
        "ratio": sklearn_seconds / seconds,
        "best_top1": mine.max().item(),
        "sklearn_best_top1": scores.max().item(),
        "largest_gap": (mine - scores).abs().max().item(),
        "converged": int(ours.converged.sum()),
        "steps": ours.steps,
        "sklearn_steps": int(sum(model.n_iter_.max() for model in theirs)),
        "threads": torch.get_num_threads(),
        "n": n,
        "d": d,
        "classes": classes,
        "tolerance": tolerance,
    }
