import pytest

from vcr_zoo.bench.depth import bench

SMALL = dict(model="test_resnet", pictures=32, size=32, batch_size=16, epochs=2)


@pytest.fixture(scope="module")
def found():
    return bench(**SMALL)


def test_keeping_activations_changes_no_result(found):
    assert found["largest_gap"] < 1e-4


def test_the_search_is_part_of_the_sweep(found):
    """Its seconds are those of the depths that it looks at."""
    assert found["depths"] == 5
    assert 0 < found["search_seconds"] <= found["cached_seconds"]
    assert found["search_ratio"] == pytest.approx(found["search_seconds"] / found["seconds"])
    assert set(found["searched"].split(", ")) <= set("01234")
