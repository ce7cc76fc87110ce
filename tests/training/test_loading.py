"""A batch is a function of seed, epoch and step, whoever makes it."""

import tarfile

import pytest
import torch
from timm.data.random_erasing import RandomErasing

from vcr_zoo.data import Images
from vcr_zoo.training import parse, train, wiring
from vcr_zoo.training.distributed import start
from vcr_zoo.training.evaluate import evaluate, open_pictures
from vcr_zoo.training.loading import StreamLoader, seed_erasing, tensor_obstacle
from vcr_zoo.training.randomness import Order, mixed, restore, seed_everything, states


def batches(argv: list[str], epoch: int, first: int = 0) -> list:
    args = parse(argv)
    return list(wiring.wire(args, start(args)).train.epoch(epoch, first))


def equal(one: list, other: list) -> bool:
    pairs = zip(one, other, strict=True)
    return all(x.equal(v) and y.equal(w) for (x, y), (v, w) in pairs)


RANDOM = ("--reprob", "0.5", "--mixup", "0.5", "--cutmix", "0.5", "--aa", "rand-m9-mstd0.5")


@pytest.mark.parametrize("more", [(), ("--no-prefetcher",), ("--mixup-mode", "elem")])
def test_a_loader_starts_anywhere_with_any_number_of_workers(small, more):
    """What comes from step 2 on is what came there before, with 0, 1 or 2 workers."""
    whole = batches(small(*RANDOM, *more), epoch=1)
    for workers in ("0", "1", "2"):
        rest = batches(small(*RANDOM, *more, "--workers", workers), epoch=1, first=2)
        assert equal(rest, whole[2:])
    assert not equal(batches(small(*RANDOM, *more), epoch=0), whole)
    assert not equal(batches(small(*RANDOM, *more, "--seed", "7"), epoch=1), whole)


def write_shards(folder, to, name, count):
    """Pictures of a folder of classes, in shards by turns."""
    files = sorted(folder.rglob("*.png"))
    for shard in range(count):
        with tarfile.open(to / f"{name}-000{shard}.tar", "w") as archive:
            for number, file in list(enumerate(files))[shard::count]:
                label = to / "label"
                label.write_text(file.parent.name[-1])
                archive.add(file, arcname=f"{number:05d}.png")
                archive.add(label, arcname=f"{number:05d}.cls")


def test_a_stream_that_nobody_counted_is_validated_with(pictures, tmp_path):
    """timm asks for the number of training pictures alone."""
    pytest.importorskip("webdataset")
    for name in ("train", "validation"):
        write_shards(pictures / name, tmp_path, name, 1)
    argv = ["--data-dir", str(tmp_path), "--dataset", "wds/own", "--epochs", "1", "-b", "8"]
    argv += ["--train-split", "train-0000.tar|42", "--val-split", "validation-0000.tar"]
    argv += ["--model", "test_resnet", "--num-classes", "3", "--input-size", "3", "32", "32"]
    argv += ["--device", "cpu", "--workers", "0", "--output", str(tmp_path / "runs")]
    run = train(parse(argv), progress=False)

    images = open_pictures(str(pictures))
    assert run.metrics["eval_top1"] == pytest.approx(100 * evaluate(run.model, images).top1)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_stream_of_shards_starts_anywhere(pictures, tmp_path, workers):
    """What comes from step 2 of epoch 1 on does not depend on what was read before."""
    pytest.importorskip("webdataset")
    write_shards(pictures / "train", tmp_path, "train", 2)
    argv = ["--data-dir", str(tmp_path), "--dataset", "wds/own", "--val-split", ""]
    argv += ["--train-split", "train-{0000..0001}.tar|42", "--model", "test_resnet", "-b", "8"]
    argv += ["--num-classes", "3", "--input-size", "3", "32", "32", "--device", "cpu"]
    argv += ["--workers", workers, *RANDOM]

    args = parse(argv)
    loader = wiring.wire(args, start(args)).train
    whole = [list(loader.epoch(epoch)) for epoch in (0, 1)]

    assert len(whole[1]) == len(loader) and not equal(*whole)
    assert equal(batches(argv, epoch=1, first=2), whole[1][2:])


