"""A small network and pictures for it, for the tests of fine-tuning."""

import timm
import torch

from vcr_zoo.transfer.finetune import Finetuner, Settings

from .made import pictures

SIZE = (1, 16, 16)


def resnet(seed=0, name="test_resnet", **kwargs):
    """Random weights; batch norm's statistics are not those of the start."""
    torch.manual_seed(seed)
    overlay = dict(input_size=SIZE, mean=(0.3,), std=(0.3,))
    model = timm.create_model(
        name, num_classes=2, in_chans=1, pretrained_cfg_overlay=overlay, **kwargs
    )
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, *SIZE))
    return model.eval()


def vit(seed=0):
    return resnet(seed, "test_vit", img_size=16, patch_size=4)


def small(**changed):
    """Settings that take a second."""
    kept = dict(epochs=2, batch_size=20, head_epochs=0, warmup_epochs=0, hflip=0.0)
    return Settings(**{**kept, **changed})


def tuned(method=None, model=None, settings=None, n=60, **more):
    """A finished run on `made.pictures`."""
    return run_of(method, model, settings, n, **more).run()


def run_of(method=None, model=None, settings=None, n=60, **more):
    parts = (pictures("train", n=n), pictures("validation", n=30))
    return Finetuner(model or resnet(), *parts, method, settings or small(), **more)


def same(a, b):
    """Whether two networks have the same tensors, to the bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
