"""How many pairs gain is counted from their intervals."""

import re
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from scipy import stats

from vcr_zoo import card, zoo
from vcr_zoo.card.evidence import CARDS
from vcr_zoo.card.tally import counted, tally
from vcr_zoo.results import Interval, paired, read

OTHERS = {
    "fmnist": ("mnist", "silhouettes", "glyphs", "digits8"),
    "openart": ("stamps", "furniture", "textures", "fluent"),
}


def probes(name: str, command: str) -> dict[int, float]:
    """Of every seed the mean over the other sets, from the file of results itself."""
    source = "openart" if "openart" in name else "fmnist"
    rows = (r for r in read(CARDS / "results.jsonl") if r.command.startswith(command))
    found: dict[int, dict[str, float]] = {}
    for r in rows:
        if (r.model, r.protocol, r.metric) == (name, "probe", "top1"):
            found.setdefault(r.seed, {})[r.data] = r.value
    return {seed: fmean(values[d] for d in OTHERS[source]) for seed, values in found.items()}


def test_what_the_table_comes_to_is_what_a_t_test_says():
    """Of three pairs, with intervals and corrected p values of scipy's."""
    names = ["test_resnet.vcr_fmnist4", "test_vit.vcr_fmnist4", "test_resnet.vcr_vicreg_openart"]
    gaining, surely, above = [], [], 0
    for name in names:
        control = zoo.manifest()[name].control
        ours, theirs = (probes(one, "vcr-zoo pair") for one in (name, control))
        test = stats.ttest_rel([ours[s] for s in range(5)], [theirs[s] for s in range(5)])
        gaining += [name] if test.statistic > 0 and test.pvalue < 0.05 else []
        surely += [name] if test.statistic > 0 and test.pvalue < 0.05 / 3 else []
        ours, theirs = (probes(one, "vcr-zoo reproduce") for one in (name, control))
        above += ours[0] > theirs[0]
    whole, corrected, offered, files, *shots = tally(map(card.evidence, names)).splitlines()[2:]

    assert re.findall(r"`(.+?)`", whole) == gaining and f"{len(names)} pairs" in whole
    assert re.findall(r"`(.+?)`", corrected) == surely
    assert "the 1 trained with `--vcr` | 0 | 0 |" in offered  # the second
    assert len(shots) == 4 and all(line.startswith("| 5 pictures") for line in shots)
    assert files.endswith(f"| {above} | {len(names) - above} |")
    assert whole.endswith("| 0 |")  # none loses


def test_pairs_of_few_seeds_and_files_not_measured_are_told():
    """The first do not count; of the second a command is named."""
    found = card.evidence("test_resnet.vcr_fmnist4")
    fewer = replace(found, results=tuple(r for r in found.results if r.seed != 4))
    assert "whole intervals, 0 pairs | 0 | 0 |" in tally([fewer])
    kept = (r for r in found.results if "reproduce" not in r.command or r.data != "glyphs")
    with pytest.raises(ValueError, match=r"has no probe of glyphs: `vcr-zoo reproduce test_resnet"):
        tally([replace(found, results=tuple(kept))])


def test_losses_are_counted_as_well_as_gains():
    found = {"a": Interval(1, 0.5, 1.5, 5), "b": Interval(-1, -2, -0.1, 5), "c": paired([1])}
    assert counted(found) == ["1: `a`", "1: `b`"] and counted({"c": paired([-1, 1])}) == ["0", "0"]


@pytest.mark.parametrize("number", [1, 3, 14])
def test_intervals_that_hold_together_are_bonferronis(number):
    values = [0.3, 1.2, -0.1, 0.8, 0.9]
    low, high = stats.t.interval(1 - 0.05 / number, 4, fmean(values), stdev(values) / 5**0.5)
    assert paired(values).among(number) == pytest.approx((fmean(values), low, high, 5))
    assert counted({"one": paired([2.0]).among(number)}) == ["0", "0"]  # it has no bounds
