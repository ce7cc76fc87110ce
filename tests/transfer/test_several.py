from dataclasses import replace

import pytest
import timm
import torch

from vcr_zoo.features import load_model
from vcr_zoo.results import paired
from vcr_zoo.transfer import several as module
from vcr_zoo.transfer.several import Arm, over_seeds, records, report, run, several

from .made import network, pictures


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(module, "load", lambda name, split, level: pictures(split, level))
    monkeypatch.setattr(module, "load_test", lambda name, level: pictures("test", level))


def test_every_control_is_beside_the_joined_network(data, tmp_path):
    """One short run, averaged logits, all features and one long run; CKA of every pair."""
    nets = [load_model(network(tmp_path / str(seed), seed)) for seed in range(3)]

    arms, likeness = several(nets[:2], "made", long=nets[2], save=tmp_path / "joined")

    assert set(arms) == {"one short run", "averaged logits", "side by side", "one long run"}
    for one in arms.values():
        assert 0.4 < one.metrics[0]["top1"] <= 1
        assert one.right[0].mean().item() == pytest.approx(one.metrics[0]["top1"])
    assert likeness.shape == (2, 2) and 0 < likeness[0, 1] < 1
    assert f"{likeness[0, 1]:6.3f}" in report(arms, likeness)
    saved = timm.create_model(f"local-dir:{tmp_path / 'joined'}", pretrained=True)
    assert saved.scale.std() > 0  # each network has its own scale


def test_a_folder_that_holds_a_network_is_left_alone(data, tmp_path):
    """Also one of those that are joined."""
    names = [network(tmp_path / str(seed), seed) for seed in range(2)]
    before = (tmp_path / "0" / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="0 holds a network already: choose another --output"):
        run(names, "made", out=tmp_path / "out", save=names[0], level="fine", per="network")
    assert (tmp_path / "0" / "model.safetensors").read_bytes() == before


def test_a_network_joined_with_itself_is_seen_to_be_alike(data, tmp_path):
    """CKA one, and the report says that little is to be expected."""
    net = load_model(network(tmp_path / "net"))

    arms, likeness = several([net, net], "made")

    assert likeness[0, 1] == pytest.approx(1)
    assert "alike" in report(arms, likeness)
    assert arms["averaged logits"].metrics[0]["top1"] == arms["one short run"].metrics[0]["top1"]


@pytest.mark.parametrize("per", ["network", "feature"])
def test_every_arm_is_on_the_same_scale(data, tmp_path, monkeypatch, per):
    """The long run is normalized as the short ones are: a network that plays both parts, and whose
    features are a thousand times larger than the other's, gives the same numbers in both."""
    nets = [load_model(network(tmp_path / str(seed), seed)) for seed in range(2)]
    plain = module.features

    def features(model, images, **options):
        found = plain(model, images, **options)
        if model is nets[1]:
            return replace(found, x=1000 * found.x)
        return found

    monkeypatch.setattr(module, "features", features)
    arms, _ = several([nets[1], nets[1]], "made", long=nets[1], per=per)

    short, long = arms["one short run"].metrics[0], arms["one long run"].metrics[0]
    assert short == pytest.approx(long, abs=1e-4)


def test_gains_over_seeds_are_paired():
    """The mean difference with Student's interval, of pairs of one seed."""
    right = [torch.tensor([1.0, 0.0]).double(), torch.ones(2).double()]

    def once(joined, short, picture):
        metrics = [{"top1": v, "per_class": v, "log_loss": 1.0} for v in (joined, short)]
        arms = {
            "one short run": Arm(metrics[1:], [right[0]]),
            "side by side": Arm(metrics[:1], [picture]),
        }
        return arms, torch.eye(2)

    arms, likeness = over_seeds([once(0.9, 0.8, right[1]), once(0.7, 0.5, right[1])])

    gain = paired([0.1, 0.2]).scaled(100)
    (line,) = (line for line in report(arms, likeness).splitlines() if "one network" in line)
    assert line.endswith(str(gain)) and " 65.00" in line
    assert "+50.00 [" in line  # of the two pictures, one is won


def test_every_number_is_recorded_with_its_arm(data, tmp_path):
    nets = [load_model(network(tmp_path / str(seed), seed)) for seed in range(3)]
    arms, _ = several(nets[:2], "made", long=nets[2])
    settings = {"per": "network", "level": "fine"}

    found = records(arms, ["a", "b"], nets[:2], "made", settings, long=("c", nets[2]), seed=4)

    assert len(found) == 4 * 4 and len({result.cell() for result in found}) == len(found)
    assert {r.model for r in found if r.settings["arm"] == "one long run"} == {"c"}
    assert {r.model for r in found if r.settings["arm"] != "one long run"} == {"a + b"}
    (joined,) = (r for r in found if (r.settings["arm"], r.metric) == ("side by side", "top1"))
    assert joined.value == arms["side by side"].metrics[0]["top1"] and joined.seed == 4
