"""Where the fault maps of training come from: a source is a function of the draw's number, so a run can go on anywhere.

`source(draw)` gives (weight int64[k], bit uint8[k], kind uint8[k]) of one training chip at one training voltage.
Chips of an evaluation are never drawn: training chips are numbered from FIRST_TRAINING_CHIP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Faults = tuple[np.ndarray, np.ndarray, np.ndarray]  # weight int64[k], bit uint8[k], kind uint8[k]
Source = Callable[[int], Faults]

FIRST_TRAINING_CHIP = 1_000_000


@dataclass(frozen=True)
class IndependentCells:
    """Every stored bit has its own cell, faulty with the same probability: stuck at 0 or 1 in equal parts.

    `cell_fault_rates` are drawn in turn, so a training can run over a distribution of rates.

    >>> weight, bit, kind = IndependentCells(words=1000, cell_fault_rates=(0.01,))(draw=7)
    >>> bool(40 < weight.size < 120), int(weight.max()) < 1000
    (True, True)
    """

    words: int
    cell_fault_rates: Sequence[float]
    bits: int = 8
    seed: int = 0

    def __call__(self, draw: int) -> Faults:
        random = np.random.Generator(np.random.Philox(key=[self.seed, FIRST_TRAINING_CHIP + draw]))
        rate = self.cell_fault_rates[draw % len(self.cell_fault_rates)]
        cell = bernoulli(random, self.words * self.bits, rate)
        kind = random.integers(0, 2, cell.size, dtype=np.uint8)
        return cell // self.bits, (cell % self.bits).astype(np.uint8), kind


def bernoulli(random: np.random.Generator, n: int, rate: float) -> np.ndarray:
    """Rising indices below n, each chosen with probability `rate`: cost in proportion to what is chosen, not to n."""
    if rate <= 0:
        return np.empty(0, np.int64)
    expected = n * rate
    # gaps of a Bernoulli sequence are geometric; six sigmas more than enough, and again in the case that they are not
    index = np.cumsum(random.geometric(rate, int(expected + 6 * expected**0.5 + 10))) - 1
    while index[-1] < n:
        index = np.append(index, index[-1] + np.cumsum(random.geometric(rate, 10)))
    return index[: np.searchsorted(index, n)]


@dataclass(frozen=True)
class Pool:
    """Only the first `size` maps of a source, again and again: cheaper where a map costs more than a pass."""

    source: Source
    size: int

    def __call__(self, draw: int) -> Faults:
        return self.source(draw % self.size)
