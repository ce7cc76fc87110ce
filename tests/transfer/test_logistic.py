import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from vcr_zoo.transfer import logistic
from vcr_zoo.transfer.logistic import Axes, fit

STRENGTHS = (1e-6, 1e-3, 0.1, 1.0, 30.0, 1e3, 1e5)


def objective(x, y, c, weight, bias):
    """The objective as the docstring of `fit` writes it."""
    loss = F.cross_entropy(x.double() @ weight.T + bias, y)
    return loss + weight.square().sum() / (2 * c * len(x))


def gradient(x, y, c, weight, bias):
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    parts = torch.autograd.grad(objective(x, y, c, weight, bias), (weight, bias))
    return max(part.abs().max().item() for part in parts)


@pytest.mark.parametrize("c", [1e-4, 0.1, 30.0, 1e5])
def test_optimum_is_scikit_learns(digits, c):
    """Same C, same mean loss, same intercept: the two minima agree to 1e-6 and better."""
    x, y = digits[0].x, digits[0].y
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(x.double().numpy(), y.numpy())

    ours = fit(x, y, 10, [c], tolerance=1e-9)

    assert ours.converged.all()
    mine = objective(x, y, c, ours.weight[0], ours.bias[0])
    coefficients = torch.tensor(theirs.coef_), torch.tensor(theirs.intercept_)
    assert abs(mine - objective(x, y, c, *coefficients)) < 1e-6
    if c < 1000:  # beyond, the loss is flat to the last digit and weights are not determined
        assert torch.allclose(ours.weight[0], coefficients[0], atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-9])
def test_reported_gradient_is_autograds(digits, tolerance):
    """What `converged` rests on is the gradient of the objective as stated, not an estimate."""
    x, y = digits[0].x, digits[0].y

    ours = fit(x, y, 10, STRENGTHS, tolerance=tolerance)

    truth = [gradient(x, y, *args) for args in zip(STRENGTHS, ours.weight, ours.bias, strict=True)]
    assert ours.converged.all()
    scale = min(1.0, x.square().mean().sqrt().item())
    assert max(truth) <= 1.02 * tolerance * scale
    assert ours.gradient.tolist() == pytest.approx(truth, rel=0.02, abs=1e-7)


def test_unconverged_is_said_so(digits):
    """Too few steps leave the flag down, with the gradient that shows why."""
    ours = fit(digits[0].x, digits[0].y, 10, [1e-6, 1e5], tolerance=1e-9, max_iter=2)

    assert not ours.converged[1]
    assert ours.gradient[1] > 1e-9


@pytest.mark.parametrize("together", [1, 3, 45])
def test_grouping_and_order_do_not_matter(digits, together):
    """However many are solved at once and in whatever order they are named."""
    x, y = digits[0].x[:300], digits[0].y[:300]
    shuffled = [30.0, 1e-6, 1.0, 0.1]

    ours = fit(x, y, 10, shuffled, tolerance=1e-9, together=together)

    for i, c in enumerate(shuffled):
        alone = fit(x, y, 10, [c], tolerance=1e-9)
        assert torch.allclose(ours.weight[i], alone.weight[0], atol=1e-4)


def test_problems_solved_together_are_those_solved_alone(digits):
    """Several seeds or models of one size share the steps, not the solutions."""
    x, y = digits[0].x[:600].view(2, 300, -1), digits[0].y[:600].view(2, 300)

    both = fit(x, y, 10, [0.1, 10.0], tolerance=1e-9)

    for one, rows, labels in zip(both, x, y, strict=True):
        alone = fit(rows, labels, 10, [0.1, 10.0], tolerance=1e-9)
        assert torch.allclose(one.weight, alone.weight, atol=1e-5)
        assert torch.allclose(one.bias, alone.bias, atol=1e-4)


def test_rotating_features_rotates_the_solution(digits):
    """The penalty is the norm's, so a rotation Q of the features turns W into WQ."""
    x, y = digits[0].x[:400].double(), digits[0].y[:400]
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q

    plain, turned = (fit(z, y, 10, [1.0], tolerance=1e-10) for z in (x, x @ rotation))

    assert torch.allclose(plain.weight @ rotation, turned.weight, atol=1e-6)


