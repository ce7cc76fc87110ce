"""Features and pictures made from a seed, and the degenerate ones that every measurement meets."""

import numpy as np
import timm
import torch

from vcr_zoo.data import Images


def normal(n=400, d=6, seed=0, mixing=True):
    """Correlated features far from the origin, float64 (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if not mixing:
        return x
    return x @ torch.randn(d, d, generator=generator, dtype=torch.float64) + 5.0


def labelled(n=400, d=6, classes=4, apart=2.0, seed=0):
    """The same around class means at random: (n, d), (n,)."""
    generator = torch.Generator().manual_seed(seed + 1)
    y = torch.arange(n) % classes
    means = apart * torch.randn(classes, d, generator=generator, dtype=torch.float64)
    return normal(n, d, seed) + means[y], y


def simplex(k=4, each=10, d=7):
    """Perfect collapse: every picture at its class's corner of a simplex (n, d), (n,)."""
    corners = torch.eye(k, d, dtype=torch.float64) - 1 / k * (torch.arange(d) < k)
    y = torch.arange(k * each) % k
    return corners[y] + 3.0, y


X, Y = labelled(60, 5)
DEGENERATE = {  # features and labels
    "one class": (X, torch.zeros_like(Y)),
    "a constant feature": (torch.cat([X, torch.full((60, 1), 0.1)], dim=1), Y),
    "fewer pictures than features": labelled(12, 40),
    "duplicate rows": (X[Y], Y),
    "all rows the same": (X[:1].repeat(60, 1), Y),
    "a zero network": (torch.zeros(60, 5), Y),
    "one picture": (X[:1], Y[:1]),
    "two pictures": (X[:2], Y[:2]),
    "one feature": (X[:, :1], Y),
    "a class of one picture": (X, torch.where(torch.arange(60) == 7, 4, Y)),
    "equal class means": (torch.cat([X[:30], X[:30]]), torch.arange(60) // 30),
    "large and small": (1e30 * X, Y),
    "tiny": (1e-30 * X, Y),
    "far from zero": ((X + 1e7).float(), Y),
}


def pictures(n=60, size=32, channels=3, classes=3, seed=0):
    """Noise of different brightness by class."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = generator.integers(0, 120, (n, size, size, channels)) + 40 * y[:, None, None, None]
    names = tuple(f"class {i}" for i in range(classes))
    x = x.clip(0, 255).astype(np.uint8)
    return Images(x, y, names, y.astype(str), name="made", split="train", fingerprint=f"made{n}")


def network(name="test_resnet", seed=0, size=32, **settings):
    torch.manual_seed(seed)
    overlay = dict(input_size=(3, size, size))
    settings = {"num_classes": 3, "pretrained_cfg_overlay": overlay, **settings}
    return timm.create_model(name, **settings).eval()
