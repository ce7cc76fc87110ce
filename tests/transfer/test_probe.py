import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss

from vcr_zoo.features import Features
from vcr_zoo.transfer.logistic import fit
from vcr_zoo.transfer.probe import STRENGTHS, choose, probe


def test_strengths_are_kornbliths():
    """45 values of C, evenly spaced in the logarithm from 1e-6 to 1e5."""
    assert len(STRENGTHS) == 45
    assert STRENGTHS[0] == pytest.approx(1e-6)
    assert STRENGTHS[-1] == pytest.approx(1e5)


def test_protocol_is_scikit_learns_step_by_step(digits):
    """Choose C on validation, fit again on train plus validation, read test: by hand, theirs."""
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    numpy = [(part.x.double().numpy(), part.y.numpy()) for part in digits]
    (train, y), (validation, v), (test, t) = numpy
    theirs = {c: LogisticRegression(C=c, tol=1e-8, max_iter=20_000) for c in strengths}
    scores = {c: model.fit(train, y).score(validation, v) for c, model in theirs.items()}
    both = torch.cat([digits[0].x, digits[1].x]).double().numpy()
    best = max(scores, key=scores.get)
    last = theirs[best].fit(both, [*y, *v])

    ours = probe(*digits, strengths=strengths, tolerance=1e-8)

    assert ours["C"] == best
    assert ours["validation_top1"] == pytest.approx(scores[best])
    assert ours["top1"] == pytest.approx(last.score(test, t))
    assert ours["log_loss"] == pytest.approx(log_loss(t, last.predict_proba(test)), abs=1e-4)
    assert ours["per_class"] == pytest.approx(balanced_accuracy_score(t, last.predict(test)))


def test_test_pictures_do_not_choose(digits):
    """C and everything else that was chosen is the same whatever the test split holds."""
    train, validation, test = digits
    reversed_labels = Features(test.x, 9 - test.y, test.classes)

    kept = ("C", "validation_top1", "gradient", "n")
    one, other = (probe(train, validation, t) for t in (test, reversed_labels))
    assert [one[key] for key in kept] == [other[key] for key in kept]


def test_a_choice_at_an_end_of_the_grid_is_flagged(digits):
    """A better value may lie beyond: the best of four is inside, each end alone is not."""
    strengths = (1e-6, 1e-2, 1.0, 1e6)

    assert probe(*digits, strengths=strengths)["at_end"] == 0
    assert probe(*digits, strengths=strengths[:1])["at_end"] == 1
    assert probe(*digits, strengths=(1e-8, 1e-6, 1e-4))["at_end"] == 1


def test_unconverged_probe_is_an_error_that_says_so(digits):
    """A number from a fit that has not converged is not given out."""
    with pytest.raises(RuntimeError, match="did not converge"):
        probe(*digits, tolerance=1e-12, max_iter=1)


def test_the_last_fit_may_take_longer(digits):
    """Its pictures are more, and their fit harder, than those that C was chosen with."""
    train, validation, _ = digits
    few, within = train.subset(torch.arange(20)), {"max_iter": 15}
    both = torch.cat([few.x, validation.x]), torch.cat([few.y, validation.y])
    alone = fit(few.x, few.y, 10, [100.0], **within)
    assert alone.converged.all()
    assert not fit(*both, 10, [100.0], start=alone, **within).converged.any()

    last, how = choose(few, validation, strengths=(100.0,), **within)

    assert how["gradient"] <= 1e-5 and last.steps > alone.steps


def test_one_picture_of_a_class_is_enough_to_fit(digits):
    """A rare class is hard, not an error."""
    train, validation, test = digits
    keep = torch.cat([(train.y != 3).nonzero().flatten(), (train.y == 3).nonzero()[0]])

    assert probe(train.subset(keep), validation, test, strengths=(1.0,))["top1"] > 0.7
