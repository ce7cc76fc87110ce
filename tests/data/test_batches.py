"""The fast path gives what timm's path would, from draws that depend on nothing but their place."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    rgb_to_grayscale,
)

from vcr_zoo.data import Batches, Images
from vcr_zoo.data.batches import ATTEMPTS, random_crops, uniform


def pictures(n: int = 40, size: tuple = (28, 24), channels: int = 3, seed: int = 0) -> Images:
    """Smooth coloured pictures (noise would hide a shift by half a pixel)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 7, 6, channels), dtype=np.uint8)
    x = np.stack([enlarged(picture, size) for picture in small])
    groups = np.arange(n).astype(str)
    return Images(
        x, np.arange(n) % 3, "abc", groups, name="made", split="train", fingerprint="0" * 64
    )


def enlarged(picture: np.ndarray, size: tuple) -> np.ndarray:
    image = Image.fromarray(picture.squeeze())
    return np.asarray(image.resize(size[::-1], Image.BICUBIC)).reshape(*size, -1)


def plain(images: Images, **options) -> Batches:
    """Batches in [0, 255]: nothing is subtracted and the unit is one level of grey."""
    return Batches(images, 8, mean=(0.0,), std=(1 / 255,), **options)


@pytest.mark.parametrize("target", [(28, 24), (32, 32), (12, 9), (64, 40)])
def test_random_crops_are_pil_s(target):
    """Crop, antialiased bilinear resize and mirroring agree with PIL, which timm calls.

    PIL rounds to whole levels after each of its two passes; we never round, hence one level.
    """
    images = pictures()
    batches = plain(images, input_size=(3, *target), is_training=True, hflip=0.5, vflip=0.5)
    index = np.arange(len(images))
    (top, left, h, w), (hflip, vflip) = (d.numpy() for d in batches._draws(index, 28, 24, 0)[:2])

    got = batches.pictures(index).numpy()

    assert hflip.any() and vflip.any() and not (hflip & vflip).all()
    for i in index:
        box = (int(left[i]), int(top[i]), int(left[i] + w[i]), int(top[i] + h[i]))
        want = Image.fromarray(images.x[i]).crop(box).resize(target[::-1], Image.BILINEAR)
        want = want.transpose(Image.FLIP_LEFT_RIGHT) if hflip[i] else want
        want = want.transpose(Image.FLIP_TOP_BOTTOM) if vflip[i] else want
        assert np.abs(got[i].transpose(1, 2, 0) - np.asarray(want, np.float32)).max() < 1.01


@pytest.mark.parametrize("target", [(28, 24), (14, 14), (50, 60)])
def test_evaluation_resizes_the_whole_picture_as_pil_does(target):
    """Without augmentation only the size changes, and not even that where it fits."""
    images = pictures()
    got = torch.cat([x for x, _ in plain(images, input_size=(3, *target))]).numpy()
    want = np.stack(
        [np.asarray(Image.fromarray(x).resize(target[::-1], Image.BILINEAR)) for x in images.x]
    )
    assert np.abs(got.transpose(0, 2, 3, 1) - want.astype(np.float32)).max() < 1.01


@pytest.mark.parametrize("scale, ratio", [((0.08, 1), (3 / 4, 4 / 3)), ((0.5, 0.9), (0.5, 0.8))])
def test_crops_are_distributed_as_timm_s(scale, ratio):
    """Area, place and shape have the distribution of timm's own sampler (two-sample tests)."""
    from timm.data.transforms import RandomResizedCropAndInterpolation as Theirs

    random.seed(0)
    n = 4000
    ours = random_crops(uniform(3, 0, np.arange(n), 4 * ATTEMPTS), 32, 48, scale, ratio)
    picture = Image.new("L", (48, 32))
    theirs = np.array([Theirs.get_params(picture, scale, ratio) for _ in range(n)]).T
    for name, a, b in zip(("top", "left", "height", "width"), ours, theirs, strict=True):
        assert stats.ks_2samp(a, b, method="asymp").pvalue > 1e-4, name
    top, left, h, w = ours
    assert (
        (top >= 0).all() and (left >= 0).all() and (top + h <= 32).all() and (left + w <= 48).all()
    )


