import pytest
import torch
import torch.nn.functional as F

from vcr_zoo.features import features
from vcr_zoo.transfer.delta import Delta
from vcr_zoo.transfer.method import Batch

from .made import pictures
from .tuning import run_of, small, tuned, vit


def test_at_the_start_nothing_is_added():
    """The features are the pretrained ones, in evaluation mode to the bit."""
    run = run_of(Delta(strength=100.0), settings=small(smoothing=0.0))
    x, y = next(iter(run.train.epoch(0)))
    run.model.eval()
    logits = run.model(x)
    loss = run.method.loss(run, Batch(x, y, None, logits))

    assert loss.item() == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)


def test_channel_weights_sum_to_one_and_favor_the_useful():
    run = run_of(Delta(), settings=small(augment=False))
    run.method.weigh(run)
    weights = list(run.method._weights.values())

    assert all(w.sum().item() == pytest.approx(1) for w in weights)
    assert all(w.std() > 0 for w in weights)


def test_weights_are_the_softmax_of_what_removing_a_channel_costs():
    """The derivative agrees in sign with really scaling the channel down a little."""
    run = run_of(Delta(), settings=small(augment=False, batch_size=60))
    run.method.weigh(run)
    weight = run.method._weights["layer4.0"]
    best, worst = int(weight.argmax()), int(weight.argmin())
    x, y = next(iter(run.train.epoch(0)))
    run.model.eval()

    def loss(channel):
        scale = torch.ones(96)
        scale[channel] = 0.99
        handle = run.model.layer4[0].register_forward_hook(
            lambda m, i, out: out * scale[:, None, None]
        )
        with torch.no_grad():
            value = F.cross_entropy(run.model(x), y).item()
        handle.remove()
        return value

    assert loss(best) > loss(worst)


def test_a_strong_penalty_keeps_features_near_the_pretrained_ones():
    """Without batch norm, whose statistics of the batch are others than the pretrained ones."""
    model, images = vit(), pictures("train")
    settings = small(epochs=3, opt="sgd", lr=0.005, augment=False)
    before = features(model, images, placement="stages").x

    def moved(strength):
        found = tuned(Delta(strength, attention=False), model, settings).model
        return (features(found, images, placement="stages").x - before).square().mean()

    assert moved(30.0) < 0.7 * moved(0.0)


def test_it_leaves_no_hooks():
    assert not any(m._forward_hooks for m in tuned(Delta()).model.modules())


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Delta(-1.0)
