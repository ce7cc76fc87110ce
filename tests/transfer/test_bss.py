import pytest
import torch

from vcr_zoo.transfer.bss import BSS, smallest

from .tuning import tuned


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


def test_it_trains():
    assert len(tuned(BSS()).history) == 2


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="k 0"):
        BSS(k=0)
