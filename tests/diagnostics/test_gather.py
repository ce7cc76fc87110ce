import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder

from vcr_zoo.diagnostics.gather import gather, rows, tapped
from vcr_zoo.features import features

from .made import network, pictures


@pytest.fixture(scope="module")
def resnet():
    return network()


def test_pooled_moments_are_those_of_the_features(resnet):
    """What streams past is what `features` keeps."""
    images = pictures(50)
    found = gather(resnet, images, batch_size=16, sample=20)
    x = features(resnet, images).x.double()
    m = found.parts["pooled"].whole()

    np.testing.assert_allclose(m.mean, x.mean(dim=0), atol=1e-6)
    np.testing.assert_allclose(m.covariance, np.cov(x.numpy(), rowvar=False), atol=1e-6)
    assert m.n == 50 and m.count.tolist() == [17, 17, 16]


def test_the_sample_holds_the_rows_at_its_indices(resnet):
    images = pictures(50)
    found = gather(resnet, images, batch_size=16, sample=20)
    x = features(resnet, images)

    assert len(found.indices) == 20 and (found.indices.diff() > 0).all()
    torch.testing.assert_close(found.sample["pooled"], x.x[found.indices], atol=1e-5, rtol=1e-4)
    assert torch.equal(found.y, x.y[found.indices])


def test_blocks_are_the_mean_over_positions(resnet):
    """As `features` gives them, at every block, in the order of the forward pass."""
    images = pictures(20)
    found = gather(resnet, images, layers="blocks", sample=20)
    together = features(resnet, images, placement="blocks").x
    ours = torch.cat(list(found.sample.values()), dim=1)

    torch.testing.assert_close(ours, together, atol=1e-5, rtol=1e-4)
    assert list(found.parts) == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]


@pytest.mark.parametrize("name, last", [("test_vit", "blocks"), ("test_convnext", "stages")])
def test_any_architecture_is_measured_at_blocks_and_pooled(name, last):
    """Tokens and maps with the channels last as well as first."""
    found = gather(network(name, size=160), pictures(12, size=160), sample=12)

    assert found.last == "pooled"
    assert all(part.whole().n == 12 for part in found.parts.values())
    assert any(place.startswith(last) for place in found.parts)


def test_one_position_of_each_picture_is_one_of_them():
    """Another one for each, so that a batch walks over the map; whatever the axis of features."""
    maps = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    one = rows(maps, 1, "one")

    for b in range(2):
        assert any(torch.equal(one[b], maps[b, :, i, j]) for i in range(4) for j in range(5))
    torch.testing.assert_close(rows(maps.permute(0, 2, 3, 1), 3, "one"), one)
    torch.testing.assert_close(rows(maps, 1, "mean"), maps.mean(dim=(2, 3)))
    positions = rows(torch.arange(20.0).expand(20, 1, 20), 1, "one")
    assert len(positions.unique()) == 20


def test_a_folder_of_pictures_serves_as_well(resnet, tmp_path):
    images = pictures(12)
    for i in range(12):
        place = tmp_path / images.classes[images.y[i]]
        place.mkdir(exist_ok=True)
        images.picture(i).save(place / f"{i:02}.png")
    found = gather(resnet, ImageFolder(tmp_path), sample=5)

    assert found.classes == images.classes
    assert found.parts["pooled"].whole().n == 12


def test_the_network_is_left_as_it_was(resnet):
    resnet.train()
    gather(resnet, pictures(4), sample=2)

    assert resnet.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())
    resnet.eval()


def test_what_cannot_be_gathered_is_refused(resnet):
    with pytest.raises(ValueError, match="no pictures"):
        gather(resnet, pictures(0))
    with pytest.raises(LookupError, match="Closest: layer4"):
        gather(resnet, pictures(4), layers="layr4")
    with pytest.raises(ValueError, match="positions='all'"):
        gather(resnet, pictures(4), positions="all")
    broken = network(seed=1)
    with torch.no_grad():
        broken.layer2[0].conv1.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"features at layer2\.0 are not finite"):
        gather(broken, pictures(4))


def test_a_network_without_a_head_has_its_pooled_features():
    """num_classes=0 is how timm gives features; nothing calls a classifier there."""
    with tapped(network(num_classes=0), "pooled") as embed, torch.inference_mode():
        assert embed(torch.zeros(2, 3, 32, 32))["pooled"].shape == (2, 96)


@pytest.mark.gpu
def test_a_gpu_gathers_what_the_cpu_does():
    """Up to bfloat16, in which a GPU extracts features."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pictures(40)
    here, there = (
        gather(network(), images, sample=8, device=device).parts["pooled"].whole()
        for device in ("cpu", "cuda")
    )

    assert there.products.device.type == "cuda" and there.products.dtype == torch.float64
    torch.testing.assert_close(there.mean.cpu(), here.mean, rtol=0.05, atol=0.02)
