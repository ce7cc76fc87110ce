"""The table of settings that validation chose, from made numbers."""

from statistics import fmean

import pytest

from vcr_zoo.card.book import add_file
from vcr_zoo.card.chosen import CHOSEN, OTHER, chosen_table
from vcr_zoo.results import Result, append, paired, read

GAINS = (0.01, 0.02, 0.03)


def result(value, seed, setting="", data="mnist", options="--epochs 4", **more):
    settings = {"setting": setting, "options": options, **more}
    return Result("test_resnet.base_fmnist4", data, CHOSEN, OTHER, value, seed, settings)


def study(space, setting, gain=0.0, options="--epochs 4"):
    """Three seeds on four data sets, of which two gain twice as much."""
    about = (
        {"space": space, "recipes": "test_resnet.base_fmnist4", "options": options} if space else {}
    )
    about.setdefault("options", options)
    return [
        result(0.5 + (gain + each) * times * bool(space), seed, setting, data, **about)
        for seed, each in enumerate(GAINS)
        for data, times in (("mnist", 1), ("glyphs", 2), ("silhouettes", 1), ("digits8", 2))
    ]


def test_gains_are_over_the_same_training_without_the_setting():
    """Recipes as they stand, trained otherwise, are another control."""
    long = [result(0.9, seed, data="mnist", options="") for seed in range(3)]
    found = [*long, *study("", ""), *study("vcr", "--vcr-alpha 1.0")]
    _, _, line = chosen_table(found).splitlines()

    expected = paired(fmean((gain, 2 * gain)) for gain in GAINS).scaled(100)
    assert line.startswith("| `test_resnet.base_fmnist4 --epochs 4` | VCR: weights, placement")
    assert f"| `alpha 1.0` | | | {expected} | 3 |" in line
    assert chosen_table([*long, *study("vcr", "--vcr-alpha 1.0")]) == "(None yet.)"
    assert chosen_table([r for r in found if r.data != "digits8"]) == "(None yet.)"  # of all four


def test_of_one_training_the_largest_gain_comes_first():
    small, large = study("decov", "--vcr-beta 1.0"), study("vcr", "--vcr-alpha 1.0", gain=0.1)
    other = study("control", "--drop 0.1", gain=0.3, options="--epochs 9")
    start = study("", "") + study("", "", options="--epochs 9")
    lines = chosen_table([*start, *small, *other, *large]).splitlines()[2:]

    assert [line.split("|")[1].strip() for line in lines] == [
        "`test_resnet.base_fmnist4 --epochs 4`",
        "`test_resnet.base_fmnist4 --epochs 4`",
        "`test_resnet.base_fmnist4 --epochs 9`",
    ]
    assert "VCR" in lines[0] and "DeCov" in lines[1] and "weight decay" in lines[2]


def test_what_was_chosen_is_entered_with_its_options(tmp_path):
    (tmp_path / "cards").mkdir()
    for one in (*study("", ""), *study("vcr", "--vcr-alpha 1.0")):
        append(tmp_path / "chosen.jsonl", one)
    book = tmp_path / "cards" / "results.jsonl"

    assert add_file(tmp_path / "chosen.jsonl", ["test_resnet.base_fmnist4"], book) == 24
    assert chosen_table(read(book)).count("test_resnet.base_fmnist4 --epochs 4") == 1
    assert (
        add_file(tmp_path / "chosen.jsonl", ["test_resnet.base_fmnist4"], book)
        == len(read(book))
        == 24
    )
    with pytest.raises(ValueError, match="of test_vit"):
        add_file(tmp_path / "chosen.jsonl", ["test_vit.base_fmnist4"], book)
