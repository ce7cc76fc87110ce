import subprocess
import sys

import pytest
import timm
import torch
from timm.models import save_for_hf

from vcr_zoo.features import load_model
from vcr_zoo.transfer.concat import concat, normalize


def network(name="test_resnet", seed=0, **overlay):
    torch.manual_seed(seed)
    overlay = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, **overlay}
    return timm.create_model(name, num_classes=4, pretrained_cfg_overlay=overlay).eval()


def pooled(model, x):
    with torch.no_grad():
        return model.forward_head(model.forward_features(x), pre_logits=True)


@pytest.fixture
def pictures():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_are_those_of_every_network_side_by_side(pictures):
    """Also of different architectures and widths, in the order given."""
    models = [network(), network("test_efficientnet"), network(seed=1)]

    joined = pooled(concat(models), pictures)

    assert torch.allclose(joined, torch.cat([pooled(m, pictures) for m in models], 1), atol=1e-6)


def test_every_network_gets_pictures_as_it_was_trained(pictures):
    """Prepared for the first, they are prepared anew for one of other statistics and size."""
    first, second = network(), network(seed=1, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.2))
    half = network(seed=2, input_size=(3, 16, 16))
    one, other = first.pretrained_cfg, second.pretrained_cfg
    raw = pictures * torch.tensor(one["std"]).view(3, 1, 1) + torch.tensor(one["mean"]).view(
        3, 1, 1
    )
    own = (raw - torch.tensor(other["mean"]).view(3, 1, 1)) / torch.tensor(other["std"]).view(
        3, 1, 1
    )
    small = torch.nn.functional.interpolate(pictures, (16, 16), mode="bilinear", antialias=True)

    found = pooled(concat([first, second, half]), pictures).split([96, 96, 96], dim=1)

    assert torch.allclose(found[0], pooled(first, pictures), atol=1e-6)
    assert torch.allclose(found[1], pooled(second, own), atol=1e-5)
    assert torch.allclose(found[2], pooled(half, small), atol=1e-5)


@pytest.mark.parametrize("per", ["network", "feature"])
def test_normalizing_brings_networks_to_one_scale(pictures, per):
    """Zero mean and unit mean square for each, in the numbers returned and in the module itself;
    doing it again changes nothing."""
    joined = concat([network(), network("test_efficientnet", seed=1)])

    given = normalize(joined, pooled(joined, pictures), per)

    for x in (given, pooled(joined, pictures), normalize(joined, given, per)):
        assert torch.allclose(x, given, atol=1e-4)
    for part in given.split(joined.widths, dim=1):
        assert part.mean(dim=0).abs().max() < 1e-4
        varying = part.std(dim=0) > 0 if per == "feature" else slice(None)
        assert part[:, varying].square().mean() == pytest.approx(1, rel=1e-3)


def test_per_network_keeps_each_networks_shape(pictures):
    """One number for each network: its features are only shifted and scaled together."""
    joined = concat([network(), network(seed=1)])
    before = pooled(joined, pictures)

    after = normalize(joined, before, "network")

    for b, a in zip(before.split(joined.widths, 1), after.split(joined.widths, 1), strict=True):
        ratio = (a - a.mean(0)).norm() / (b - b.mean(0)).norm()
        assert torch.allclose(a - a.mean(0), (b - b.mean(0)) * ratio, atol=1e-4)


def test_saved_it_is_an_ordinary_local_dir(pictures, tmp_path):
    """timm builds and loads it by its name in a process that only imports vcr_zoo."""
    joined = concat([network(), network("test_efficientnet", seed=1, mean=(0.1, 0.2, 0.3))])
    normalize(joined, pooled(joined, pictures))
    expected = joined(pictures)
    save_for_hf(joined, tmp_path / "joined", safe_serialization=True)
    torch.save(pictures, tmp_path / "pictures.pt")
    code = (
        "import timm, torch, vcr_zoo, sys; folder = sys.argv[1]\n"
        "model = timm.create_model(f'local-dir:{folder}/joined', pretrained=True).eval()\n"
        "torch.save(model(torch.load(f'{folder}/pictures.pt')).detach(), f'{folder}/out.pt')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True)

    assert torch.allclose(torch.load(tmp_path / "out.pt"), expected, atol=1e-6)
    again = load_model(tmp_path / "joined")
    assert again.pretrained_cfg["input_size"] == (3, 32, 32)
    assert [type(p).__name__ for p in again.parts] == ["ResNet", "EfficientNet"]


def test_loaded_with_classes_it_gets_a_head(pictures, tmp_path):
    """As every timm network does: a new head over the same features."""
    joined = concat([network(), network(seed=1)])
    save_for_hf(joined, tmp_path, safe_serialization=True)

    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7).eval()

    assert model(pictures).shape == (6, 7)
    assert torch.allclose(pooled(model, pictures), pooled(joined, pictures), atol=1e-6)


def test_it_trains_like_a_network(pictures):
    """Gradients reach every network, also with activations recomputed."""
    joined = concat([network(), network(seed=1)])
    joined.reset_classifier(3)
    joined.set_grad_checkpointing()

    joined(pictures).square().sum().backward()

    assert all(part.conv1[0].weight.grad.abs().sum() > 0 for part in joined.parts)


def test_what_cannot_be_joined_is_refused():
    """In words, before anything is computed."""
    gray = timm.create_model("test_resnet", in_chans=1)
    with pytest.raises(ValueError, match="two networks or more, not 1"):
        concat([network()])
    with pytest.raises(ValueError, match=r"\[1, 3\] channels"):
        concat([network(), gray])
    with pytest.raises(TypeError, match="Linear was not built by timm"):
        concat([torch.nn.Linear(2, 2), network()])
    with pytest.raises(ValueError, match="width 5 for 192"):
        normalize(concat([network(), network()]), torch.zeros(3, 5))
