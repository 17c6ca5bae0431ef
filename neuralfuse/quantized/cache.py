"""Keys and values of attention as words in a memory of their own, whose weak cells read wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse.networks.kept import Kept
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.quantize import encode, numbers, quantize
from simulator.activation_placement import place_kept
from simulator.placement import Placement
from sram.errors import InputError
from sram.geometry import Geometry
from sram.inject import FLIP


@dataclass
class _Part:
    """The keys, or the values, of one layer."""

    name: str
    module: Kept
    shape: tuple[int, ...]  # (heads, tokens, width)
    scale: float
    masks: tuple[Tensor, ...] | None = field(default=None, repr=False)  # element, zero, one, flip

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))


class FaultyCache:
    """All that a network keeps (`neuralfuse.networks.kept.Kept`), in words of a format, read through the faults that
    are set. From then on the network's answers are those of the words, without faults too.

    `sample`: items [n, tokens, ...] of full length; where a format has a scale, the largest number of each part in them
    becomes its largest word, once and for all. Larger ones are clamped. A token's keys lie together, head after head,
    and tokens one after the other, each part from a new memory word on; all items pass through the same cells. Formats
    are `int` of up to 8 bits, `bf16`, `fp8_e4m3` and `fp8_e5m2`, with one scale a part. InputError for other formats,
    and for networks that keep nothing.

    >>> from neuralfuse import networks
    >>> net = networks.build("chardecoder", 5, 5, dim=8, depth=1, heads=2).eval()
    >>> x = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    >>> cache = FaultyCache(net, x)
    >>> [(part.name, part.shape) for part in cache.parts]
    [('blocks.0.keys', (2, 4, 4)), ('blocks.0.values', (2, 4, 4))]
    >>> before = net(x)
    >>> cache.set_faults(np.array([0]), np.array([7], np.uint8), np.array([2], np.uint8))  # a sign, in the first's key
    >>> (net(x) != before).any(-1).tolist()  # all read it, but the first looks at nothing else
    [[False, True, True, True], [False, True, True, True]]
    >>> cache.restore()
    >>> bool((net(x) == before).all())
    True
    """

    def __init__(self, network: nn.Module, sample: Tensor, words: WordFormat | None = None):
        self.network, self.words = network, words or WordFormat()
        if self.words.shared or self.words.per_channel or self.words.group:
            raise InputError("cache", "format", self.words, "int, bf16, fp8_e4m3, fp8_e5m2, with one scale a part")
        found = {name: module for name, module in network.named_modules() if isinstance(module, Kept)}
        if not found:
            allowed = "a network whose attention calls neuralfuse.networks.kept.Kept"
            raise InputError("cache", "network", type(network).__name__, allowed)
        seen: dict[str, tuple[tuple[int, ...], float]] = {}

        def look(name: str, x: Tensor) -> Tensor:
            seen[name] = tuple(x.shape[1:]), quantize(x, self.words)[1].item()
            return x

        with torch.inference_mode():
            for name, module in found.items():
                module.through = partial(look, name)
            network(sample)
        self.parts = [_Part(name, module, *seen[name]) for name, module in found.items() if name in seen]
        for part in self.parts:
            part.module.through = self._reader(part)
        ends = np.cumsum([part.elements for part in self.parts])
        self.first = np.concatenate([[0], ends[:-1]])  # of each part, its first element

    def geometry(self, rows: int = 512, columns: int = 64, word_bits: int = 64) -> Geometry:
        """The cells of a memory of such banks that holds each element once."""
        words = sum(-(-part.elements // (word_bits // self.words.bits)) for part in self.parts)
        return Geometry.of_capacity(words * word_bits // 8, rows, columns, word_bits)

    def place(self, geometry: Geometry) -> Placement:
        """Where each element lies in a memory. InputError for one in which they do not all fit."""
        tensors = [(part.name, part.elements) for part in self.parts]
        return place_kept(tensors, geometry, self.words.bits)

    def set_faults(self, element: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
        """Make these the only faults: element int64[k] in the numbering of `place`, bit uint8[k], kind uint8[k] (0 and
        1: stuck at it, 2: flipped)."""
        which = np.searchsorted(self.first, element, side="right") - 1
        for i, part in enumerate(self.parts):
            inside = which == i
            part.masks = self._masks(element[inside] - self.first[i], bit[inside], kind[inside])

    def restore(self) -> None:
        """Back to the words as written."""
        for part in self.parts:
            part.masks = None

    def remove(self) -> None:
        """Back to numbers that are no words."""
        for part in self.parts:
            part.module.through = None

    def _masks(self, element: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> tuple[Tensor, ...] | None:
        if not len(element):
            return None
        unique, row = np.unique(element, return_inverse=True)
        masks = np.zeros((FLIP + 1, len(unique)), np.int64)
        np.bitwise_or.at(masks, (kind, row), np.left_shift(1, bit, dtype=np.int64))
        return torch.from_numpy(unique), *map(torch.from_numpy, masks)

    def _reader(self, part: _Part) -> Callable[[Tensor], Tensor]:
        def read(x: Tensor) -> Tensor:
            if tuple(x.shape[1:]) != part.shape:
                raise InputError("cache", part.name, list(x.shape[1:]), f"{list(part.shape)}, as in the sample")
            stored = encode(x.float() / part.scale, self.words)
            if part.masks is not None:
                element, zero, one, flip = (mask.to(stored.device) for mask in part.masks)
                token, rest = element // (part.shape[0] * part.shape[2]), element % (part.shape[0] * part.shape[2])
                at = (slice(None), rest // part.shape[2], token, rest % part.shape[2])
                read = ((stored[at].long() & ~zero) | one) ^ flip
                top = 1 << self.words.bits - 1
                stored[at] = (((read & 2 * top - 1) ^ top) - top).to(stored.dtype)  # sign-extended
            return (numbers(stored, self.words) * part.scale).to(x.dtype)

        return read
