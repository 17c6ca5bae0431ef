"""Images as a worse camera or worse light would give them. Kinds and five severities follow the idea of Hendrycks and
Dietterich (ICLR 2019); the constants are our own, so results do not compare with theirs."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # images at a time
Corrupt = Callable[[Tensor, float, torch.Generator], Tensor]  # pixels in [0, 1], constant, random numbers


def _noise(x: Tensor, deviation: float, random: torch.Generator) -> Tensor:
    return x + deviation * torch.randn(x.shape, generator=random)


def _blur(x: Tensor, share: float, _: torch.Generator) -> Tensor:
    """By a Gaussian whose deviation is a share of the image's height; edges go on as they are."""
    sigma, channels = share * x.shape[-2], x.shape[1]
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    row = (weights / weights.sum()).expand(channels, 1, 1, -1)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, row, groups=channels), row.transpose(2, 3), groups=channels)


def _contrast(x: Tensor, share: float, _: torch.Generator) -> Tensor:
    """What is left of each channel's distance from its mean."""
    middle = x.mean((2, 3), keepdim=True)
    return middle + share * (x - middle)


def _pixelate(x: Tensor, share: float, _: torch.Generator) -> Tensor:
    """To so much of its height and width, and back."""
    size = [max(1, round(share * edge)) for edge in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, size, mode="area"), x.shape[-2:], mode="nearest-exact")


KINDS: dict[str, tuple[Corrupt, Sequence[float]]] = {
    "gaussian_noise": (_noise, (0.05, 0.1, 0.15, 0.2, 0.3)),  # standard deviation
    "blur": (_blur, (0.02, 0.03, 0.04, 0.06, 0.08)),  # of the height
    "brightness": (lambda x, more, _: x + more, (0.1, 0.2, 0.3, 0.4, 0.5)),  # added
    "contrast": (_contrast, (0.75, 0.6, 0.45, 0.3, 0.15)),  # left
    "pixelate": (_pixelate, (0.5, 0.4, 0.3, 0.25, 0.2)),  # of height and width
}


def corrupted(images: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """Images float32[n, channels, height, width] in [-1, 1], corrupted and cut to that range; `severity` 1 to 5. Noise
    is a function of the seed and the number of the image.

    >>> corrupted(torch.tensor([[[[-1.0, 0.75]]]]), "brightness", severity=5).tolist()
    [[[[0.0, 1.0]]]]
    """
    corrupt, constants = KINDS[kind]
    random = torch.Generator().manual_seed(seed)
    parts = (corrupt((part + 1) / 2, constants[severity - 1], random) for part in images.split(CHUNK))
    return torch.cat([(2 * part - 1).clamp(-1, 1) for part in parts])
