import math

import pytest
import torch

from vcr_zoo.results import paired, student_quantile
from vcr_zoo.transfer.depth import Depth, Scratch, bar, draw, likeness

from .made import pictures
from .tuning import resnet, run_of, same, small, tuned, vit


@pytest.mark.parametrize("make", [resnet, vit])
@pytest.mark.parametrize("depth", [1, 3])
def test_kept_activations_change_nothing(make, depth):
    """The same views with the frozen part run anew for every batch: equal histories."""
    settings = small(epochs=3, views=2, lr=3e-3, ema=0.5 if depth == 3 else 0.0)
    kept = tuned(Depth(depth), make(), settings)
    anew = tuned(Depth(depth), make(), settings, limit=0)

    assert kept.cached and not anew.cached
    for a, b in zip(kept.history, anew.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["log_loss"] == pytest.approx(b["log_loss"], rel=1e-3)


def test_what_is_frozen_stays_to_the_bit():
    """Weights and batch norm's statistics, without decay; the rest has moved."""
    model = resnet()
    for views in (0, 2):
        found = tuned(Depth(2), model, small(views=views, weight_decay=0.5)).model
        for name, value in model.state_dict().items():
            before = name.startswith(("conv1", "bn1", "layer1", "layer2"))
            if not name.startswith("fc") and value.is_floating_point():
                assert torch.equal(value, found.state_dict()[name]) == before, name


def test_depth_zero_is_full_fine_tuning():
    assert same(tuned(Depth(0)).model, tuned().model)


def test_afresh_what_is_not_frozen_has_other_weights_from_the_start():
    model = resnet()
    run = run_of(Depth(2, afresh=True), model)
    ours, theirs = run.model.state_dict(), model.state_dict()

    assert torch.equal(ours["layer2.0.conv1.weight"], theirs["layer2.0.conv1.weight"])
    assert not torch.equal(ours["layer3.0.conv1.weight"], theirs["layer3.0.conv1.weight"])
    assert not ours["layer3.0.bn1.running_mean"].any()


@pytest.mark.parametrize("make", [resnet, vit])
def test_from_scratch_nothing_of_the_pretrained_network_is_left(make):
    """Networks of other weights end alike to the bit, and every weight learns from the start."""
    ours, theirs = (tuned(Scratch(), make(seed), small(head_epochs=1)) for seed in (0, 1))

    assert same(ours.model, theirs.model)
    assert [row["frozen"] for row in ours.history] == [0, 0]


@pytest.mark.parametrize("depth", [-1, 7])
def test_a_depth_beyond_the_network_is_refused(depth):
    with pytest.raises(LookupError, match="depth"):
        run_of(Depth(depth))


def test_a_network_is_like_itself_and_like_another_less():
    images = pictures("validation")
    mine, other = resnet(0), resnet(1)
    itself = likeness(mine, mine, images, ["layer1.0", "layer4.0"])
    others = likeness(mine, other, images, ["layer1.0", "layer4.0"])

    assert itself["CKA"] == pytest.approx([1, 1])
    assert itself["source to target"] == pytest.approx([2 / 60, 2 / 60])  # nearest is nearest
    assert all(a < b for a, b in zip(others["CKA"], itself["CKA"], strict=True))
    assert all(v > 2 / 60 for v in others["target to source"])


def test_error_bars_are_standard_errors():
    """Those of which Student's quantile makes the interval."""
    values = [0.5, 0.6, 0.8]
    interval = paired(values)

    assert bar(values) == pytest.approx((interval.high - interval.mean) / student_quantile(2))
    assert math.isnan(bar([0.5]))


def test_a_picture_is_drawn_with_and_without_likeness(tmp_path):
    curves = {"50 pictures": {0: [0.5, 0.6], 1: [0.7, 0.6]}, "100 pictures": {0: [0.8], 1: [0.7]}}
    alike = {"CKA": [0.9, float("nan")], "source to target": [0.1, 0.2]}
    for rows in (None, alike):
        draw(curves, {"50 pictures": 1}, ["a", "b"], tmp_path / "x" / "depth.png", rows)
        assert (tmp_path / "x" / "depth.png").stat().st_size > 1000
