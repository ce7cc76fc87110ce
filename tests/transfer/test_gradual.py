import pytest

from vcr_zoo.transfer.gradual import Gradual

from .tuning import small, tuned


@pytest.mark.parametrize(
    "every, depths", [(1, [5, 4, 3, 2, 1, 0, 0, 0]), (None, [5, 4, 3, 2, 0, 0, 0, 0])]
)
def test_blocks_join_from_the_last_to_the_first(every, depths):
    """After one epoch of the head alone; all have joined by half of the rest if not told."""
    found = tuned(Gradual(every), settings=small(epochs=8, head_epochs=1))

    assert [row["frozen"] for row in found.history] == depths


def test_less_than_an_epoch_is_refused():
    with pytest.raises(ValueError, match="every 0"):
        Gradual(0)
