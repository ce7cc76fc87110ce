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
    means = 0.15 * torch.randn(classes, d, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    x = (means[y] + torch.randn(n, d, generator=generator)) * scale
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    return (x @ rotation + 0.5).clamp(min=0), y


def bench(
    n: int = 10_000, d: int = 512, classes: int = 100, tolerance: float = 1e-5, seed: int = 0
) -> dict[str, float]:
    """Seconds for 45 values of C by both, and their test accuracies at the C that each chooses.

    Both stop when the largest entry of the gradient of the mean loss is below `tolerance` (our
    features have a root mean square above one, so that `fit` does not tighten it). Choosing is by
    accuracy on 5,000 pictures, testing on 10,000 others. `largest_gap` is over all C: at large
    ones, where the loss is flat, weights of equal gradient may differ in accuracy.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("comparing needs scikit-learn: pip install 'vcr_zoo[test]'") from error
    x, y = made(n + 15_000, d, classes, seed)
    start = time.perf_counter()
    ours = fit(x[:n], y[:n], classes, STRENGTHS, tolerance=tolerance)
    seconds = time.perf_counter() - start
    mine = (ours.logits(x[n:]).argmax(dim=-1) == y[n:]).double()  # (45, pictures)

    theirs, steps = [], 0
    sklearn_seconds = 0.0
    for c in STRENGTHS:
        model = LogisticRegression(C=c, tol=tolerance, max_iter=100_000)
        start = time.perf_counter()
        model.fit(x[:n].numpy(), y[:n].numpy())
        sklearn_seconds += time.perf_counter() - start
        steps += int(model.n_iter_.max())
        theirs.append(torch.from_numpy(model.predict(x[n:].numpy())) == y[n:])
    (top1, c), (sklearn_top1, sklearn_c) = chosen(mine), chosen(torch.stack(theirs).double())
    return {
        "seconds": seconds,
        "sklearn_seconds": sklearn_seconds,
        "ratio": sklearn_seconds / seconds,
        "top1": top1,
        "sklearn_top1": sklearn_top1,
        "gap": abs(top1 - sklearn_top1),
        "C": c,
        "sklearn_C": sklearn_c,
        "largest_gap": (mine - torch.stack(theirs).double()).mean(dim=1).abs().max().item(),
        "converged": int(ours.converged.sum()),
        "steps": ours.steps,
        "sklearn_steps": steps,
        "threads": torch.get_num_threads(),
        "n": n,
        "d": d,
        "classes": classes,
        "tolerance": tolerance,
    }


def chosen(right: torch.Tensor) -> tuple[float, float]:
    """Test accuracy at the C with the best validation accuracy, and that C: (45, pictures)."""
    validation, test = right[:, :5000].mean(dim=1), right[:, 5000:].mean(dim=1)
    best = int(validation.argmax())
    return test[best].item(), STRENGTHS[best]