def test_mixing_ends_at_its_epoch(small):
    """--mixup-off-epoch holds in loader workers too, which keep their own copy of the mixer."""
    argv = small("--mixup", "1", "--mixup-off-epoch", "1", "--smoothing", "0", "--workers", "1")
    args = parse(argv)
    loader = wiring.wire(args, start(args)).train
    mixed_targets = torch.cat([y for _, y in loader.epoch(0)])
    pure_targets = torch.cat([y for _, y in loader.epoch(1)])
    assert ((mixed_targets > 0) & (mixed_targets < 1)).any()
    assert set(pure_targets.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("n, ranks", [(42, 2), (43, 4), (7, 3)])
def test_ranks_take_turns_in_one_permutation(n, ranks):
    """Together they see every picture, and step by step the pictures that one process would."""
    whole = list(Order(n, seed=1))
    shares = [list(Order(n, 1, rank, ranks, pad=False)) for rank in range(ranks)]
    assert sorted(whole) == list(range(n))
    assert [shares[i % ranks][i // ranks] for i in range(n)] == whole
    padded = [list(Order(n, 1, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in padded} == {-(-n // ranks)}


def test_seeds_do_not_meet():
    """Neighbors in seed, epoch and picture have nothing in common."""
    seeds = {mixed(*key) for key in torch.cartesian_prod(*[torch.arange(20)] * 3).tolist()}
    assert len(seeds) == 20**3
    assert mixed(1, 2) != mixed(2, 1) and mixed(0) != mixed(0, 0)


def test_generators_come_back():
    """All three go on from where they were."""
    import random

    import numpy as np

    seed_everything(3)
    torch.randn(3), np.random.randn(3), random.gauss(0, 1)
    saved = states()
    first = torch.rand(2).tolist(), np.random.randn(2).tolist(), random.gauss(0, 1)
    restore(saved)
    assert (torch.rand(2).tolist(), np.random.randn(2).tolist(), random.gauss(0, 1)) == first


def noise_images() -> Images:
    """Thirty gray pictures in memory."""
    import numpy as np

    draws = np.random.default_rng(0)
    x = draws.integers(0, 256, (30, 28, 28, 1), dtype=np.uint8)
    y = np.arange(30) % 3
    settings = {"name": "noise", "split": "train", "fingerprint": "noise"}
    return Images(x, y, ("a", "b", "c"), y.astype(str), **settings)


def test_small_pictures_take_the_fast_path_only_where_it_does_all_that_was_asked(monkeypatch):
    """Each option that the tensor path does not know sends the run to timm's loader."""
    images = noise_images()
    plain = ["--color-jitter", "0", "--train-interpolation", "bilinear"]
    config = {"crop_pct": 1.0, "interpolation": "bilinear"}
    assert tensor_obstacle(parse(plain), images, config) == ""
    for more in (["--aa", "rand"], ["--gaussian-blur-prob", "0.1"]):
        assert more[0] in tensor_obstacle(parse([*plain, *more]), images, config)
        assert tensor_obstacle(parse([*plain, *more, "--no-aug"]), images, config) == ""
    for more in (["--aug-splits", "2"], ["--train-img-sizes", "24"], ["--naflex-loader"]):
        assert more[0] in tensor_obstacle(parse([*plain, *more]), images, config)
    assert "--crop-pct" in tensor_obstacle(parse(plain), images, config | {"crop_pct": 0.9})


def test_the_fast_path_starts_anywhere_too(monkeypatch, tmp_path):
    """Erased and mixed like the other, from (seed, epoch, step)."""
    monkeypatch.setattr(wiring, "open_split", lambda *_, **__: noise_images())
    argv = ["--dataset", "fmnist", "--model", "test_resnet", "--input-size", "1", "32", "32"]
    argv += ["--crop-pct", "1", "--interpolation", "bilinear", "--train-interpolation", "bilinear"]
    argv += ["--color-jitter", "0", "-b", "6", "--loader", "tensor", "--device", "cpu"]
    argv += ["--reprob", "0.5", "--mixup", "0.5"]
    whole = batches(argv, epoch=1)
    assert len(whole) == 5 and whole[0][0].shape == (6, 1, 32, 32)
    assert equal(batches(argv, epoch=1, first=3), whole[3:])


def test_what_a_stream_erases_does_not_depend_on_what_training_drew():
    """A run that goes on in the middle of an epoch has drawn nothing in the steps before."""

    class Erased(list):
        dataset = type("Stream", (), {"set_epoch": lambda self, epoch: None})()

        def __iter__(self):
            return ((self.random_erasing(x.clone()), y) for x, y in super().__iter__())

    args = parse([])
    args.rank = 0
    source = Erased([(torch.zeros(4, 3, 16, 16), torch.zeros(4))] * 4)
    source.random_erasing = RandomErasing(1.0, mode="pixel", device="cpu")
    seed_erasing(args, source)
    loader = StreamLoader(args, source, device="cpu")
    whole = [(x, y, torch.rand(3))[:2] for x, y in loader.epoch(1)]
    again = list(loader.epoch(1, 2))

    assert not torch.equal(whole[2][0], whole[3][0])
    assert equal(again, whole[2:])


def test_a_stream_gives_no_more_than_its_length():
    """A batch beyond the last would be in no group of accumulated ones, so never a step."""

    class Longer(list):
        dataset = type("Stream", (), {"set_epoch": lambda self, epoch: None})()

        def __len__(self):
            return 2

    batch = torch.zeros(1, 3, 4, 4), torch.zeros(1)
    args = parse([])
    args.rank = 0
    loader = StreamLoader(args, Longer([batch] * 3), device="cpu")
    assert len(list(loader.epoch(0))) == 2 and len(list(loader.epoch(0, 1))) == 1
