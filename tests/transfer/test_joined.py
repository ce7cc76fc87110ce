import pytest
import timm
import torch

import vcr_zoo  # noqa: F401  (registers vcr_concat)
from vcr_zoo.transfer.finetune import Finetuner
from vcr_zoo.transfer.joined import averaging, naive, two_stage

from .made import pictures
from .tuning import resnet, small


def test_the_joint_head_starts_as_the_mean_of_logits():
    networks = [resnet(0), resnet(1), resnet(2)]
    x = torch.randn(4, 1, 16, 16)
    mean = sum(network(x) for network in networks) / 3

    assert torch.allclose(averaging(networks).eval()(x), mean, atol=1e-6)


def test_every_network_gets_pictures_of_the_size_it_was_tuned_at():
    """Also where its own preparation is of other statistics, and so is made anew for it."""
    networks = [resnet(0), resnet(1)]
    networks[1].pretrained_cfg |= {"mean": (0.5,), "input_size": (1, 16, 16)}
    x = torch.randn(4, 1, 32, 32)
    own = (x * 0.3 + 0.3 - 0.5) / 0.3

    found = averaging(networks, (1, 32, 32)).eval()(x)
    assert torch.allclose(found, (networks[0](x) + networks[1](own)) / 2, atol=1e-6)


def test_two_stages_train_networks_alone_and_then_the_head_alone(tmp_path):
    """The result loads by timm; its networks are those of the first stage."""
    parts = pictures("train"), pictures("validation", n=30)
    found = two_stage(
        [resnet(0), resnet(1)], *parts, small(epochs=1, augment=False), folder=tmp_path
    )

    first = timm.create_model(f"local-dir:{tmp_path / 'network-0'}", pretrained=True)
    ours = found.model.parts[0].state_dict()
    assert all(torch.equal(v, first.state_dict()[k]) for k, v in ours.items())
    assert found.cached and len(found.history) == 2
    x = torch.randn(2, 1, 16, 16)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.allclose(loaded(x), found.model(x), atol=1e-6)


def test_joined_naively_all_of_them_learn():
    train = pictures("train")
    joined = naive([resnet(0), resnet(1)], train)
    found = Finetuner(joined, train, pictures("validation"), None, small(epochs=1)).run().model

    for part, before in zip(found.parts, joined.parts, strict=True):
        assert not torch.equal(part.conv1[0].weight, before.conv1[0].weight)


def test_heads_of_different_classes_are_refused():
    other = resnet(1)
    other.reset_classifier(5)
    with pytest.raises(ValueError, match="different numbers of classes"):
        averaging([resnet(0), other])
