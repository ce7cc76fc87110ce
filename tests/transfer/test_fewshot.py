import pytest
import torch
from sklearn.linear_model import Ridge

from vcr_zoo.features import Features
from vcr_zoo.transfer.fewshot import fewshot, ridge_scores, shuffled


def test_closed_form_is_scikit_learns_ridge(digits):
    """The dual solution with the stated penalty is the primal one of an independent solver."""
    train, _, test = digits
    few = train.subset(torch.arange(50))
    centered = few.x.double() - few.x.double().mean(dim=0)
    penalty = 0.5 * centered.square().sum(dim=1).mean().item()
    onehot = torch.nn.functional.one_hot(few.y, 10).double()
    theirs = Ridge(alpha=penalty).fit(few.x.double(), onehot).predict(test.x.double())

    assert ridge_scores(few, test.x, 0.5).numpy() == pytest.approx(theirs, abs=1e-8)


def test_scale_of_features_does_not_matter(digits):
    """A network is not better for speaking louder."""
    train, _, test = digits
    quiet, loud = (
        [Features(part.x * scale, part.y, part.classes) for part in (train, test)]
        for scale in (0.125, 1024)
    )

    assert fewshot(*quiet, draws=2) == fewshot(*loud, draws=2)


def test_more_shots_help(digits):
    """On real features, and each number is a share."""
    train, _, test = digits
    accuracy = list(fewshot(train, test, shots=(1, 5, 25)).values())

    assert accuracy == sorted(accuracy)
    assert 0.3 < accuracy[0] < accuracy[-1] < 1


def test_draws_are_the_same_pictures_for_every_network(digits):
    """Pairing: what is drawn depends on labels, seed and draw, not on features."""
    y = digits[0].y

    assert torch.equal(shuffled(y, 10, 3), shuffled(y, 10, 3))
    assert not torch.equal(shuffled(y, 10, 3), shuffled(y, 10, 4))
    assert (y[shuffled(y, 10, 3)] == torch.arange(10)[:, None]).all()


def test_too_few_pictures_for_every_number_of_shots(digits):
    """The class that is too small is named, and possible shots are kept."""
    train, _, test = digits
    keep = torch.cat([(train.y != 7).nonzero().flatten(), (train.y == 7).nonzero()[:4, 0]])

    assert list(fewshot(train.subset(keep), test, draws=1)) == ["1-shot"]
    with pytest.raises(ValueError, match="class '7' has 4 pictures"):
        fewshot(train.subset(keep), test, shots=(5, 10))
