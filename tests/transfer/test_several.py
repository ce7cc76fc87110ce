import pytest
import timm

from vcr_zoo.features import load_model
from vcr_zoo.transfer import several as module
from vcr_zoo.transfer.several import report, several

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
    assert all(0.4 < metrics["top1"] <= 1 for metrics in arms.values())
    assert likeness.shape == (2, 2) and 0 < likeness[0, 1] < 1
    assert f"{likeness[0, 1]:6.3f}" in report(arms, likeness)
    saved = timm.create_model(f"local-dir:{tmp_path / 'joined'}", pretrained=True)
    assert saved.scale.std() > 0  # each network has its own scale


def test_a_network_joined_with_itself_is_seen_to_be_alike(data, tmp_path):
    """CKA one, and the report says that little is to be expected."""
    net = load_model(network(tmp_path / "net"))

    arms, likeness = several([net, net], "made")

    assert likeness[0, 1] == pytest.approx(1)
    assert "alike" in report(arms, likeness)
    assert arms["averaged logits"]["top1"] == arms["one short run"]["top1"]
