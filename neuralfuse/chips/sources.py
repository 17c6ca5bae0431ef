"""Where the fault maps of training come from: a source is a function of the draw's number, so a run can go on anywhere.

`source(draw)` gives (weight int64[k], bit uint8[k], kind uint8[k]) of one training chip at one training voltage, or its
`DieFaults` where more than the weights are lowered.
Chips of an evaluation are never drawn: training chips are numbered from FIRST_TRAINING_CHIP.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork, Numbering
from neuralfuse.quantized.integer import Faults
from simulator.placement import Placement
from sram import faultmap, paper
from sram.faultmap import FaultMap
from sram.memory import Chip, Memory

Source = Callable[[int], Faults]


@dataclass(frozen=True)
class IndependentCells:
    """Every stored bit has its own cell, faulty with the same probability: stuck at 0 or 1 in equal parts, or (mode
    "flip") always read wrong.

    `cell_fault_rates` are drawn in turn, so a training can run over a distribution of rates.

    >>> weight, bit, kind = IndependentCells(words=1000, cell_fault_rates=(0.01,))(draw=7)
    >>> bool(40 < weight.size < 120), int(weight.max()) < 1000
    (True, True)
    """

    words: int
    cell_fault_rates: Sequence[float]
    bits: int = 8
    seed: int = 0
    mode: str = "stuck"

    def __call__(self, draw: int) -> FaultyBits:
        random = np.random.Generator(np.random.Philox(key=[self.seed, FIRST_TRAINING_CHIP + draw]))
        rate = self.cell_fault_rates[draw % len(self.cell_fault_rates)]
        cell = bernoulli(random, self.words * self.bits, rate)
        stuck = self.mode == "stuck"
        kind = random.integers(0, 2, cell.size, dtype=np.uint8) if stuck else np.full(cell.size, 2, np.uint8)
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
class Chips:
    """Training chips of a lot: a memory's fault maps, placed by the accelerator's schedule.

    `voltages` (in the curve's unit) are drawn in turn, each draw on a chip of its own. `numbering` comes from
    `FaultyNetwork.numbering(placement.tensors)`.
    """

    memory: Memory
    placement: Placement
    numbering: Numbering
    voltages: Sequence[float]
    seed: int = 0

    def __call__(self, draw: int) -> FaultyBits:
        voltage = self.voltages[draw % len(self.voltages)]
        chip, banks = Chip(FIRST_TRAINING_CHIP + draw, self.seed), self.placement.banks
        found = chip.fault_map(self.memory, voltage, banks=banks)
        return placed(self.placement, self.numbering, found.at(voltage))


@dataclass(frozen=True)
class Maps:
    """Given fault maps (imported from measured chips, say), at voltages drawn in turn."""

    placement: Placement
    numbering: Numbering
    maps: Sequence[FaultMap]
    voltages: Sequence[float]

    def __call__(self, draw: int) -> FaultyBits:
        round, which = divmod(draw, len(self.maps))
        return placed(self.placement, self.numbering, self.maps[which].at(self.voltages[round % len(self.voltages)]))


@dataclass(frozen=True)
class PaperMaps:
    """Maps of the paper's reference code: one array of 8192 x 128 cells, drawn from NumPy's legacy generator.

    The placement is the `paper` schedule: a cell holds a bit of 16 weights of every layer, or more. Map number `draw`
    has seed `first_seed` + 2 draw, for a map also uses the next seed's stream; the paper's evaluation counts from 0.
    """

    placement: Placement
    numbering: Numbering
    cell_fault_rates: Sequence[float]
    first_seed: int = FIRST_TRAINING_CHIP

    def __call__(self, draw: int) -> FaultyBits:
        chip = paper.fault_map(self.first_seed + 2 * draw, self.cell_fault_rates[draw % len(self.cell_fault_rates)])
        return placed(self.placement, self.numbering, chip.at(chip.voltage_floor))


def placed(placement: Placement, numbering: Numbering, faults: faultmap.Faults) -> FaultyBits:
    """Faulty cells -> faulty bits of the network's words."""
    weight, bit, kind = placement.faults(faults.cell, faults.kind)
    return numbering.words(weight), bit, kind


@dataclass(frozen=True)
class Pool:
    """Only the first `size` maps of a source, again and again, kept in memory: where a map costs more than a pass."""

    source: Source
    size: int
    kept: dict[int, Faults] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, draw: int) -> Faults:
        if draw % self.size not in self.kept:
            self.kept[draw % self.size] = self.source(draw % self.size)
        return self.kept[draw % self.size]


NONE: FaultyBits = np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint8)


class Both(NamedTuple):
    """One chip's faults in the words of the network, and in those of the generator before it."""

    network: Faults
    generator: FaultyBits


@dataclass(frozen=True)
class BothSources:
    """The same draws of two sources: training chips, seen by the network and by the generator."""

    network: Source
    generator: Callable[[int], FaultyBits]

    def __call__(self, draw: int) -> Both:
        return Both(self.network(draw), self.generator(draw))


@dataclass(frozen=True)
class InTurn:
    """Draws from several sources in turn, each counting on its own."""

    sources: tuple[Source, ...]

    def __call__(self, draw: int) -> Faults:
        return self.sources[draw % len(self.sources)](draw // len(self.sources))


@dataclass(frozen=True)
class StepsInTurn:
    """One source for all `draws` of a step, the sources taken in turn by step; each counts on its own."""

    sources: tuple[Source, ...]
    draws: int

    def __call__(self, draw: int) -> Faults:
        step, i = divmod(draw, self.draws)
        round, which = divmod(step, len(self.sources))
        return self.sources[which](round * self.draws + i)


@dataclass(frozen=True)
class From:
    """The draws of a source from number `first` on."""

    source: Source
    first: int

    def __call__(self, draw: int) -> Faults:
        return self.source(self.first + draw)


def training_source(
    memories: Iterable[Memory], placed: Placement, network: FaultyNetwork, voltages: Sequence[float], seed: int
) -> Source:
    """Chips that no evaluation uses, at these voltages; memories that differ in structure are taken in turn."""
    numbering = network.numbering(placed.tensors)
    return InTurn(tuple(Chips(memory, placed, numbering, voltages, seed) for memory in memories))
