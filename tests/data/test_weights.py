"""The ImageNet baseline arrives whole, under timm's names."""

import pytest
import timm
import torch

from vcr_zoo.data.weights import BASELINES, baseline, renamed
from vcr_zoo.features import load_model


def test_weights_are_renamed_by_order():
    """Another code base names the same tensors otherwise; shapes decide whether they fit."""
    ours = {"stem.weight": torch.zeros(2, 3), "bn.num_batches_tracked": torch.tensor(0)}
    theirs = {"_conv.weight": torch.ones(2, 3), "_bn.num_batches_tracked": torch.tensor(7)}
    state = renamed(theirs, ours)
    assert list(state) == list(ours) and state["stem.weight"].sum() == 6
    with pytest.raises(ValueError, match=r"_conv\.weight has shape \(3, 2\)"):
        renamed({"_conv.weight": torch.ones(3, 2)}, ours)
    with pytest.raises(ValueError, match="0 tensors for an architecture that has 1"):
        renamed({}, ours)


def test_an_unknown_baseline_is_refused():
    """With those there are."""
    with pytest.raises(LookupError, match="tf_efficientnet_lite0"):
        baseline("resnet50")


def test_every_baseline_is_an_architecture_of_timm_s():
    """And says whose it is."""
    for name, row in BASELINES.items():
        assert timm.is_model(name) and row.licence and row.attribution and row.sha256


@pytest.mark.network
def test_the_baseline_knows_imagenet(own_cache):
    """Two photographs that scikit-learn carries: a Chinese palace's roofs, and a flower."""
    from PIL import Image
    from sklearn.datasets import load_sample_images
    from timm.data import ImageNetInfo, create_transform

    model = load_model("tf_efficientnet_lite0")
    look = create_transform((3, 224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.875)
    photographs = [look(Image.fromarray(image)) for image in load_sample_images().images]
    with torch.inference_mode():
        best = model(torch.stack(photographs)).argmax(dim=1).tolist()
    assert [ImageNetInfo().index_to_description(label) for label in best] == ["palace", "daisy"]
