"""Input transforms of sequences and other features: the same numbers at every step.

F(x) = x + G(x) of features float32[n, ..., features], which have no bounds to clip at; at first G = 0. Their numbers
are stored like weights (`stored_weights`), as those of pixelwise.py.
"""

from typing import Any

import torch
from torch import Tensor, nn

from neuralfuse.transforms import generators
from neuralfuse.transforms.generators import NeuralFuse, silence
from sram.errors import InputError


class FeatureFuse(NeuralFuse):
    """F(x) = x + G(x) for features [n, ..., features].

    >>> FeatureFuse(Affine(3))(torch.ones(2, 5, 3)).unique().item()
    1.0
    """

    def forward(self, x: Tensor) -> Tensor:
        return x + self.added(x)

    def added(self, x: Tensor) -> Tensor:
        """G(x), of the size of x."""
        added: Tensor = self.generator(x)
        return added


class Affine(nn.Module):
    """G(x) = a x + b with a and b for each feature."""

    stored_weights = ("scale", "offset")

    def __init__(self, features: int):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


def mixer(features: int, width: int | None = None) -> nn.Module:
    """Two linear layers at each step, `width` (four times the features) between them."""
    width = width or 4 * features
    return silence(nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, features)))


FEATUREWISE = ("affine", "mixer")


def build(name: str, features: int, seed: int = 0, identity: bool = True, **options: Any) -> nn.Module:
    """A freshly initialised G for so many features: `affine`, `mixer` (option `width`), or `package.module:callable`,
    which is called with `in_channels` and `options`. G = 0 at first unless a callable's is not `identity`.

    >>> sum(p.numel() for p in build("mixer", 12, width=20).parameters())
    512
    """
    if ":" in name:
        return generators.build(name, features, seed=seed, identity=identity, **options)
    if name not in FEATUREWISE:
        known = ", ".join([*FEATUREWISE, "package.module:callable"])
        raise InputError("generator", "name", name, f"one of {known} for features")
    width = options.pop("width", None)
    if options or (width is not None and (name == "affine" or not isinstance(width, int) or width < 1)):
        allowed = "none" if name == "affine" else "width, 1 or more"
        raise InputError("generator", f"{name} options", options | {"width": width}, allowed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Affine(features) if name == "affine" else mixer(features, width)
