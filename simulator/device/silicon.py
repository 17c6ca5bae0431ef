"""The cells of a chip's memory as three masks a word: what a fault map does to reads at the present voltage."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from sram.weakcells import NOISE_REACH, FaultMap


class Silicon:
    """stuck0, stuck1, flip uint64[words] for `fault_map` at the voltage set last; at first nothing fails.

    A word reads ((stored & ~stuck0) | stuck1) ^ flip: what is stored stays, only its reading is wrong. Cells with
    noise are drawn anew at each `access`, from a generator seeded by the chip, so that a chip's history repeats.
    """

    def __init__(self, fault_map: FaultMap):
        self.map = fault_map
        words, self.word_bits = fault_map.geometry.words, fault_map.geometry.word_bits
        self.stuck0, self.stuck1, self.flip = self.planes = np.zeros((3, words), np.uint64)
        word, bit = fault_map.geometry.word_bit(fault_map.cell)
        self._word, self._mask = word, np.uint64(1) << bit.astype(np.uint64)
        key, memory = (fault_map.seed << 32) + fault_map.chip, fault_map.first_bank << 192  # of a die's memories
        self._random = np.random.Generator(np.random.Philox(key=key, counter=memory))
        self._faulty = self._open = self._open_word = np.empty(
            0, np.int64
        )  # words with a mask; marginal cells, by word
        self._odds = np.empty(0)

    def set_voltage(self, voltage: float) -> NDArray[np.int64]:
        """Masks for this voltage; returns the words whose masks may have changed. InputError below the map's floor."""
        sure, marginal = np.arange(self.map.count(voltage)), np.empty(0, np.int64)
        before = self._faulty
        self.planes[:, before] = 0
        if self.map.noise is not None:
            distance = (self.map.critical_voltage - voltage) / np.maximum(self.map.noise, 1e-12)
            sure = np.flatnonzero(distance > NOISE_REACH)
            marginal = np.flatnonzero(np.abs(distance) <= NOISE_REACH)
            marginal = marginal[np.argsort(self._word[marginal], kind="stable")]
            self._odds = ndtr(distance[marginal])
        self._open, self._open_word = marginal, self._word[marginal]
        np.bitwise_or.at(self.planes, (self.map.kind[sure], self._word[sure]), self._mask[sure])
        self._faulty = np.concatenate([self._word[sure], self._open_word])
        changed = np.zeros(len(self.flip), np.bool_)
        changed[before] = changed[self._faulty] = True
        return np.flatnonzero(changed)

    def access(self, address: int, count: int) -> NDArray[np.int64]:
        """Draw the marginal cells of these words for one access; returns the words whose masks may have changed."""
        first, last = np.searchsorted(self._open_word, (address, address + count))
        if first == last:
            return np.empty(0, np.int64)
        cells, word = self._open[first:last], self._open_word[first:last]
        kind, mask = self.map.kind[cells], self._mask[cells]
        np.bitwise_and.at(self.planes, (kind, word), ~mask)
        fails = self._random.random(len(cells)) < self._odds[first:last]
        np.bitwise_or.at(self.planes, (kind[fails], word[fails]), mask[fails])
        return np.unique(word)

    def read(self, stored: NDArray[np.uint64], address: int, count: int) -> NDArray[np.uint64]:
        """What one access of stored[address : address + count] (the whole memory is passed) gives."""
        self.access(address, count)
        span = slice(address, address + count)
        return ((stored[span] & ~self.stuck0[span]) | self.stuck1[span]) ^ self.flip[span]
