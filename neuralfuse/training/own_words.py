"""A generator whose own words lie in the low-voltage weight memory, and how it is trained to survive that.

Its inference then costs its weight reads at the low supply too. With T_NF reads of a generator, T_base of the network
and s = 1 - (V / V nominal)^2, the saving of weight-SRAM energy is s - (1 - s) T_NF / T_base instead of
s - T_NF / T_base.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.chips.sources import NONE, Both
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.quantized.quantize import quantize, weight_parameters
from sram.inject import StoredWords


@contextmanager
def read_words(transform: nn.Module, bits: int) -> Iterator[Callable[[FaultyBits], None]]:
    """Inside the block the transform computes with its words as read through the faults last given; at first, none.

    Gradients are those at the numbers read, taken as the gradients of the numbers written: the straight-through
    estimator, of rounding and of faults alike. After the block the numbers written are back, unrounded.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[1.0, -0.5]])
    >>> with read_words(layer, 8) as read:
    ...     read((np.array([0]), np.array([6], np.uint8), np.array([0], np.uint8)))  # bit 6 of 127 stuck at 0: 63
    ...     print([round(127 * value) for value in layer.weight[0].tolist()])
    [63, -64]
    >>> layer.weight.tolist()
    [[1.0, -0.5]]
    """
    weights = list(weight_parameters(transform).values())
    written = [weight.data for weight in weights]
    stored, scales = zip(*(quantize(one, bits) for one in written), strict=True)
    clean = torch.cat([one.flatten().cpu() for one in stored]).numpy()
    scale = np.array([float(one) for one in scales], np.float32)
    start = np.cumsum([0, *(one.numel() for one in written)])
    words = StoredWords(clean, clean * np.repeat(scale, np.diff(start)), start[:-1], scale, bits)

    def read(faults: FaultyBits) -> None:
        words.set_faults(*faults)
        for weight, one, a, b in zip(weights, written, start[:-1], start[1:], strict=True):
            weight.data = torch.from_numpy(words.values[a:b].reshape(one.shape)).to(one, copy=True)

    try:
        read(NONE)
        yield read
    finally:
        for weight, one in zip(weights, written, strict=True):
            weight.data = one


@dataclass(frozen=True)
class OwnFaults:
    """EOPM where map i hits the generator too, an objective of `training.train_generator` for draws of `Both`.

        L(G) = CE(M0(F(x)), y) + lambda / N * sum_i CE(Mp_i(Fp_i(x)), y)

    Every term has a transform Fp_i of its own, so each costs a generator pass forward and backward.
    """

    bits: int = 8

    def __call__(
        self, faulty: FaultyNetwork, transform: nn.Module, x: Tensor, y: Tensor, maps: Iterable[Both], n: int,
        weight: float = 5.0,
    ) -> tuple[float, float]:  # fmt: skip
        """Add the gradient to the parameters of `transform`; return the clean loss and the mean faulty loss."""
        with read_words(transform, self.bits) as read:
            clean = F.cross_entropy(faulty(transform(x)), y)
            clean.backward()
            # With the statistics that it will have on a chip: those of the batch would take much of a fault back.
            transform.eval()
            total = clean.new_zeros(())
            try:
                for both in maps:
                    faulty.set_faults(*both.network)
                    read(both.generator)
                    loss = F.cross_entropy(faulty(transform(x)), y)
                    (loss * (weight / n)).backward()
                    total += loss.detach()
            finally:
                transform.train()
                faulty.restore()
        return clean.item(), total.item() / n
