import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.during import watching
from vcr_zoo.diagnostics.spectrum import correlation, effective_rank, spectrum
from vcr_zoo.placement import find

from .made import network


@pytest.fixture(scope="module")
def resnet():
    return network()


def batches(count=3, size=16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 32, 32, generator=generator) for _ in range(count)]


def test_pooled_numbers_are_those_of_the_features(resnet):
    with torch.inference_mode(), watching(resnet, "pooled") as found:
        for x in batches():
            resnet(x)
        features = [
            resnet.forward_head(resnet.forward_features(x), pre_logits=True) for x in batches()
        ]
    x = torch.cat(features).double()
    (name,) = {key.split(".", 1)[1] for key in found}

    assert found[f"deviation.{name}"] == pytest.approx(x.std(dim=0).mean().item(), rel=1e-6)
    assert found[f"effective_rank.{name}"] == pytest.approx(effective_rank(spectrum(x)), rel=1e-6)
    assert found[f"correlation.{name}"] == pytest.approx(correlation(x), rel=1e-6)


def test_only_the_first_pictures_are_looked_at(resnet):
    """What makes it cost nothing on large splits."""
    with torch.inference_mode(), watching(resnet, "blocks", first=20) as few:
        for x in batches():
            resnet(x)
    with torch.inference_mode(), watching(resnet, "blocks") as same:
        for x in torch.cat(batches())[:20].split(16):
            resnet(x)

    assert few.keys() == same.keys() and len(few) == 3 * len(find(resnet, "blocks"))
    np.testing.assert_allclose(list(few.values()), list(same.values()), rtol=1e-5)  # batch by batch


def test_nothing_stays_behind_and_outputs_are_untouched(resnet):
    (x,) = batches(1)
    with torch.inference_mode():
        before = resnet(x)
        with watching(resnet, "blocks,pooled"):
            during = resnet(x)

    assert torch.equal(before, during)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())


def test_features_that_are_not_finite_do_not_stop_a_training(resnet):
    """The loss does, if it must; here the placement is left out."""
    with torch.inference_mode(), watching(resnet, "pooled") as found:
        resnet(torch.full((4, 3, 32, 32), torch.nan))

    assert found == {}