def test_crops_that_never_fit_become_the_central_one():
    """A shape that no attempt can have falls back as in timm: the middle, ratio clamped."""
    top, left, h, w = random_crops(uniform(0, 0, np.arange(5), 40), 10, 100, (1, 1), (0.9, 1.1))
    assert set(zip(top, left, h, w, strict=True)) == {(0, 44, 10, 11)}


def test_draws_are_uniform_and_independent():
    """Every column is uniform, and neighbours in sample, draw, epoch and seed do not correlate."""
    u = uniform(1, 2, np.arange(20_000), 4)
    assert min(stats.kstest(column, "uniform").pvalue for column in u.T) > 1e-4
    others = [uniform(1, 3, np.arange(20_000), 1)[:, 0], uniform(2, 2, np.arange(20_000), 1)[:, 0]]
    others += [u[:, 1], np.roll(u[:, 0], 1)]
    assert max(abs(np.corrcoef(u[:, 0], other)[0, 1]) for other in others) < 0.03


def test_any_batch_can_be_made_again_alone():
    """Starting at a later batch of a later epoch gives the same pictures, bit for bit."""
    images = pictures()
    batches = Batches(images, 8, is_training=True, seed=5)
    batches.set_epoch(3)
    whole = list(batches)
    batches.start = 3
    rest = list(batches)
    assert len(batches) == len(whole) == 5 and len(rest) == 2 and batches.start == 0
    for (x, y), (again, labels) in zip(whole[3:], rest, strict=True):
        assert torch.equal(x, again) and torch.equal(y, labels)


