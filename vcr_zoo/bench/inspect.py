"""What one-pass diagnostics cost beside the forward passes that they ride on."""

from statistics import median

import timm

from vcr_zoo.diagnostics.gather import gather
from vcr_zoo.diagnostics.measures import measure
from vcr_zoo.features import features

from .data import noise, timed


def bench(
    model: str = "resnet18",
    pictures: int = 512,
    size: int = 224,
    batch_size: int = 64,
    layers: str = "blocks,pooled",
    repeats: int = 3,
    device: str = "cpu",
) -> dict[str, float]:
    """Seconds of plain feature extraction, and what moments at every placement and all numbers
    made of them, with intervals, add; medians over repeats that take turns.

    Gathering grows with the pictures; the numbers, eigenvalues mostly, are computed once, so their
    share of few pictures is larger than of many: `ratio` is of the pictures measured, and
    `ratio_10000` what the same seconds are of ten thousand.
    """
    network = timm.create_model(model, num_classes=10).eval().to(device)
    images = noise(pictures, size, 3)
    images.y = images.y + [i % 10 for i in range(pictures)]
    images.classes = tuple("0123456789")
    options = dict(batch_size=batch_size, device=device)
    bare, gathering, numbers, kept = [], [], [], []
    for repeat in range(repeats + 1):
        alone = timed(lambda: features(network, images, **options), device)
        both = timed(lambda: kept.append(gather(network, images, layers=layers, **options)), device)
        parts = kept.pop().parts
        after = timed(lambda parts=parts: [measure(some) for some in parts.values()], device)
        if repeat:  # the first warms up
            bare.append(alone)
            gathering.append(both - alone)
            numbers.append(after)
    many = 10_000 / pictures
    rows = list(zip(bare, gathering, numbers, strict=True))
    return {
        "forward_seconds": median(bare),
        "gathering_seconds": median(gathering),
        "numbers_seconds": median(numbers),
        "ratio": median((g + n) / f for f, g, n in rows),
        "ratio_10000": median((many * g + n) / (many * f) for f, g, n in rows),
        "placements": len(parts),
        "pictures": pictures,
        "size": size,
        "model": model,
        "batch_size": batch_size,
        "device": device,
    }
