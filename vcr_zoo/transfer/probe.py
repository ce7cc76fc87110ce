"""The linear probe of Kornblith, Shlens and Le (2019): do features separate the classes?"""

import torch

from vcr_zoo.features import Features

from .check import check
from .logistic import fit
from .scores import calibration_error, log_loss, per_class, top1

STRENGTHS = tuple(10 ** (-6 + 11 * i / 44) for i in range(45))  # C, 1e-6 to 1e5


def probe(
    train: Features,
    validation: Features,
    test: Features,
    *,
    strengths: tuple[float, ...] = STRENGTHS,
    tolerance: float = 1e-5,
    max_iter: int = 1000,
) -> dict[str, float]:
    """Accuracy of logistic regression on frozen features.

    C, in scikit-learn's convention (`logistic.fit`), is the one with the highest accuracy on
    validation, of equals the one with the lowest log loss; with it the classifier is fitted again
    on train plus validation, and test is read once.

    Returns:
        top1, per_class (mean accuracy of the classes), log_loss in nats, calibration_error; and
        how it came about: C, validation_top1, gradient (largest entry at the end), n (pictures in
        the last fit), unconverged (values of C left out because their fit did not converge).

    Raises:
        ValueError: for features that `check` refuses.
        RuntimeError: if no fit, or not the last one, comes within the tolerance.
    """
    check(train=train, validation=validation, test=test)
    classes = len(train.classes)
    settings = {"tolerance": tolerance, "max_iter": max_iter}
    sweep = fit(train.x, train.y, classes, strengths, **settings)
    if not sweep.converged.any():
        raise RuntimeError(unconverged(sweep.gradient.min().item(), max_iter))
    candidates = sweep.logits(validation.x).softmax(dim=-1)
    scores = [
        (top1(p, validation.y), -log_loss(p, validation.y)) if ok else (-1.0, 0.0)
        for p, ok in zip(candidates, sweep.converged, strict=True)
    ]
    best = max(range(len(scores)), key=scores.__getitem__)
    x, y = torch.cat([train.x, validation.x]), torch.cat([train.y, validation.y])
    start = sweep._replace(weight=sweep.weight[best, None], bias=sweep.bias[best, None])
    last = fit(x, y, classes, [strengths[best]], start=start, **settings)
    if not last.converged.all():
        raise RuntimeError(unconverged(last.gradient.item(), max_iter))
    probabilities = last.logits(test.x)[0].softmax(dim=-1)
    return {
        "top1": top1(probabilities, test.y),
        "per_class": per_class(probabilities, test.y),
        "log_loss": log_loss(probabilities, test.y),
        "calibration_error": calibration_error(probabilities, test.y),
        "C": strengths[best],
        "validation_top1": scores[best][0],
        "gradient": last.gradient.item(),
        "n": len(y),
        "unconverged": int((~sweep.converged).sum()),
    }


def unconverged(gradient: float, max_iter: int) -> str:
    return (
        f"the probe did not converge: after {max_iter} steps its gradient is still {gradient:.1e}; "
        "raise max_iter, or look for features that are far larger than the others"
    )