def test_epochs_and_seeds_differ():
    """Another epoch or seed shows the pictures in another order and cropped elsewhere."""
    batches = Batches(pictures(), 40, is_training=True)
    first = next(iter(batches))[0]
    batches.set_epoch(1)
    assert not torch.equal(first, next(iter(batches))[0])
    assert not torch.equal(first, next(iter(Batches(pictures(), 40, is_training=True, seed=1)))[0])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_one_process_s_batch(world_size):
    """Step for step, the ranks' batches are the pictures of one process with the whole batch."""
    images = pictures()
    alone = next(iter(Batches(images, 8, is_training=True)))[0]
    shares = [
        next(
            iter(Batches(images, 8 // world_size, is_training=True, rank=r, world_size=world_size))
        )
        for r in range(world_size)
    ]
    together = torch.stack([x for x, _ in shares], dim=1).flatten(0, 1)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("n, drop, lengths", [(40, True, [8] * 4), (40, False, [8] * 5)])
def test_every_rank_takes_as_many_steps(n, drop, lengths):
    """Training ranks step together, or gradients would wait for ever; nobody is left out."""
    images = pictures(n - 1)
    ranks = [
        Batches(images, 4, is_training=True, rank=r, world_size=2, drop_last=drop) for r in (0, 1)
    ]
    steps = [[len(y) for _, y in rank] for rank in ranks]
    assert steps[0] == steps[1] and len(steps[0]) == len(ranks[0]) == len(lengths)
    assert len(set(np.concatenate([rank.order() for rank in ranks]))) == (32 if drop else n - 1)


@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize("training", [True, False])
def test_as_many_batches_as_announced(n, training):
    """On every rank, also where the last ones have a picture less."""
    for rank in range(3):
        options = dict(is_training=training, drop_last=False, rank=rank, world_size=3)
        batches = Batches(pictures(n), 4, **options)
        assert len(batches) == len(list(batches))


def test_evaluation_sees_each_picture_once_in_order():
    """Whatever the batch size and the number of ranks."""
    images = pictures(37)
    assert torch.cat([y for _, y in Batches(images, 8)]).tolist() == images.y.tolist()
    ranks = [Batches(images, 8, rank=r, world_size=3).order() for r in range(3)]
    assert sorted(np.concatenate(ranks)) == list(range(37))


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvision_s(channels):
    """Brightness, contrast and saturation, one after the other, by factors within the strength."""
    images = pictures(channels=channels)
    still = dict(is_training=True, scale=(1, 1), ratio=(6 / 7, 6 / 7), hflip=0)
    batches = plain(images, color_jitter=0.4, color_jitter_prob=0.5, grayscale_prob=0.3, **still)
    index = np.arange(40)
    _, _, (change, factors, colorless) = batches._draws(index, 28, 24, 0)
    before = plain(images, **still).pictures(index) / 255

    assert factors.min() >= 0.6 and factors.max() <= 1.4
    assert 8 <= change.sum() <= 32 and 3 <= colorless.sum() <= 24
    for i, found in enumerate(batches.pictures(index) / 255):
        expected, each = before[i].clamp(0, 1), factors[:, i].tolist()
        if change[i]:
            expected = adjust_brightness(expected, each[0])
            expected = adjust_contrast(expected, each[1])
            expected = adjust_saturation(expected, each[2])
        if colorless[i] and channels == 3:
            expected = rgb_to_grayscale(expected, 3)
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_views_show_the_same_pictures_anew():
    """The first is what one view would have been; labels are told once."""
    one, two = (plain(pictures(), is_training=True, views=views) for views in (1, 2))
    for (x, y), (both, labels) in zip(one, two, strict=True):
        first, second = both.chunk(2)
        assert torch.equal(first, x) and torch.equal(y, labels)
        assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gray_is_repeated_and_colour_becomes_luma():
    """As PIL converts between L and RGB."""
    gray, colour = pictures(channels=1), pictures()
    x = next(iter(plain(gray, input_size=(3, 28, 24))))[0]
    assert x.shape == (8, 3, 28, 24) and torch.equal(x[:, 0], x[:, 2])
    got = next(iter(plain(colour, input_size=(1, 28, 24))))[0][0, 0].numpy()
    assert np.abs(got - np.asarray(Image.fromarray(colour.x[0]).convert("L"), np.float32)).max() < 1


def test_normalization_is_by_channel():
    """(x / 255 - mean) / std, with the data set's own statistics unless others are given."""
    images = pictures()
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    x = next(iter(Batches(images, 8, mean=mean, std=std)))[0]
    want = (images.x[:8].transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(
        std, (3, 1, 1)
    )
    assert np.allclose(x.numpy(), want, atol=1e-5)
    images.mean, images.std = mean, std
    assert torch.equal(next(iter(Batches(images, 8)))[0], x)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(batch_size=0), "batch size 0"),
        (dict(batch_size=4, rank=2, world_size=2), "rank 2 of 2"),
        (dict(batch_size=64, is_training=True), "make no batch of 64"),
        (dict(batch_size=4, input_size=(2, 8, 8)), "input size"),
        (dict(batch_size=4, scale=(0.9, 0.1)), "scale"),
    ],
)
def test_wrong_requests_are_refused(options, message):
    """Before the first batch, saying what was asked for."""
    with pytest.raises(ValueError, match=message):
        Batches(pictures(), **options)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_batches():
    """Device and residence change no draw, and pixels by rounding only."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = pictures()
    for training in (True, False):
        options = dict(is_training=training, input_size=(3, 20, 20))
        cpu, gpu = (Batches(images, 8, device=d, **options) for d in ("cpu", "cuda"))
        for (x, y), (on_gpu, labels) in zip(cpu, gpu, strict=True):
            assert torch.equal(y, labels.cpu()) and torch.allclose(x, on_gpu.cpu(), atol=1e-2)
