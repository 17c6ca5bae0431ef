"""A network that was trained on images with a mean and a deviation of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sram.errors import InputError


def normalised(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The network, made to take images in [-1, 1]: it sees (pixel - mean) / std of pixels in [0, 1], by channel.

    Transforms clip and faults are injected before it, where images are as the tool has them. Its parameters keep their
    names: it is the same module, with a step before its own.

    >>> first = normalised(nn.Flatten(), mean=[0.25, 0.5], std=[0.5, 1.0])
    >>> first(torch.tensor([[[[1.0]], [[0.0]]]])).tolist()
    [[1.5, 0.0]]
    """
    if len(mean) != len(std):
        raise InputError("network", "mean, std", f"{len(mean)}, {len(std)} numbers", "one of each for each channel")
    kind: Any = type(network)

    class Normalised(kind):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.image_scale + self.image_shift)

    Normalised.__name__ = Normalised.__qualname__ = kind.__name__
    given, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    network.register_buffer("image_scale", 0.5 / spread, persistent=False)
    network.register_buffer("image_shift", (0.5 - given) / spread, persistent=False)
    network.__class__ = Normalised
    return network
