"""Pictures made worse in seven ways at five levels, after Hendrycks and Dietterich (2019).

Each takes pictures (b, c, h, w) between 0 and 1 as a network sees them, and a level from 1 to 5.
Widths of blur and pixels are shares of the picture's side, so that levels mean the same at 32 as at
224 pixels.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

LEVELS = (1, 2, 3, 4, 5)


def gaussian_noise(x: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Normal noise of a standard deviation of 4 % to 26 % of white."""
    sigma = (0.04, 0.08, 0.12, 0.18, 0.26)[level - 1]
    return x + sigma * torch.randn(x.shape, generator=generator).to(x)


def impulse_noise(x: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """1 % to 17 % of the pixels black or white."""
    share = (0.01, 0.03, 0.06, 0.10, 0.17)[level - 1]
    draw = torch.rand(x.shape[0], 1, *x.shape[2:], generator=generator).to(x)
    return torch.where(draw < share, (draw < share / 2).to(x), x)


def gaussian_blur(x: Tensor, level: int, _) -> Tensor:
    """Blur of a standard deviation of 1 % to 6 % of the picture's side."""
    sigma = (0.01, 0.02, 0.03, 0.04, 0.06)[level - 1] * min(x.shape[2:])
    radius = max(1, round(3 * sigma))
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    weights = (-(offset**2) / (2 * sigma**2)).exp()
    weights = weights / weights.sum()
    b, c, h, w = x.shape
    x = F.pad(x.reshape(b * c, 1, h, w), (radius,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return x.view(b, c, h, w)


def contrast(x: Tensor, level: int, _) -> Tensor:
    """Contrast down to 75 % to 15 %."""
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[level - 1]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * factor + mean


def brightness(x: Tensor, level: int, _) -> Tensor:
    """10 % to 50 % of white added."""
    return x + 0.1 * level


def pixelate(x: Tensor, level: int, _) -> Tensor:
    """Resolution down to 60 % to 20 %."""
    share = (0.6, 0.45, 0.35, 0.28, 0.2)[level - 1]
    small = [max(1, round(share * side)) for side in x.shape[2:]]
    small = F.interpolate(x, small, mode="area")
    return F.interpolate(small, x.shape[2:], mode="nearest")


def jpeg(x: Tensor, level: int, _) -> Tensor:
    """JPEG of quality 50 down to 7."""
    quality = (50, 25, 18, 10, 7)[level - 1]
    pixels = (x.clamp(0, 1) * 255).round().byte().cpu()
    return torch.stack([through_jpeg(picture, quality) for picture in pixels]).to(x)


def through_jpeg(picture: Tensor, quality: int) -> Tensor:
    """One picture uint8 (c, h, w), saved and read again: float (c, h, w) between 0 and 1."""
    gray = picture.shape[0] == 1
    pixels = picture[0] if gray else picture.permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=quality)
    read = torch.from_numpy(np.array(Image.open(file))).float() / 255
    return read[None] if gray else read.permute(2, 0, 1)


CORRUPTIONS = {
    "Gaussian noise": gaussian_noise,
    "impulse noise": impulse_noise,
    "Gaussian blur": gaussian_blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
    "JPEG": jpeg,
}


def corrupted(x: Tensor, name: str, level: int, seed: int) -> Tensor:
    """Pictures (b, c, h, w) in [0, 1] after one of CORRUPTIONS, in [0, 1] again."""
    seed = hash((seed, list(CORRUPTIONS).index(name), level)) % 2**63
    return CORRUPTIONS[name](x, level, torch.Generator().manual_seed(seed)).clamp(0, 1)
