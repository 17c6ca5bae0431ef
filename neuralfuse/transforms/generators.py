"""NeuralFuse: a small network G before the frozen one, F(x) = clip(x + G(x), -1, 1).

The six generators of Sun et al. (NeurIPS 2024, arXiv 2306.16869, appendix), layer for layer. `width` is the number of
channels of the first layer (32 for the convolutional four, 16 and 8 for UNetL and UNetS); all inner layers scale with
it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.networks import bounded
from neuralfuse.transforms.pixelwise import PIXELWISE
from sram.errors import InputError
from sram.plugins import imported


class NeuralFuse(nn.Module):
    """F(x) = clip(x + G(x), -1, 1) for images x in [-1, 1] of any size.

    The generators halve the map three times and a UNet needs 2x2 at its bottom, so sizes below 16 or off a multiple
    of 8 are padded at the lower right and cut again.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.added(x)).clamp(-1, 1)

    def added(self, x: Tensor) -> Tensor:
        """G(x), of the size of x."""
        height, width = x.shape[-2:]
        below, right = max(16 - height, -height % 8), max(16 - width, -width % 8)
        padded = F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
        return self.generator(padded)[..., :height, :width]


def conv(cin: int, cout: int, bias: bool = True, last: nn.Module | None = None) -> list[nn.Module]:
    """A 3x3 convolution that keeps the map, BatchNorm, ReLU or `last`."""
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=bias), nn.BatchNorm2d(cout), last or nn.ReLU(inplace=True)]


def deconv(cin: int, cout: int, last: nn.Module | None = None) -> list[nn.Module]:
    """Doubles the map: transposed convolution, kernel 4, stride 2, padding 1."""
    return [nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), last or nn.ReLU(inplace=True)]


def conv_l(c: int, w: int) -> nn.Module:
    """ConvL of the paper, for `c` channels and first width `w`."""
    down, up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(
        *(*conv(c, w), *conv(w, w), down),
        *(*conv(w, 2 * w), *conv(2 * w, 2 * w), down),
        *(*conv(2 * w, 4 * w), *conv(4 * w, 4 * w), down),
        *(*conv(4 * w, 4 * w), up, *conv(4 * w, 4 * w)),
        *(*conv(4 * w, 2 * w), up, *conv(2 * w, 2 * w)),
        *(*conv(2 * w, w), up, *conv(w, w)),
        *conv(w, c, last=nn.Tanh()),
    )


def conv_s(c: int, w: int) -> nn.Module:
    """ConvS of the paper."""
    down, up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(
        *(*conv(c, w), down),
        *(*conv(w, 2 * w), down),
        *(*conv(2 * w, 2 * w), down),
        *(*conv(2 * w, 2 * w), up),
        *(*conv(2 * w, w), up),
        *(*conv(w, c), up),
        *conv(c, c, last=nn.Tanh()),
    )


def deconv_l(c: int, w: int) -> nn.Module:
    """DeConvL of the paper."""
    down = nn.MaxPool2d(2)
    return nn.Sequential(
        *(*conv(c, w), *conv(w, w), down),
        *(*conv(w, 2 * w), *conv(2 * w, 2 * w), down),
        *(*conv(2 * w, 4 * w), *conv(4 * w, 4 * w), down),
        *conv(4 * w, 4 * w),
        *(*deconv(4 * w, 2 * w), *conv(2 * w, 2 * w)),
        *(*deconv(2 * w, w), *conv(w, w)),
        *deconv(w, c, last=nn.Tanh()),
    )


def deconv_s(c: int, w: int) -> nn.Module:
    """DeConvS of the paper."""
    down = nn.MaxPool2d(2)
    return nn.Sequential(
        *(*conv(c, w), down),
        *(*conv(w, 2 * w), down),
        *(*conv(2 * w, 2 * w), down),
        *deconv(2 * w, 2 * w),
        *deconv(2 * w, w),
        *deconv(w, c, last=nn.Tanh()),
    )


def tiny(c: int, w: int) -> nn.Module:
    """Not the paper's: two 3x3 convolutions, at first G = 0; small enough to be kept for each chip."""
    last = nn.Conv2d(w, c, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(c, w, 3, padding=1), nn.ReLU(), last)


