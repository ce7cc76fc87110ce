"""Training throughput beside a loop written from timm's parts alone, on the same folder."""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch.nn.functional import cross_entropy

from vcr_zoo.training import parse
from vcr_zoo.training.distributed import start
from vcr_zoo.training.loop import Meter, Watch, updates
from vcr_zoo.training.wiring import finish, wire


def bench(
    model: str = "test_resnet",
    size: int = 64,
    pictures: int = 512,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "cpu",
    repeats: int = 5,
    options: tuple[str, ...] = (),
) -> dict:
    """Images a second of our epoch and of timm's parts in a bare loop; medians of epochs that take
    turns, so that both see the same machine. `options` are further ones of train.py, ours only."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), pictures, size)
        ours = our_epochs(folder, model, size, batch_size, workers, device, options)
        theirs = timm_epochs(folder, model, size, batch_size, workers, device)
        rates: dict[str, list[float]] = {"ours": [], "timm": []}
        for repeat in range(repeats + 1):
            for name, epochs in (("ours", ours), ("timm", theirs)):
                began = time.perf_counter()
                seen = next(epochs)
                rate = seen / (time.perf_counter() - began)
                if repeat:  # the first warms up
                    rates[name].append(rate)
    shares = [mine / other for mine, other in zip(rates["ours"], rates["timm"], strict=True)]
    return {
        "images_per_second": median(rates["ours"]),
        "timm_images_per_second": median(rates["timm"]),
        "ratio": median(shares),
        "ratios": shares,
        "model": model,
        "size": size,
        "batch_size": batch_size,
        "workers": workers,
        "threads": torch.get_num_threads(),
        "device": device,
        "options": list(options),
    }


def draw(folder: Path, pictures: int, size: int) -> None:
    """JPEGs of noise in two classes."""
    draws = np.random.default_rng(0)
    for number in range(pictures):
        place = folder / "train" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg")


def our_epochs(folder, model, size, batch_size, workers, device, options):
    """Images trained on, epoch by epoch, with the loop of train.py."""
    args = parse(
        [
            *(str(folder), "--model", model, "--num-classes", "2"),
            *("--input-size", "3", str(size), str(size), "--batch-size", str(batch_size)),
            *("--workers", str(workers), "--device", device, "--val-split", ""),
            *("--lr", "0.01", "--smoothing", "0", *options),
        ]
    )
    parts = wire(args, start(args))
    finish(parts)
    epoch = 0
    while True:
        for _ in updates(parts, epoch, 0, Meter(parts), Watch(parts)):
            pass
        epoch += 1
        yield len(parts.train) * batch_size


def timm_epochs(folder, model, size, batch_size, workers, device):
    """Images trained on, epoch by epoch, with nothing around timm's parts."""
    images = create_dataset("", root=str(folder), split="train", is_training=True)
    loader = create_loader(
        images,
        (3, size, size),
        batch_size,
        is_training=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        interpolation="random",
        num_workers=workers,
        device=torch.device(device),
    )
    network = timm.create_model(model, num_classes=2).to(device)
    optimizer = create_optimizer_v2(network, "sgd", lr=0.01, weight_decay=2e-5, momentum=0.9)
    while True:
        network.train()
        total = 0.0
        for x, y in loader:
            loss = cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(y)
        yield len(loader) * batch_size
