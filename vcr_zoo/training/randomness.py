"""Random draws as a function of (seed, epoch, picture or step), never of a worker's history.

What a picture's augmentation or a step's dropout draws is fixed by numbers that a checkpoint holds,
so a run can go on from any step, with any number of loader workers.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

MASK = (1 << 64) - 1
SAMPLE, COLLATE, ERASE, MIX, MODEL, ORDER = range(6)  # streams that must not coincide


def mixed(*keys: int) -> int:
    """A 64-bit number from several: the finalizer of SplitMix64, folded over the keys."""
    state = 0
    for key in keys:
        state = (state + key + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


def seed_everything(*keys: int, devices: bool = True) -> None:
    """Set python's, numpy's and torch's generators from the keys; accelerators' if `devices`."""
    seed = mixed(*keys)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
    if devices and torch.accelerator.is_available():
        torch.manual_seed(seed)  # a hundred times slower, too slow for each picture


def states() -> dict:
    """States of every generator of this process, as tensors and plain values."""
    numpy_state = list(np.random.get_state())
    numpy_state[1] = torch.from_numpy(numpy_state[1].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": tuple(numpy_state),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(saved: dict) -> None:
    """Set every generator of this process as `states` found it."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if len(saved["cuda"]) == torch.cuda.device_count() and saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])


class Order(Sampler):
    """This rank's picture numbers in an epoch: every `world_size`-th of one global permutation.

    So step k of all ranks together holds the same pictures at any number of ranks. As in torch's
    distributed sampler the permutation is padded from its start until ranks are even, unless `pad`
    is off.
    """

    def __init__(self, n: int, seed: int, rank: int = 0, world_size: int = 1, pad: bool = True):
        self.n, self.seed, self.rank, self.world_size, self.pad = n, seed, rank, world_size, pad
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-(self.n - (0 if self.pad else self.rank)) // self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch, ORDER) >> 1)
        order = torch.randperm(self.n, generator=generator).tolist()
        if self.pad:
            order += order[: -self.n % self.world_size]
        return iter(order[self.rank :: self.world_size])


class KeyedBatches(Sampler):
    """Batches of an epoch from number `start` on, each picture with the seed of its augmentation.

    `batches` is any batch sampler with set_epoch, or over a sampler that has it. With `by_step`
    the seed also depends on the step, for samplers that show a picture several times in an epoch.
    """

    def __init__(self, batches: Sampler, seed: int, rank: int = 0, by_step: bool = False):
        self.batches, self.seed, self.rank, self.by_step = batches, seed, rank, by_step
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple]]:
        target = self.batches if hasattr(self.batches, "set_epoch") else self.batches.sampler
        target.set_epoch(self.epoch)
        for step, batch in enumerate(self.batches):
            if step >= self.start:
                yield [(key, self._seed(key, step, slot)) for slot, key in enumerate(batch)]

    def _seed(self, key, step: int, slot: int) -> int:
        index = key[0] if isinstance(key, tuple) else key
        place = (step, slot, self.rank) if self.by_step else ()
        return mixed(self.seed, self.epoch, SAMPLE, index, *place)


class Seeded(Dataset):
    """A data set that augments each picture from the seed that comes with its number."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[tuple]) -> list:
        samples = []
        for key, seed in keys:
            seed_everything(seed, devices=False)
            samples.append(self.dataset[key])
        seed_everything(keys[0][1], COLLATE, devices=False)  # mixup draws while collating
        return samples


class SeededErasing:
    """timm's random erasing of a batch, drawing from (seed, epoch, step, rank)."""

    def __init__(self, erasing, seed: int, rank: int):
        self.erasing, self.seed, self.rank = erasing, seed, rank
        self.epoch = self.step = 0

    def at(self, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step

    def __call__(self, images: torch.Tensor, **more) -> torch.Tensor:
        seed_everything(self.seed, self.epoch, ERASE, self.step, self.rank)
        self.step += 1
        return self.erasing(images, **more)
