import pytest
import torch
from sklearn.linear_model import Ridge

from vcr_zoo.features import Features
from vcr_zoo.transfer.fewshot import RIDGES, choose_ridges, fewshot, ridge_scores, shuffled


@pytest.mark.parametrize("count", [50, 500])  # fewer samples than features, and more
def test_closed_form_is_scikit_learns_ridge(digits, count):
    """The dual solution with the stated penalty is the primal one of an independent solver."""
    train, _, test = digits
    few = train.subset(torch.arange(count))
    centered = few.x.double() - few.x.double().mean(dim=0)
    onehot = torch.nn.functional.one_hot(few.y, 10).double()
    for ridge, ours in zip(
        (0.01, 0.5, 10), ridge_scores(few, test.x, (0.01, 0.5, 10)), strict=True
    ):
        penalty = ridge * centered.square().sum(dim=1).mean().item()
        theirs = Ridge(alpha=penalty).fit(few.x.double(), onehot).predict(test.x.double())
        assert ours.numpy() == pytest.approx(theirs, abs=1e-8)


def test_the_ridge_is_best_on_validation(digits):
    """By scikit-learn's regressions on the same draws; test has no say."""
    train, validation, test = digits
    found = choose_ridges(train, validation, shots=(5,), draws=2, seed=3)
    onehot = torch.nn.functional.one_hot(train.y, 10).double()

    def right(ridge: float) -> float:
        total = 0
        for draw in range(2):
            few = shuffled(train.y, 10, 3 * 10_007 + draw)[:, :5].flatten()
            x = train.x[few].double()
            penalty = ridge * (x - x.mean(dim=0)).square().sum(dim=1).mean().item()
            scores = Ridge(alpha=penalty).fit(x, onehot[few]).predict(validation.x.double())
            total += (scores.argmax(axis=1) == validation.y.numpy()).sum()
        return total

    assert right(found[5]) == max(map(right, RIDGES)) > min(map(right, RIDGES))
    whole = fewshot(train, validation, test, shots=(5,), draws=2, seed=3)
    other = Features(test.x, test.y.flip(0), test.classes)
    assert whole["ridge_5"] == found[5]
    assert fewshot(train, validation, other, shots=(5,), draws=2, seed=3)["ridge_5"] == found[5]


def test_scale_of_features_does_not_matter(digits):
    """A network is not better for speaking louder."""
    quiet, loud = (
        [Features(part.x * scale, part.y, part.classes) for part in digits]
        for scale in (0.125, 1024)
    )

    assert fewshot(*quiet, draws=2) == fewshot(*loud, draws=2)


def test_more_shots_help(digits):
    """On real features, and each number is a share."""
    accuracy = [v for k, v in fewshot(*digits, shots=(1, 5, 25)).items() if k.endswith("shot")]

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
    train, *others = digits
    keep = torch.cat([(train.y != 7).nonzero().flatten(), (train.y == 7).nonzero()[:4, 0]])

    assert list(fewshot(train.subset(keep), *others, draws=1)) == ["1-shot", "ridge_1"]
    with pytest.raises(ValueError, match="class '7' has 4 pictures"):
        fewshot(train.subset(keep), *others, shots=(5, 10))
