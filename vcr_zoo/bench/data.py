"""Training batches of small pictures: our batched path beside timm's transforms."""

import time
from statistics import median

import numpy as np
import torch
from timm.data import create_transform

from vcr_zoo.data import Batches, Images


def bench(
    size: int = 32,
    channels: int = 3,
    pictures: int = 8192,
    batch_size: int = 256,
    device: str = "cpu",
    repeats: int = 5,
) -> dict[str, float]:
    """Pictures a second: random crop, resize, flip and normalization of noise from memory.

    timm's path is its transforms called on PIL pictures, one process, without a loader's workers or
    collation. Medians over repeats that take turns. On the CPU the seconds are the process's own,
    so that the figures are per core, whatever else the machine does.
    """
    images = noise(pictures, size, channels)
    target = (channels, size, size)
    batches = Batches(images, batch_size, input_size=target, is_training=True, device=device)
    transform = create_transform(
        target,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=images.mean * channels,
        std=images.std * channels,
    )
    few = min(pictures, 1024)
    ours, theirs = [], []
    for repeat in range(repeats + 1):
        batches.set_epoch(repeat)
        seconds = timed(lambda: [x for x, _ in batches], device)
        their_seconds = timed(lambda: [transform(images.picture(i)) for i in range(few)], device)
        if repeat:  # the first warms up
            ours.append(len(batches) * batch_size / seconds)
            theirs.append(few / their_seconds)
    return {
        "pictures_per_second": median(ours),
        "timm_pictures_per_second": median(theirs),
        "ratio": median(mine / other for mine, other in zip(ours, theirs, strict=True)),
        "size": size,
        "channels": channels,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "device": device,
    }


def noise(n: int, size: int, channels: int) -> Images:
    """Square pictures from a seed."""
    x = np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    y = np.zeros(n, dtype=np.int64)
    return Images(x, y, ("noise",), y.astype(str), name="noise", split="train", fingerprint="noise")


def timed(action, device: str) -> float:
    """Seconds of this process on the CPU, or by the clock with the device's work done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    action()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start
