import sys

import pytest
import torch
from torch import nn

from vcr_zoo.transfer.finetune import predict
from vcr_zoo.transfer.lora import LoRA, called
from vcr_zoo.transfer.scores import scores

from .made import pictures
from .tuning import resnet, run_of, small, tuned, vit


@pytest.mark.parametrize("make", [resnet, vit])
def test_what_is_left_is_an_ordinary_network_changed_by_low_rank(make, tmp_path):
    """Only heads and blocks' matrices move, those by the rank at most; no statistics either."""
    pytest.importorskip("peft")
    model = make()
    found = tuned(LoRA(rank=2), model, small(lr=1e-2), folder=tmp_path).model
    before, after = model.state_dict(), found.state_dict()

    assert before.keys() == after.keys()
    moved = {
        name: after[name] - value
        for name, value in before.items()
        if not name.startswith(("fc", "head")) and not torch.equal(after[name], value)
    }
    assert moved and not any(name.endswith("bias") for name in moved)
    ranks = {k: torch.linalg.matrix_rank(v.flatten(1), rtol=1e-3) for k, v in moved.items()}
    assert all(0 < rank <= 2 for rank in ranks.values()), ranks


@pytest.mark.parametrize("name", ["test_nfnet", "test_resnet"])
def test_the_network_that_is_left_is_the_one_that_was_judged(name, caplog):
    """Changes of weights that the layer standardizes first would make another one of it."""
    pytest.importorskip("peft")
    found = tuned(LoRA(rank=2), resnet(name=name), small(lr=1e-2, epochs=3))
    p, y = predict(found.model, pictures("validation", n=30), small())

    kept = found.history[found.epoch]
    assert scores(p, y)["log_loss"] == pytest.approx(kept["log_loss"], abs=1e-5)
    assert ("LoRA leaves" in caplog.text) == (name == "test_nfnet")


def test_weights_that_are_used_without_their_layer_are_left_alone():
    """As EVA's qkv: a change of it would learn nothing."""
    layer = nn.Linear(3, 3)

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.around = nn.Linear(3, 3), layer

        def forward(self, x):
            return nn.functional.linear(self.used(x), self.around.weight)

    model = Around()
    layers = {"used": model.used, "around": layer}
    assert called(model, layers, torch.zeros(1, 3)) == {"used"}
    assert not model.used._forward_hooks


def test_vcr_is_at_the_blocks_that_the_network_had():
    """What LoRA adds looks like a residual block too."""
    pytest.importorskip("peft")
    settings = small(vcr_alpha=1.0, vcr_beta=1.0)
    names = [
        {
            str(place)
            for place in run_of(method, resnet(name="ghostnet_100"), settings).penalties.placements
        }
        for method in (None, LoRA(rank=2))
    ]
    assert names[0] == names[1] and len(names[0]) > 8


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"vcr_zoo\[lora\]"):
        run_of(LoRA())


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rank 0"):
        LoRA(rank=0)
