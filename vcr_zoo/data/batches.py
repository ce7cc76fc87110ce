"""The fast path for small pictures: whole batches cropped, flipped and normalized at once.

Each output row and column is a weighted sum of input rows and columns, so a crop that is resized
and mirrored is two small matrix products per picture, `rows @ picture @ columns.T`, and a batch of
them is one batched product: no loop over pictures, the same code on a GPU.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .images import Images

ATTEMPTS = 10  # of a random crop before it gives up, as in torchvision and timm
RESIDENT = 2 << 30  # bytes; a set no larger than this is kept on the GPU
LUMA = (0.299, 0.587, 0.114)  # colour to gray, ITU-R BT.601, as in PIL
STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on nothing but their place: (n,) -> float64 (n, draws).

    Counter-based: a chain of splitmix64 finalizers (Steele, Lea and Flood, 2014) over seed, epoch,
    sample and draw.
    """
    key = _mix(_mix(_integers(seed)) ^ _integers(epoch))
    rows = _mix(_mix(index.astype(np.uint64)) ^ key)[:, None]
    bits = _mix(rows + STEP * np.arange(1, draws + 1, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _integers(value: int) -> np.ndarray:
    return np.array([value % 2**64], dtype=np.uint64)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer: a bijection of 64 bits that spreads every one of them."""
    x = x + STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_crops(
    u: np.ndarray, height: int, width: int, scale: tuple, ratio: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Crops of random area and shape, drawn as timm draws them.

    Args:
        u: uniform numbers (n, 4 * ATTEMPTS): area, shape, top and left of each attempt.
        scale: least and largest share of the area.
        ratio: least and largest width / height, uniform in the logarithm.

    Returns:
        top, left, height and width in pixels, each int64 (n,).
    """
    area, shape, top, left = u.reshape(len(u), 4, ATTEMPTS).swapaxes(0, 1)
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    low, high = np.log(ratio[0]), np.log(ratio[1])
    shape = np.exp(low + (high - low) * shape)
    w = np.rint(np.sqrt(area * shape)).astype(np.int64)
    h = np.rint(np.sqrt(area / shape)).astype(np.int64)
    fits = (w <= width) & (h <= height) & (w > 0) & (h > 0)
    first = (np.arange(len(u)), fits.argmax(axis=1))  # the first attempt that fits
    w, h = w[first], h[first]
    none = ~fits.any(axis=1)
    w[none], h[none] = _fallback(height, width, ratio)
    top = np.floor(top[first] * (height - h + 1)).astype(np.int64)
    left = np.floor(left[first] * (width - w + 1)).astype(np.int64)
    top[none], left[none] = (height - h[none]) // 2, (width - w[none]) // 2
    return top, left, h, w


def _fallback(height: int, width: int, ratio: tuple) -> tuple[int, int]:
    """Width and height of the largest central crop whose shape is allowed."""
    shape = width / height
    if shape < ratio[0]:
        return width, round(width / ratio[0])
    if shape > ratio[1]:
        return round(height * ratio[1]), height
    return width, height


def resampling(start: Tensor, length: Tensor, size: int, out: int, mirror: Tensor) -> Tensor:
    """Weights that resize a stretch of a line: (n,), (n,), (n,) -> (n, out, size), rows sum to 1.

    Bilinear with antialiasing as PIL does it: a triangle filter that widens with the factor of
    reduction and is cut at the stretch's ends, so that nothing from outside a crop comes in.

    Args:
        start, length: the stretch in pixels of a line of `size`.
        mirror: bool; whether the result runs backwards.
    """
    factor = (length / out)[:, None]  # (n, 1)
    place = torch.arange(out, device=start.device) + 0.5  # (out,)
    place = torch.where(mirror[:, None], out - place, place)  # (n, out)
    center = start[:, None] + place * factor
    pixel = torch.arange(size, device=start.device) + 0.5
    weights = (pixel - center[..., None]).abs_()  # (n, out, size)
    weights.div_(factor.clamp(min=1)[..., None]).neg_().add_(1).clamp_(min=0)
    within = (pixel > start[:, None]) & (pixel < (start + length)[:, None])  # (n, size)
    weights.mul_(within[:, None])
    return weights.div_(weights.sum(dim=-1, keepdim=True))


class Batches:
    """Batches of float32 pictures (b, c, h, w), normalized, and labels int64 (b,).

    With `is_training` the order is new in each epoch and each picture is cropped, resized and
    mirrored at random with timm's parameters (`scale` and `ratio` of the crop, `hflip`, `vflip`);
    otherwise, or with `no_aug`, the whole picture is resized. Every draw is a function of seed,
    epoch and the picture's index, so any batch can be made again alone, and neither workers nor
    the number of ranks change what happens to a picture. Ranks take turns within a global batch:
    together they see what one process would with `world_size` times the batch size.

    Attributes:
        start: number of batches that the next iteration passes over, without work; iterating
            sets it back to zero.

    With `views` above one every picture is shown that often, cropped and mirrored anew: pictures
    (views · b, c, h, w), all first views before all second ones, and labels still (b,).

    Args:
        input_size: (c, h, w) of the batches; gray is repeated, colour becomes luma where asked.
        color_jitter: strength j in training: brightness, contrast and then saturation each change
            by a factor from 1 - j to 1 + j, in a share `color_jitter_prob` of the pictures.
        grayscale_prob: share of colour pictures that lose their colour in training.
        mean, std: of each channel, in [0, 1]; by default those of the data set.
        drop_last: leave out a smaller last batch; by default only in training.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        input_size: tuple[int, int, int] | None = None,
        mean: tuple | None = None,
        std: tuple | None = None,
        device: str | torch.device = "cpu",
        is_training: bool = False,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        vflip: float = 0.0,
        color_jitter: float = 0.0,
        color_jitter_prob: float = 1.0,
        grayscale_prob: float = 0.0,
        views: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool | None = None,
        no_aug: bool = False,
    ) -> None:
        height, width, channels = images.x.shape[1:]
        self.images, self.batch_size = images, batch_size
        self.input_size = tuple(input_size or (channels, height, width))
        self.device = torch.device(device)
        self.is_training, self.augments = is_training, is_training and not no_aug
        self.scale, self.ratio, self.hflip, self.vflip = scale, ratio, hflip, vflip
        self.color_jitter, self.color_jitter_prob = color_jitter, color_jitter_prob
        self.grayscale_prob, self.views = grayscale_prob, views
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.drop_last = is_training if drop_last is None else drop_last
        self.epoch = self.start = 0
        self._check()
        count = self.input_size[0]
        self.mean = _channels(mean or images.mean, count, self.device)
        self.std = _channels(std or images.std, count, self.device)
        self.y = torch.from_numpy(np.array(images.y, dtype=np.int64)).to(self.device)
        resident = self.device.type != "cpu" and images.x.nbytes <= RESIDENT
        self.x = torch.from_numpy(np.array(images.x)).to(self.device) if resident else None

    def _check(self) -> None:
        if self.batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"batch size {self.batch_size}, rank {self.rank} of {self.world_size}: the size "
                "must be at least 1 and the rank one of 0 .. world size - 1"
            )
        if self.input_size[0] not in (1, 3) or min(self.input_size) < 1:
            raise ValueError(f"input size {self.input_size}: give (1 or 3, height, width)")
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise ValueError(
                f"scale {self.scale} must rise within (0, 1], ratio {self.ratio} above 0"
            )
        if self.color_jitter < 0 or self.views < 1:
            raise ValueError(
                f"color jitter {self.color_jitter} must not be negative, views {self.views} at "
                "least 1"
            )
        if len(self) == 0 and (self.drop_last or not len(self.images)):
            raise ValueError(
                f"{len(self.images)} pictures make no batch of {self.batch_size} on each of "
                f"{self.world_size} ranks; take a smaller batch, or drop_last=False"
            )

    def __len__(self) -> int:
        """Batches of this rank; in evaluation the last ranks may have one less."""
        n = len(self.images)
        if self.drop_last:
            return n // (self.batch_size * self.world_size)
        mine = -(-(n if self.is_training else n - self.rank) // self.world_size)
        return -(-mine // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and draws the next iteration uses."""
        self.epoch = epoch

    def order(self) -> np.ndarray:
        """Indices that this rank sees in this epoch, in order: int64 (m,)."""
        index = np.arange(len(self.images))
        if self.is_training:
            index = np.argsort(uniform(self.seed, self.epoch, index, 1)[:, 0], kind="stable")
        if self.drop_last:
            index = index[: len(self) * self.batch_size * self.world_size]
        elif self.is_training:  # ranks must take equally many steps: repeat the first few
            index = np.resize(index, -(-len(index) // self.world_size) * self.world_size)
        return index[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order, start, self.start = self.order(), self.start, 0
        for first in range(start * self.batch_size, len(order), self.batch_size):
            index = order[first : first + self.batch_size]
            yield self.pictures(index), self.y[torch.from_numpy(index).to(self.device)]

    def pictures(self, index: np.ndarray) -> Tensor:
        """The pictures at some indices as this epoch shows them: (b,) -> float32
        (views · b, c, h, w)."""
        shown = [self._shown(index, view) for view in range(self.views)]
        return shown[0] if len(shown) == 1 else torch.cat(shown)

    def _shown(self, index: np.ndarray, view: int) -> Tensor:
        x = self._pixels(index)
        b, height, width, c = x.shape
        crop, mirror, color = self._draws(index, height, width, view)
        if crop is not None or (height, width) != self.input_size[1:]:
            top, left, h, w = crop if crop is not None else _whole(b, height, width, self.device)
            rows = resampling(top, h, height, self.input_size[1], mirror[1])
            columns = resampling(left, w, width, self.input_size[2], mirror[0])
            x = rows @ x.view(b, height, width * c)  # (b, out h, w * c)
            x = (
                x.view(b, -1, width, c).permute(0, 3, 1, 2).reshape(b, -1, width)
            )  # (b, c * out h, w)
            x = (x @ columns.mT).view(b, c, *self.input_size[1:])
        else:
            x = x.permute(0, 3, 1, 2).contiguous()
        if color is not None:
            x = self._recolored(x, *color)
        if c == 3 and self.input_size[0] == 1:
            x = gray(x)
        return (x - self.mean).div_(self.std)

    def _pixels(self, index: np.ndarray) -> Tensor:
        """float32 (b, h, w, c) in [0, 255]."""
        if self.x is None:
            return torch.from_numpy(self.images.x[index]).to(self.device).float()
        return self.x[torch.from_numpy(index).to(self.device)].float()

    def _recolored(self, x: Tensor, change: Tensor, factors: Tensor, colorless: Tensor) -> Tensor:
        """Brightness, contrast and saturation changed, and colour lost, where drawn so: pixels
        (b, c, h, w), bool (b,), (3, b), bool (b,)."""
        bright, contrast, saturation = factors.where(change, 1.0)[..., None, None, None]
        x = (x * bright).clamp_(0, 255)
        mean = gray(x).mean(dim=(1, 2, 3), keepdim=True)
        x = (mean + (x - mean) * contrast).clamp_(0, 255)
        if x.shape[1] == 1:
            return x
        x = (gray(x) + (x - gray(x)) * saturation).clamp_(0, 255)
        return torch.where(colorless[:, None, None, None], gray(x), x)

    def _draws(self, index: np.ndarray, height: int, width: int, view: int) -> tuple:
        """Crop (or None: the whole picture); whether to mirror left-right and top-bottom; and what
        `_recolored` takes (or None)."""
        if not self.augments:
            return None, torch.zeros(2, len(index), dtype=torch.bool, device=self.device), None
        last = 3 + 4 * ATTEMPTS  # 0 gave the order
        count = last + 5
        u = uniform(self.seed, self.epoch, index, count * (view + 1))[:, count * view :]
        mirror = torch.from_numpy(np.stack([u[:, 1] < self.hflip, u[:, 2] < self.vflip]))
        crop = np.stack(random_crops(u[:, 3:last], height, width, self.scale, self.ratio))
        crop = torch.from_numpy(crop.astype(np.float32)).to(self.device)
        color = None
        if self.color_jitter or self.grayscale_prob:
            j = self.color_jitter
            factors = max(1 - j, 0) + (1 + j - max(1 - j, 0)) * u[:, last + 1 : last + 4].T
            color = (
                torch.from_numpy(u[:, last] < self.color_jitter_prob).to(self.device),
                torch.from_numpy(factors.astype(np.float32)).to(self.device),
                torch.from_numpy(u[:, last + 4] < self.grayscale_prob).to(self.device),
            )
        return crop, mirror.to(self.device), color


def gray(x: Tensor) -> Tensor:
    """Luma of pictures: (b, 3, h, w) -> (b, 1, h, w); gray ones as they are."""
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor(LUMA, device=x.device).view(3, 1, 1)).sum(dim=1, keepdim=True)


def _whole(b: int, height: int, width: int, device: torch.device) -> Tensor:
    return torch.tensor([0.0, 0.0, height, width], device=device)[:, None].expand(4, b)


def _channels(values, count: int, device: torch.device) -> Tensor:
    """Statistics in [0, 1] as (c, 1, 1) in [0, 255], one value repeated or several averaged."""
    values = torch.tensor(values, dtype=torch.float32, device=device).reshape(-1)
    if len(values) not in (1, count):
        values = values.mean(dim=0, keepdim=True)
    return values.expand(count).reshape(count, 1, 1) * 255
