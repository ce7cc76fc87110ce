"""The linear probe of Kornblith, Shlens and Le (2019): do features separate the classes?"""

import torch

from vcr_zoo.features import Features

from .check import check
from .logistic import Fit, fit
from .scores import log_loss, scores, softmax, top1

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
    """Accuracy of logistic regression on frozen features; test is read once, at the end.

    Returns:
        top1, per_class (mean accuracy of the classes), log_loss in nats and calibration_error; and
        from `choose` how the classifier came about.

    Raises:
        ValueError: for features that `check` refuses.
        RuntimeError: if no fit, or not the last one, comes within the tolerance.
    """
    check(train=train, validation=validation, test=test)
    settings = {"strengths": strengths, "tolerance": tolerance, "max_iter": max_iter}
    classifier, how = choose(train, validation, **settings)
    return {**scores(softmax(classifier.logits(test.x)[0]), test.y), **how}


def choose(
    train: Features,
    validation: Features,
    *,
    strengths: tuple[float, ...] = STRENGTHS,
    tolerance: float = 1e-5,
    max_iter: int = 1000,
) -> tuple[Fit, dict[str, float]]:
    """The classifier of the protocol, fitted on train plus validation, and how it came about.

    C, in scikit-learn's convention (`logistic.fit`), is the one with the highest accuracy on
    validation, of equals the one with the lowest log loss. The last fit may take ten times
    `max_iter` steps.

    Returns:
        The fit, and: C, validation_top1, gradient (its largest entry at the end), n (pictures in
        the last fit), unconverged (values of C left out because their fit did not converge), at_end
        (1 if C is the smallest or the largest tried, so that one beyond might be better).
    """
    check(train=train, validation=validation)
    classes = len(train.classes)
    settings = {"tolerance": tolerance, "max_iter": max_iter}
    sweep = fit(train.x, train.y, classes, strengths, **settings)
    if not sweep.converged.any():
        raise RuntimeError(unconverged(sweep.gradient.min().item(), max_iter))
    candidates = sweep.logits(validation.x).softmax(dim=-1)
    ranks = [
        (top1(p, validation.y), -log_loss(p, validation.y)) if ok else (-1.0, 0.0)
        for p, ok in zip(candidates, sweep.converged, strict=True)
    ]
    best = max(range(len(ranks)), key=ranks.__getitem__)
    x, y = torch.cat([train.x, validation.x]), torch.cat([train.y, validation.y])
    start = sweep._replace(weight=sweep.weight[best, None], bias=sweep.bias[best, None])
    settings["max_iter"] = 10 * max_iter  # it is one fit, without which there is no number
    last = fit(x, y, classes, [strengths[best]], start=start, **settings)
    if not last.converged.all():
        raise RuntimeError(unconverged(last.gradient.item(), 10 * max_iter))
    return last, {
        "C": strengths[best],
        "validation_top1": ranks[best][0],
        "gradient": last.gradient.item(),
        "n": len(y),
        "unconverged": int((~sweep.converged).sum()),
        "at_end": int(strengths[best] in (min(strengths), max(strengths))),
    }


def unconverged(gradient: float, max_iter: int) -> str:
    return (
        f"the probe did not converge: after {max_iter} steps its gradient is still {gradient:.1e}; "
        "raise max_iter, or look for features that are far larger than the others"
    )
