import pytest
import torch
import torch.nn.functional as F

from vcr_zoo.transfer.bss import BSS, smallest
from vcr_zoo.transfer.method import Batch

from .tuning import run_of, small, tuned


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
@pytest.mark.parametrize("k", [1, 3])
def test_it_is_the_sum_of_the_smallest_squared_singular_values(shape, k):
    torch.manual_seed(0)
    features = torch.randn(shape)
    expected = torch.linalg.svdvals(features)[-k:].square().sum()

    assert torch.allclose(smallest(features, k), expected, rtol=1e-4)


def test_its_gradient_is_the_derivative():
    torch.manual_seed(0)
    features = torch.randn(5, 4)
    step = 1e-2 * torch.randn(5, 4)
    x = features.clone().requires_grad_()
    smallest(x).backward()
    rise = (smallest(features + step) - smallest(features - step)).item() / 2

    assert (x.grad * step).sum().item() == pytest.approx(rise, rel=0.02)


def test_the_penalty_is_added_to_the_loss():
    run = run_of(BSS(0.3, 2), settings=small(smoothing=0.0))
    features, logits, y = torch.randn(4, 9), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    penalty = torch.linalg.svdvals(features)[-2:].square().sum().item()

    loss = run.method.loss(run, Batch(None, y, features, logits)).item()
    assert loss == pytest.approx(F.cross_entropy(logits, y).item() + 0.3 * penalty, rel=1e-5)


def test_features_that_are_no_numbers_make_a_loss_that_is_none():
    """Which the loop refuses in its own words, or a scaler skips."""
    assert smallest(torch.tensor([[1.0, float("inf")], [0.0, 2.0]])).isnan()
    with pytest.raises(FloatingPointError, match="lower lr"):
        tuned(BSS(), settings=small(opt="sgd", lr=1e20))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="k 0"):
        BSS(k=0)
