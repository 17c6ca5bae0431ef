"""Input transforms that cost a multiply-add a pixel: small enough to be fitted to one chip, and kept for each.

Written as G of F(x) = clip(x + G(x), -1, 1) (`generators.NeuralFuse`), like the generators; at first G = 0. Their
numbers are fixed for a shape of images. They are stored like weights (`stored_weights`): as words, with a scale for
each tensor.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Offset(nn.Module):
    """G(x) = tanh(u), one u for all images: the universal input perturbation (Sun et al., arXiv 2306.16869, table 11).

    >>> Offset(1, 2, 2)(torch.full((1, 1, 2, 2), 0.5)).unique().item()
    0.0
    """

    stored_weights = ("u",)

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        self.u = nn.Parameter(torch.zeros(channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.u).expand(len(x), -1, -1, -1)


class Affine(nn.Module):
    """G(x) = a x + b with a and b for each pixel (`per="pixel"`) or each channel (`per="channel"`).

    Images may come padded at the lower right (as NeuralFuse does); what is padded gets no numbers.

    >>> affine = Affine(1, 2, 2)
    >>> affine(torch.ones(3, 1, 2, 2)).abs().max().item(), sum(p.numel() for p in affine.parameters())
    (0.0, 8)
    """

    stored_weights = ("scale", "offset")

    def __init__(self, channels: int, height: int, width: int, per: str = "pixel"):
        super().__init__()
        self.size = height, width
        shape = (channels, height, width) if per == "pixel" else (channels, 1, 1)
        self.scale, self.offset = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        return x[..., :height, :width] * self.scale + self.offset


def affine_per_channel(channels: int, height: int, width: int) -> Affine:
    """`Affine` with a and b for each channel."""
    return Affine(channels, height, width, per="channel")


PIXELWISE: dict[str, Callable[[int, int, int], nn.Module]] = {
    "universal": Offset,
    "affine": Affine,
    "channel_affine": affine_per_channel,
}
