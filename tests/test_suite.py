"""What is measured of every network, against the same thing written out."""

import pytest
import torch
from PIL import Image

from vcr_zoo import suite
from vcr_zoo.data import load, load_test
from vcr_zoo.diagnostics.corruptions import CORRUPTIONS
from vcr_zoo.diagnostics.information import information
from vcr_zoo.features import features, load_model
from vcr_zoo.suite import Job, measured, slow

NETWORK = "test_resnet.base_fmnist4"


def test_information_is_bounded_by_what_the_labels_hold(small_sets):
    (told,) = measured(Job("information", "fmnist"), NETWORK)
    shares = torch.bincount(torch.tensor(load_test("fmnist").y)).double()
    shares = shares[shares > 0] / shares.sum()

    assert told.metric == "nats" and told.settings == {"level": "fine"}
    known = features(load_model(NETWORK), load_test("fmnist"))
    assert told.value == pytest.approx(information(known.x, known.y).mean().item())
    assert told.value <= -(shares * shares.log()).sum().item()


def test_noise_is_added_to_the_pictures_that_the_network_sees(small_sets, monkeypatch):
    """Of a corruption that changes nothing the accuracy is that of the pictures as they are."""
    monkeypatch.setitem(CORRUPTIONS, suite.NOISE, lambda x, level, generator: x)
    model, images = load_model(NETWORK), load_test("fmnist", level="coarse")
    job = Job("noise", "fmnist", "coarse")
    found, lost = measured(job, NETWORK)
    with torch.no_grad():
        scores = model.eval()(pixels(model, images))
    right = (scores.argmax(dim=1) == torch.tensor(images.y)).float().mean().item()

    assert found.value == pytest.approx(right, abs=0.01) and lost.value == 0
    assert (found.metric, lost.metric) == ("top1", "lost") and found.settings["pictures"] == 200
    monkeypatch.setitem(CORRUPTIONS, suite.NOISE, lambda x, level, generator: 0 * x)
    black, lost = measured(job, NETWORK)
    with torch.no_grad():
        one = model(pixels(model, images, black=True)).argmax(dim=1)
    assert len(one.unique()) == 1
    assert black.value == pytest.approx((images.y == one[0].item()).mean(), abs=1e-6)
    assert lost.value == pytest.approx(found.value - black.value)


def pixels(model, images, black=False):
    """Pictures as the network takes them, prepared by torch alone."""
    config = model.pretrained_cfg
    x = torch.tensor(images.x[:]).permute(0, 3, 1, 2).float() / 255 * (not black)
    x = x.expand(-1, 3, -1, -1)
    size = config["input_size"][1:]
    x = torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(config[k]).view(-1, 1, 1) for k in ("mean", "std"))
    return (x - mean) / std


def test_features_of_the_test_part_are_asked(small_sets):
    x = features(load_model(NETWORK), load_test("fmnist")).x
    values = {r.metric: r.value for r in measured(Job("spectrum", "fmnist"), NETWORK)}

    assert values["deviation"] == pytest.approx(x.std(dim=0).mean().item(), rel=1e-5)


def test_what_is_slow_fits_on_many_pictures_whatever_the_table_of_data_sets_says(
    small_sets, tmp_path, monkeypatch
):
    for n in range(16):
        part = "train" if n < 8 else "validation"
        path = tmp_path / "own" / part / f"class{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), 15 * n).save(path)
    own = Job("probe", f"folder/{tmp_path / 'own'}")

    assert not slow(own)
    monkeypatch.setattr(suite, "LARGE", len(load(own.data, "train")) - 1)
    assert slow(own) and slow(own._replace(protocol="knn"))
    monkeypatch.setattr(suite, "LARGE", 100)
    assert not slow(own)
    monkeypatch.setattr(suite, "MANY", 2 * len(load(own.data, "train")) - 1)
    assert slow(own)
    assert not slow(own._replace(protocol="fewshot"))
    assert not slow(own._replace(data="folder/nowhere"))
