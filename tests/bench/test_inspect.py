"""The benchmark of diagnostics counts what it says; timings themselves are not asserted."""

from vcr_zoo.bench.inspect import bench


def test_it_says_what_the_diagnostics_add_and_to_what():
    found = bench(model="test_resnet", pictures=20, size=160, batch_size=10, repeats=1)

    assert found["placements"] == 5 and found["pictures"] == 20
    assert found["forward_seconds"] > 0 and found["numbers_seconds"] > 0
    assert found["ratio_10000"] < found["ratio"]
