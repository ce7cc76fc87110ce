import pytest
import torch

from vcr_zoo.transfer.coarse_to_fine import coarse_to_fine, levels, parents
from vcr_zoo.transfer.probe import probe


def test_parents_come_from_both_labels():
    """The same pictures under both levels say which class lies in which."""
    fine, coarse = torch.tensor([0, 2, 1, 3, 2]), torch.tensor([1, 0, 1, 2, 0])

    assert parents(fine, coarse).tolist() == [1, 1, 0, 2]


def test_levels_that_do_not_nest_are_refused():
    with pytest.raises(ValueError, match="do not lie within"):
        parents(torch.tensor([0, 0]), torch.tensor([0, 1]))


def test_three_accuracies_by_hand():
    """Four pictures: right; wrong sibling; right sibling but wrong family; an only child."""
    family = torch.tensor([0, 0, 1, 1, 2])
    logits = torch.tensor(
        [[5, 1, 0, 0, 0], [1, 5, 0, 0, 0], [2, 1, 9, 0, 0], [0, 0, 0, 0, 9]], dtype=torch.float
    )
    y = torch.tensor([0, 0, 0, 4])

    found, told = levels(logits, y, family)

    assert told.tolist() == [True, False, True]
    assert found["top1"] == 2 / 4
    assert found["coarse_top1"] == 3 / 4
    assert found["within_top1"] == pytest.approx(2 / 3)  # the only child has nothing to tell apart


def test_fine_accuracy_is_the_probes(digits):
    """Knowing the family can only help."""
    family = torch.arange(10) // 5

    found = coarse_to_fine(*digits, family, strengths=(0.1, 10.0))

    assert found["top1"] == probe(*digits, strengths=(0.1, 10.0))["top1"]
    assert found["within_top1"] >= found["top1"]
    assert found["coarse_top1"] >= found["top1"]
