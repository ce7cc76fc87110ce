"""The tables of what VCR adds to a step."""

from vcr_zoo.bench.step import bench
from vcr_zoo.card.overhead import ALSO, ARMS, overhead_table
from vcr_zoo.results import Result, read


def process(seed: int, **settings) -> list[Result]:
    """What one process measures, of round numbers."""
    ratios = {"sampled": 1.0 + seed / 100, "exact": 1.2, "naive": 2.0, "batchnorm": 1.1}
    found = {("ratio", arm): value for arm, value in ratios.items()}
    found |= {key: 1.0 + seed for key in ALSO}
    return [
        Result("net", "net, 32 px", "bench step", metric, value, seed, {"arm": arm, **settings})
        for (metric, arm), value in found.items()
    ]


def test_a_line_is_the_mean_over_processes_with_its_interval():
    results = [r for seed in range(5) for r in process(seed)]
    *_, line = overhead_table(results).splitlines()
    label, default, exact, *_ = (cell.strip() for cell in line.strip("|").split("|"))

    half = 2.776 * 0.0158114 / 5**0.5  # Student's, of four degrees of freedom
    assert (label, exact) == ("net, 32 px", "1.20 [1.20, 1.20]")
    assert default == f"1.02 [{1.02 - half:.2f}, {1.02 + half:.2f}]"
    assert overhead_table(results, also=True).splitlines()[-1].endswith("| 3.000 " * 4 + "|")


def test_four_processes_and_variants_are_no_line():
    few = [r for seed in range(4) for r in process(seed)]
    others = [r for seed in range(5) for r in process(seed, variant="relative")]

    assert overhead_table([*few, *others]) == "(None yet.)"


def test_what_the_benchmark_writes_fills_the_longer_table(tmp_path):
    path = tmp_path / "steps.jsonl"
    for seed in range(5):
        bench("test_resnet", size=32, batch=4, repeats=1, seed=seed, results=path)
    cells = overhead_table(read(path), also=True).splitlines()[-1].strip("|").split("|")

    assert cells[0].strip() == "test_resnet, 32 px, batch 4"
    assert len(cells) == 1 + len(ARMS) + len(ALSO) and all(cell.strip() for cell in cells)
    assert 0 < float(cells[-2]) < float(cells[-1]) <= 1
