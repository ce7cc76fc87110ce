from itertools import pairwise

import pytest
import timm
import torch

from vcr_zoo.transfer.frozen import Blocks, activation, tail

from .tuning import SIZE, resnet, vit

NETWORKS = {"resnet": resnet, "vit": vit}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_frozen_parameters_are_those_before_the_block(make):
    """Each depth freezes more, the last block leaves what follows, and one more the head alone."""
    model = make()
    blocks = Blocks(model, SIZE)
    parts = [blocks.frozen(t).parameters for t in range(blocks.head + 1)]
    head = {name for name, _ in model.named_parameters() if name.startswith(blocks.classifier)}

    assert not parts[0] and all(a < b for a, b in pairwise(parts[:-1]))
    assert parts[-2] <= parts[-1]
    assert parts[-1] == {name for name, _ in model.named_parameters()} - head


def test_what_a_network_holds_itself_is_frozen_with_its_first_block():
    """Class token and position embedding belong to no module that could be hooked."""
    part = Blocks(vit(), SIZE).frozen(1)

    assert {"pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= part.parameters
    assert "blocks.1.attn.qkv.weight" not in part.parameters
    assert {"patch_embed.proj", "blocks.0"} <= part.modules and "blocks" not in part.modules


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_tail_gives_the_network_s_logits_and_gradients(make):
    """From the activation at a depth, whatever the size of the batch."""
    model = make()
    blocks = Blocks(model, SIZE)
    for t in (1, len(blocks) - 1, len(blocks), blocks.head):
        x = torch.randn(3, *SIZE)
        rest = tail(model, blocks, t, x[:2])
        rows = activation(model, blocks, t, x).detach()

        assert torch.allclose(rest(rows), model(x), atol=1e-6)
        (ours,) = torch.autograd.grad(rest(rows).square().sum(), model.get_classifier().weight)
        (whole,) = torch.autograd.grad(model(x).square().sum(), model.get_classifier().weight)
        assert torch.allclose(ours, whole, rtol=1e-4, atol=1e-6)


def test_a_network_that_cannot_be_cut_is_not_cut():
    """Dense connections reach over the block: its output is not all that the rest needs."""
    model = timm.create_model("densenet121", num_classes=2).eval()
    blocks = Blocks(model, (3, 32, 32))

    assert tail(model, blocks, 5, torch.randn(2, 3, 32, 32)) is None


def test_a_depth_beyond_the_network_is_refused_with_its_blocks():
    with pytest.raises(LookupError, match=r"depth 9 .* 4 blocks.*layer1.0, layer2.0"):
        Blocks(resnet(), SIZE).frozen(9)


def test_a_model_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="no classifier"):
        Blocks(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), SIZE)
