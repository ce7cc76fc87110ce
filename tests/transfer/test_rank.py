import numpy as np
import pytest
import torch
from PIL import Image

from vcr_zoo.cli import main
from vcr_zoo.data import load, load_test, named
from vcr_zoo.results import read
from vcr_zoo.transfer import rank as module
from vcr_zoo.transfer.rank import Standing, drawn, rank, report

from .made import network, pictures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Thirty colour pictures of three classes, in a train part beside a test part."""
    monkeypatch.setenv("VCR_ZOO_CACHE", str(tmp_path / "cache"))
    images = pictures("train")
    for part, indices in (("train", range(30)), ("test", range(30, 36))):
        for i in indices:
            place = tmp_path / "mine" / part / images.classes[images.y[i]]
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.repeat(images.x[i], 3, axis=-1)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "mine"


def test_ranking_ends_with_a_recommendation(folder, tmp_path):
    """Best first by the mean of the places, with every score and what to type next."""
    models = [network(tmp_path / "a", 0), network(tmp_path / "b", 1)]

    standings = rank(models, folder)
    text = report(standings, folder)

    assert sorted(s.model for s in standings) == models
    assert standings[0].place <= standings[1].place
    assert sum(s.place for s in standings) == 3  # places 1 and 2, twice, halved
    assert set(standings[0].scores) == {"logme", "h_score", "leep", "nce"}
    assert f"Start from {standings[0].model}" in text


@pytest.mark.parametrize("part", ["", "train"])
def test_only_the_train_part_is_looked_at(part, folder):
    """Also of a folder without parts: what `transfer` tests on has chosen nothing."""
    seen = module.pictures(folder / part, limit=5000, seed=0)

    name = f"folder/{folder / part}"
    assert sorted(seen.groups) == sorted(load(name, "train").groups)
    others = {*load(name, "validation").groups, *load_test(name).groups}
    assert len(seen) >= 15 and len(others) > 5 and not others.intersection(seen.groups)


def test_a_damaged_picture_is_named(folder, tmp_path):
    broken = next((folder / "train").rglob("*.png"))
    broken.write_bytes(b"no picture")

    with pytest.raises((OSError, ValueError), match=broken.name):
        rank([network(tmp_path / "a")], folder)


def test_limit_draws_pictures(folder, tmp_path):
    """The same ones for every network, and others with another seed."""
    model = network(tmp_path / "a")

    few = rank([model], folder, limit=20, seed=1)[0].scores

    assert few == rank([model], folder, limit=20, seed=1)[0].scores
    assert few != rank([model], folder, limit=20, seed=2)[0].scores


def test_networks_that_the_scores_do_not_order_are_named(folder):
    """With three, the middle one may tie with the winner of one score."""
    standings = [Standing(name, {"logme": 1.0, "h_score": 1.0}, 2.0) for name in "abc"]

    text = report(standings, folder)

    assert "The two disagree: b, c has that mean place" in text
    assert "disagree" not in report([standings[0], standings[1]._replace(place=3.0)], folder)


def test_folders_by_name_are_data_sets(folder, tmp_path):
    """folder/PATH is what `load` calls it, and the probe that is recommended takes that name."""
    models = [network(tmp_path / "a b", 0), network(tmp_path / "c", 1)]

    standings = rank(models, f"folder/{folder}@16")

    advice = report(standings, f"folder/{folder}@16").splitlines()[-1]
    assert f"--data folder/{folder}@16" in advice and "a b'" in advice
    assert f"--data folder/{folder}" in report(standings, folder)


def test_a_folder_is_a_data_set_for_every_command(folder, tmp_path, capsys):
    """By its path, with a size or without one, it is what folder/PATH is."""
    assert named(f"{folder}@16") == f"folder/{folder}@16" and named(folder) == f"folder/{folder}"
    for other in ("fmnist", f"folder/{folder}@16", "no/such/folder", f"{folder}@many", "hfds/a/b"):
        assert named(other) == other

    out, model = tmp_path / "out.jsonl", str(network(tmp_path / "a", 0))
    line = ["transfer", model, "--data", f"{folder}@16", "--protocol", "prototype"]
    assert main([*line, "--output", str(out), "--cache", str(tmp_path)]) == 0
    assert {r.data for r in read(out)} == {f"folder/{folder}@16"}


def test_what_cannot_be_ranked_is_answered(folder, tmp_path):
    with pytest.raises(ValueError, match="no networks"):
        rank([], folder)
    with pytest.raises(LookupError, match=r"no data set 'fmnst', and no folder.*Closest: fmnist"):
        rank([network(tmp_path / "a")], "fmnst")
    with pytest.raises(LookupError, match=r"'fmnist4'.* --data fmnist --level coarse elsewhere"):
        rank([network(tmp_path / "a")], "fmnist4")
    with pytest.raises(ValueError, match="1 pictures of 3 classes tell nothing"):
        rank([network(tmp_path / "a")], folder, limit=1)


def test_pictures_are_drawn_of_each_class_its_share():
    """A class of five among a thousand is there, and the others are not over-represented."""
    y = torch.tensor([2] * 5 + [0] * 600 + [1] * 395)[torch.randperm(1000)]

    chosen = drawn(y, 100, seed=0)

    assert torch.bincount(y[chosen]).tolist() == pytest.approx([59.5, 39.5, 1], abs=1)
    assert chosen.tolist() == sorted(set(chosen.tolist())) != drawn(y, 100, seed=1).tolist()
    assert torch.bincount(y[drawn(y, 3, seed=0)]).tolist() == [1, 1, 1]
    assert drawn(y, 5000, seed=0).tolist() == list(range(1000))
