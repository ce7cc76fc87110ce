import json

import numpy as np
import pytest
import torch

from vcr_zoo.cli import main
from vcr_zoo.data import Images
from vcr_zoo.diagnostics import starvation
from vcr_zoo.diagnostics.starvation import EASY, HARD, Network, experiment, moons, pairs, ranking
from vcr_zoo.results import read


def clothes(n=80):
    """Four classes of blobs, named as the toy wants them."""
    generator = np.random.default_rng(0)
    y = np.arange(n) % 4
    x = generator.integers(0, 60, (n, 8, 8, 1)) + 45 * y[:, None, None, None]
    names = (*EASY, *HARD)
    return Images(
        x.astype(np.uint8), y, names, y.astype(str), name="made", split="t", fingerprint="made"
    )


def test_height_alone_parts_the_moons_and_place_alone_does_not():
    """What makes the easy feature easy."""
    toy = moons()
    place, height = toy.x[:, 0, 0], toy.x[:, 1, 0]
    zero, one = toy.y < 0.5, toy.y > 0.5

    assert height[zero].min() > height[one].max()
    assert place[zero].max() > place[one].min()


def test_pairs_show_one_class_on_both_sides():
    images = clothes()
    toy = pairs(images, n=40)
    pixels = toy.x * 0.35 + 0.3  # back to [0, 1]
    shade = (pixels.mean(dim=2) * 255 - 30) / 45  # about the class number

    assert torch.equal(shade.round().long(), torch.stack([toy.y, toy.y + 2], dim=1).long())
    with pytest.raises(ValueError, match="no class 'trouser'"):
        images.classes = ("a", "b", "c", "d")
        pairs(images)


def test_a_feature_drawn_anew_tells_nothing():
    toy = moons(2000)
    anew = toy.without(1, seed=0)

    assert torch.equal(anew[:, 0], toy.x[:, 0])
    assert abs(np.corrcoef(anew[:, 1, 0], toy.y)[0, 1]) < 0.06
    assert toy.held(1)[:, 1].std() == 0


def test_ranking_is_the_area_under_the_curve():
    """scikit-learn's."""
    from sklearn.metrics import roc_auc_score

    toy = moons(100, gap=-1.0)
    torch.manual_seed(0)
    network = Network(2).eval()
    with torch.no_grad():
        expected = roc_auc_score(toy.y, network(toy.x)[0])

    assert ranking(network, toy.x, toy.y) == pytest.approx(expected)


def test_without_weights_nothing_is_regularized():
    torch.manual_seed(0)
    x = torch.randn(8, 2, 1)
    _, none = Network(2).train()(x)
    _, some = Network(2, beta=1.0).train()(x)

    assert none == 0 and some > 0


def test_the_covariance_term_makes_the_moons_use_both_coordinates():
    """The claim of the paper's toy: place counts for more with VCR, in every run."""
    found = experiment(moons(), moons(seed=1), 0.0, 10.0, runs=2, steps=400)
    what = "horizontal place, the other drawn anew"

    for control, vcr in zip(*(found.values[arm][what] for arm in ("control", "vcr")), strict=True):
        assert vcr > control + 0.05
    assert min(found.values["vcr"]["both features"]) > 0.99
    late, early = (found.toy.names[i] for i in (found.toy.late, 1 - found.toy.late))
    control = found.values["control"]
    for way in ("the other drawn anew", "the other held"):
        assert max(control[f"{late}, {way}"]) < min(control[f"{early}, {way}"])


def test_the_command_leaves_numbers_and_a_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(starvation, "load", lambda data, split: clothes())
    monkeypatch.setattr(starvation, "STEPS", 20)

    assert main(["starvation", "--out", str(tmp_path), "--runs", "2"]) == 0

    assert "VCR - control" in capsys.readouterr().out
    assert (tmp_path / "starvation.png").exists() and (tmp_path / "starvation.md").exists()
    record = json.loads((tmp_path / "starvation.json").read_text())
    assert len(record["moons"]["vcr"]["both features"]) == 2
    rows = read(tmp_path / "starvation.jsonl")
    assert len(rows) == len({r.cell() for r in rows}) == 2 * 2 * 2 * 2
    assert {r.data for r in rows} == {"moons: horizontal place", "pairs: pullover or coat"}
    for row in rows:
        (toy, feature), settings = row.data.split(": "), row.settings
        by = record[toy][settings["arm"]][f"{feature}, the other {settings['other']}"]
        assert row.value == by[row.seed] and row.command.endswith("--data fmnist")
    assert main(["starvation", "--out", str(tmp_path), "--runs", "0"]) == 2
    assert "runs=0" in capsys.readouterr().err
