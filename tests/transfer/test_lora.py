import sys

import pytest
import torch

from vcr_zoo.transfer.lora import LoRA

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
    ranks = [torch.linalg.matrix_rank(v.flatten(1), rtol=1e-3) for v in moved.values()]
    assert all(1 <= rank <= 2 for rank in ranks if rank > 0) or make is resnet


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"vcr_zoo\[lora\]"):
        run_of(LoRA())


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rank 0"):
        LoRA(rank=0)
