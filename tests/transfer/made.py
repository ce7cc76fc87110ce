"""A named data set of two kinds of pictures, and networks, all made from a seed."""

import numpy as np
import timm
import torch
from timm.models import save_for_hf

from vcr_zoo.data import Images


def pictures(split, level="fine", n=60):
    """Gray noise, three classes of different brightness, of which the first two are "dim" at the
    coarse level; a part is a function of its name."""
    generator = np.random.default_rng(len(split))
    y = np.arange(n) % 3
    x = generator.integers(0, 120, (n, 16, 16, 1)) + 45 * y[:, None, None, None]
    coarse = level == "coarse"
    return Images(
        x.astype(np.uint8),
        y // 2 if coarse else y,
        ("dim", "light") if coarse else ("dark", "middle", "light"),
        y.astype(str),
        name="made",
        split=split,
        level=level,
        fingerprint=f"made {split}",
    )


def network(folder, seed=0, name="test_resnet"):
    """A network with random weights, saved as timm loads it."""
    torch.manual_seed(seed)
    overlay = dict(input_size=(1, 16, 16), mean=(0.3,), std=(0.3,))
    model = timm.create_model(name, num_classes=2, in_chans=1, pretrained_cfg_overlay=overlay)
    save_for_hf(model.eval(), folder, safe_serialization=True)
    return str(folder)
