"""Throughput of feature extraction, beside a bare loop over the model."""

from statistics import median

import timm
import torch

from vcr_zoo.features import features

from .data import noise, timed


def bench(
    model: str = "resnet18",
    pictures: int = 1024,
    size: int = 32,
    batch_size: int = 128,
    device: str = "cpu",
    repeats: int = 5,
) -> dict[str, float]:
    """Pictures a second through `features`, and through the same model called on batches that are
    ready in memory; medians over repeats that take turns, so that both see the same machine."""
    network = timm.create_model(model, pretrained_cfg_overlay=dict(input_size=(3, size, size)))
    network = network.eval().to(device)
    images = noise(pictures, size, 3)
    batch = torch.randn(batch_size, 3, size, size, device=device)
    bare, ours = [], []
    for repeat in range(repeats + 1):
        bare_seconds = timed(lambda: loop(network, batch, pictures), device)
        our_seconds = timed(
            lambda: features(network, images, batch_size=batch_size, device=device), device
        )
        if repeat:  # the first warms up
            bare.append(pictures / bare_seconds)
            ours.append(pictures / our_seconds)
    shares = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    return {
        "pictures_per_second": median(ours),
        "bare_pictures_per_second": median(bare),
        "ratio": median(shares),
        "model": model,
        "size": size,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "device": device,
    }


def loop(network: torch.nn.Module, batch: torch.Tensor, pictures: int) -> None:
    """As many pictures as asked for through the network, and nothing else."""
    cast = torch.autocast("cuda", torch.bfloat16, enabled=batch.device.type == "cuda")
    with torch.inference_mode(), cast:
        for first in range(0, pictures, len(batch)):
            x = batch[: pictures - first]
            network.forward_head(network.forward_features(x), pre_logits=True)