class Up(nn.Module):
    """Transposed convolution k2 s2 with padding 1 (2i - 2), zero-padded back to 2i; joined with the skip; two
    convolutions."""

    def __init__(self, cin: int):
        super().__init__()
        half = cin // 2
        self.deconv = nn.ConvTranspose2d(cin, half, 2, 2, 1)
        self.convs = nn.Sequential(*conv(cin, half, bias=False), *conv(half, half, bias=False))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, F.pad(self.deconv(x), (1, 1, 1, 1))], 1))


class UNet(nn.Module):
    """UNetL or UNetS of the paper: three halvings, each joined with its skip on the way up."""

    def __init__(self, c: int, w: int):
        super().__init__()
        self.first = nn.Sequential(*conv(c, w, bias=False), *conv(w, w, bias=False))
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), *conv(k, 2 * k, bias=False), *conv(2 * k, 2 * k, bias=False))
            for k in (w, 2 * w, 4 * w)
        )
        self.up = nn.ModuleList(Up(k) for k in (8 * w, 4 * w, 2 * w))
        self.out = nn.Conv2d(w, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.first(x)]
        for stage in self.down:
            skips.append(stage(skips[-1]))
        x = skips.pop()
        for stage in self.up:
            x = stage(x, skips.pop())
        return self.out(x)


GENERATORS: dict[str, tuple[Callable[[int, int], nn.Module], int]] = {
    "ConvL": (conv_l, 32),
    "ConvS": (conv_s, 32),
    "DeConvL": (deconv_l, 32),
    "DeConvS": (deconv_s, 32),
    "UNetL": (UNet, 16),
    "UNetS": (UNet, 8),
}


SMALL: dict[str, tuple[Callable[[int, int], nn.Module], int]] = {"tiny": (tiny, 8)}


@torch.no_grad()
def silence(generator: nn.Module) -> nn.Module:
    """Set the last parametrised layer of a generator to zero, so that G = 0 and F starts as the identity.

    >>> silence(build("ConvS", 1))(torch.rand(2, 1, 16, 16)).abs().max().item()
    0.0
    """
    last = [module for module in generator.modules() if list(module.parameters(recurse=False))][-1]
    for parameter in last.parameters(recurse=False):
        parameter.zero_()
    return generator


def names() -> list[str]:
    """The paper's six generators, as `build` knows them."""
    return list(GENERATORS)


def build(
    name: str,
    in_channels: int = 3,
    width: int | None = None,
    seed: int = 0,
    size: tuple[int, int] = (32, 32),
    identity: bool = False,
    **options: Any,
) -> nn.Module:
    """Return a freshly initialised generator G; `width=None` is the paper's.

    With `identity` its last layer is zero, so that F starts as the identity, as it always does with the small ones.
    `tiny` is two convolutions; `universal`, `affine` and `channel_affine` (`pixelwise`) have numbers for each pixel or
    channel of images of `size`.

    A generator of one's own, `package.module:callable`, is called with `in_channels`, `width` if given, and `options`.

    >>> sum(p.numel() for p in build("ConvS").parameters())
    113187
    """
    if width is not None and not (isinstance(width, int) and width >= 1):
        raise InputError("generator", "width", width, "at least 1 channel")
    own = {} if width is None else {"width": width}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in name:
            make = imported(name, "generator")
            try:
                made = make(in_channels=in_channels, **own, **options)
            except TypeError as error:
                raise InputError("generator", f"{name} options", own | options, str(error)) from None
            if not isinstance(made, nn.Module):
                raise InputError("generator", name, type(made).__name__, "a callable that returns a torch.nn.Module")
            return silence(made) if identity else made
        if name in PIXELWISE:
            if own or options:
                raise InputError("generator", f"{name} options", own | options, "none")
            return PIXELWISE[name](in_channels, *size)
        if name not in GENERATORS | SMALL:
            known = ", ".join([*names(), *SMALL, *PIXELWISE])
            raise InputError("generator", "name", name, f"one of {known}, package.module:callable")
        if options:
            raise InputError("generator", f"{name} options", options, "width, identity")
        built_in, paper_width = (GENERATORS | SMALL)[name]
        bounded(name, lambda: built_in(in_channels, width or paper_width))
        made = built_in(in_channels, width or paper_width)
    return silence(made) if identity else made
