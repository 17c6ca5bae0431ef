"""Memory words: their faults, and the weights that they hold."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sram.errors import InputError
from sram.geometry import Geometry
from sram.weakcells import Faults


class WordFaults(NamedTuple):
    """Faults grouped by memory word: those of word[r] (int64[w], rising) are start[r] .. start[r + 1] (int64[w + 1]) of
    bit uint8[k] (wider where words have more than 256 bits) and kind uint8[k]."""

    word: np.ndarray
    start: np.ndarray
    bit: np.ndarray
    kind: np.ndarray

    @property
    def per_word(self) -> np.ndarray:
        """Faulty cells of each faulty word, int64[w]."""
        return np.diff(self.start)


def word_faults(geometry: Geometry, faults: Faults) -> WordFaults:
    """Group the faulty cells (any order) by the word that they lie in.

    >>> g = Geometry(banks=1, rows=4, columns=16, word_bits=8)
    >>> found = word_faults(g, Faults(np.array([27, 3, 25]), np.array([1, 0, 2], np.uint8)))
    >>> found.word, found.bit, found.kind
    (array([1, 3]), array([1, 4, 5], dtype=uint8), array([0, 2, 1], dtype=uint8))
    """
    word, bit = geometry.word_bit(faults.cell)
    order = np.lexsort((bit, word))
    word = word[order]
    first = np.flatnonzero(np.diff(word, prepend=-1))
    bit = bit[order].astype(np.min_scalar_type(geometry.word_bits - 1))
    return WordFaults(word[first], np.append(first, len(word)), bit, faults.kind[order])


def faulty_word_share(geometry: Geometry, faults: Faults, at_least: int = 1) -> float:
    """Share of all words with this many faulty cells or more. Two or more are what SECDED cannot promise to correct."""
    return float((word_faults(geometry, faults).per_word >= at_least).sum() / geometry.words)


class Region(NamedTuple):
    """The memory words `first` to `first + words` that one layer's weights have to themselves, and what part (0 to 1)
    of the energy of all reads and of all writes of the memory is theirs."""

    name: str
    first: int
    words: int
    reads: float
    writes: float


@dataclass(frozen=True)
class Layout:
    """Where the bits of the weights of a memory word lie; names and order as in simulator.placement.

    "lsb_first", "msb_first": weight after weight; "interleaved": bits of one significance side by side. `regions`:
    where each layer lies, in the order of addresses, if layers do not share words.
    """

    weight_bits: int = 8
    bit_order: str = "lsb_first"
    regions: tuple[Region, ...] = ()

    def positions(self, word_bits: int) -> np.ndarray:
        """int64[weights, weight_bits]: place in the word of bit b (0 is the least significant) of weight s.

        >>> Layout(4, "interleaved").positions(8)
        array([[0, 2, 4, 6],
               [1, 3, 5, 7]])
        """
        if not 1 <= self.weight_bits <= word_bits:
            raise InputError("layout", "weight_bits", self.weight_bits, f"1 to {word_bits}, the bits of a word")
        slots = word_bits // self.weight_bits
        slot, bit = np.mgrid[:slots, : self.weight_bits]
        orders = {
            "lsb_first": slot * self.weight_bits + bit,
            "msb_first": slot * self.weight_bits + self.weight_bits - 1 - bit,
            "interleaved": bit * slots + slot,
        }
        if self.bit_order not in orders:
            raise InputError("layout", "bit_order", self.bit_order, ", ".join(orders))
        return orders[self.bit_order]

    def significance(self, word_bits: int) -> np.ndarray:
        """int64[word_bits]: which bit of a weight (0 is the least significant) lies there, -1 where none does.

        >>> Layout(3, "msb_first").significance(8)
        array([ 2,  1,  0,  2,  1,  0, -1, -1])
        """
        found = np.full(word_bits, -1, np.int64)
        found[self.positions(word_bits)] = np.arange(self.weight_bits)
        return found

    def region_of(self, word: np.ndarray) -> np.ndarray:
        """int64[n]: index into `regions` of the one that each memory word int64[n] lies in, -1 for none."""
        first = np.array([region.first for region in self.regions], np.int64)
        size = np.array([region.words for region in self.regions], np.int64)
        found = np.searchsorted(first, word, side="right") - 1
        return np.where((found >= 0) & (word < (first + size)[found]), found, -1) if len(first) else found

    def pack(self, weights: np.ndarray, word_bits: int) -> np.ndarray:
        """Stored words uint64[m] of weights int[m, slots]; bits above weight_bits are cut off."""
        place = self.positions(word_bits).astype(np.uint64)
        bits = weights.astype(np.uint64)[:, :, None] >> np.arange(self.weight_bits, dtype=np.uint64) & np.uint64(1)
        return np.bitwise_or.reduce((bits << place).reshape(len(weights), place.size), axis=1)

    def unpack(self, words: np.ndarray, word_bits: int) -> np.ndarray:
        """Weights int64[m, slots] in two's complement; the inverse of `pack`."""
        place = self.positions(word_bits).astype(np.uint64)
        bits = (words[:, None, None] >> place & np.uint64(1)).astype(np.int64)
        worth = 1 << np.arange(self.weight_bits, dtype=np.int64)
        worth[-1] *= -1
        return bits @ worth


EIGHT_BIT = Layout()