def test_unregularized_loss_survives_rotation_and_scale(digits):
    """With hardly any penalty, the optimum's loss belongs to the span of the features."""
    pixels = [2, 3, 4, 5, 10, 11, 12, 13]  # all in use, by all digits: far from separable
    x, y = digits[0].x[:, pixels].double(), digits[0].y
    torch.manual_seed(0)
    mixed = x @ (torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q * 3)
    losses = [
        objective(z, y, 1e12, f.weight[0], f.bias[0])
        for z in (x, mixed)
        for f in [fit(z, y, 10, [1e12], tolerance=1e-9)]
    ]

    assert abs(losses[0] - losses[1]) < 1e-7


def test_permuting_classes_permutes_the_solution(digits):
    """No class is special: there is no reference class."""
    x, y = digits[0].x[:400], digits[0].y[:400]
    permutation = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])

    plain, permuted = fit(x, y, 10, [1.0]), fit(x, permutation[y], 10, [1.0])

    assert torch.allclose(plain.weight[0], permuted.weight[0, permutation], atol=1e-3)


def test_shifted_features_have_the_same_slopes(digits):
    """Features far from zero, as after a ReLU with a large mean, cost no precision."""
    x, y = digits[0].x[:400], digits[0].y[:400]

    near, far = fit(x, y, 10, [1.0]), fit(x + 1000, y, 10, [1.0])

    assert far.converged.all()
    assert torch.allclose(near.weight, far.weight, atol=5e-3)


def test_more_features_than_pictures(digits):
    """The solution lies in the span of the pictures."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 300), torch.arange(40) % 4

    ours = fit(x, y, 4, [0.1], tolerance=1e-9)

    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(x.double(), y)
    assert ours.weight[0].numpy() == pytest.approx(theirs.coef_, abs=1e-5)


def test_small_directions_count_with_fewer_pictures_than_features():
    """What tells the classes apart may be a millionth of the rest: the span of the pictures is
    found in float64, where float32 would lose it among its own errors."""
    torch.manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 300, dtype=torch.float64)
    x[:, :20] *= 1e3
    x[:, 20:] *= 1e-4
    x[:, -1] = 1e-3 * (2 * y - 1)

    ours = fit(x, y, 2, [1e9], tolerance=1e-10)

    theirs = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False).Vh  # (40, 300)
    outside = ours.weight[0] - ours.weight[0] @ theirs.T @ theirs
    assert ours.gradient.item() == pytest.approx(
        gradient(x, y, 1e9, ours.weight[0], ours.bias[0]), rel=0.02, abs=1e-12
    )
    assert outside.norm() < 1e-9 * ours.weight.norm()
    assert (ours.logits(x)[0].argmax(dim=1) == y).all()


def test_too_many_directions_are_taken_as_they_are(digits, monkeypatch):
    """Beyond a size, finding axes is not worth it; the solution is the same."""
    x, y = digits[0].x[:200], digits[0].y[:200]
    turned = fit(x, y, 10, [0.1, 10.0], tolerance=1e-8)
    monkeypatch.setattr(logistic, "WIDEST", 16)

    plain = fit(x, y, 10, [0.1, 10.0], tolerance=1e-8)

    assert Axes.of(x[None]).basis is None
    assert plain.converged.all()
    assert torch.allclose(plain.weight, turned.weight, atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=torch.full((4, 2), torch.nan)), "4 of 4 pictures"),
        (dict(y=torch.tensor([0, 1, 2, 5])), "there are 3 classes"),
        (dict(y=torch.tensor([0, 1])), "do not match"),
        (dict(x=torch.zeros(0, 2), y=torch.zeros(0, dtype=torch.long)), "do not match"),
        (dict(strengths=[1.0, 0.0]), "positive"),
        (dict(strengths=[]), "positive"),
    ],
)
def test_what_has_no_meaning_is_refused(change, message):
    """Before any step, in words."""
    torch.manual_seed(0)
    good = dict(x=torch.randn(4, 2), y=torch.tensor([0, 1, 2, 0]), classes=3, strengths=[1.0])

    with pytest.raises(ValueError, match=message):
        fit(**{**good, **change})
