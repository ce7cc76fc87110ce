import pytest
import torch
import torch.nn.functional as F

from vcr_zoo.transfer.l2_sp import L2SP
from vcr_zoo.transfer.method import Batch

from .tuning import resnet, run_of, small, tuned


def test_the_penalty_is_half_the_squared_distance_from_the_start():
    """Of all that was pretrained; and of the head from zero."""
    run = run_of(L2SP(0.3, 0.7), settings=small(weight_decay=0.0, smoothing=0.0))
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    with torch.no_grad():
        for p in run.model.parameters():
            p.add_(torch.randn_like(p))
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])

    old = new = 0.0
    for name, p in run.model.named_parameters():
        if name.startswith("fc"):
            new += p.square().sum().item()
        else:
            old += (p - start[name]).square().sum().item()
    loss = run.method.loss(run, Batch(None, y, None, logits)).item()
    assert loss == pytest.approx(F.cross_entropy(logits, y).item() + 0.15 * old + 0.35 * new)


def test_a_strong_penalty_keeps_the_network_where_it_was():
    """Farther away without it."""

    def distance(strength):
        model = resnet()
        settings = small(opt="sgd", lr=0.05, weight_decay=0.0)
        found = tuned(L2SP(strength), model, settings).model.state_dict()
        return sum((found[k] - v).norm() for k, v in model.named_parameters() if "fc" not in k)

    assert distance(10.0) < 0.5 * distance(0.0)


def test_weight_decay_beside_it_is_refused():
    with pytest.raises(ValueError, match="weight_decay to 0"):
        run_of(L2SP())


def test_negative_strengths_are_refused():
    with pytest.raises(ValueError, match="negative"):
        L2SP(-1.0)
