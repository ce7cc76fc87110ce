"""A sweep over transfer depths with the frozen part's activations kept, beside one without."""

import timm
import torch

from vcr_zoo.data import Images
from vcr_zoo.transfer.depth import Depth
from vcr_zoo.transfer.finetune import Finetuner, Settings, Tuned
from vcr_zoo.transfer.frozen import Blocks
from vcr_zoo.transfer.search import narrow

from .data import noise, timed


def labelled(n: int, size: int, classes: int = 10) -> Images:
    """Noise whose brightness tells the classes apart."""
    images = noise(n, size, 3)
    y = torch.arange(n).remainder(classes).numpy()
    x = (images.x // 2 + (12 * y).astype("uint8")[:, None, None, None]).astype("uint8")
    names = tuple(str(label) for label in range(classes))
    return Images(x, y, names, y.astype(str), name="noise", split="train", fingerprint=f"noise {n}")


def bench(
    model: str = "resnet18",
    pictures: int = 128,
    size: int = 64,
    batch_size: int = 32,
    epochs: int = 15,
    device: str = "cpu",
) -> dict[str, float]:
    """Seconds of all depths in both ways, on the same fixed views, and of a search that skips some.

    Without the cache the frozen part runs anew for every batch, without gradients. Each depth is
    run in both ways in turn. `largest_gap` is of validation's log loss after any epoch. On the CPU
    the seconds are the process's own.
    """
    torch.manual_seed(0)  # which depths the search looks at depends on the weights
    network = timm.create_model(model, pretrained_cfg_overlay=dict(input_size=(3, size, size)))
    network.reset_classifier(10)
    last = len(Blocks(network, (3, size, size)))
    train, validation = labelled(pictures, size), labelled(max(pictures // 4, 10), size)
    settings = Settings(
        epochs=epochs, batch_size=batch_size, head_epochs=0, augment=False, device=device
    )
    seconds: dict[bool, list[float]] = {True: [], False: []}
    gaps, value = [], {}
    warm = Settings(epochs=1, batch_size=batch_size, head_epochs=0, augment=False, device=device)
    Finetuner(network, train, validation, Depth(1), warm).run()
    for t in range(last + 1):
        runs: dict[bool, Tuned] = {}

        def go(keeps: bool, t=t, runs=runs) -> None:
            limit = 8 << 30 if keeps else 0
            one = Finetuner(network, train, validation, Depth(t), settings, limit=limit)
            runs[keeps] = one.run()

        for keeps in (False, True):
            seconds[keeps].append(timed(lambda keeps=keeps, go=go: go(keeps), device))
        histories = zip(runs[True].history, runs[False].history, strict=True)
        gaps += [abs(a["log_loss"] - b["log_loss"]) for a, b in histories]
        value[t] = runs[True].validation_top1
    looked = narrow(value.__getitem__, last)
    total = sum(seconds[False])
    return {
        "cached_seconds": sum(seconds[True]),
        "seconds": total,
        "ratio": sum(seconds[True]) / total,
        "search_seconds": sum(seconds[True][t] for t in looked),
        "search_ratio": sum(seconds[True][t] for t in looked) / total,
        "searched": ", ".join(map(str, looked)),
        "depths": last + 1,
        "largest_gap": max(gaps),
        "model": model,
        "pictures": pictures,
        "size": size,
        "batch_size": batch_size,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
        "device": device,
    }
