"""Activations in a chip's buffers: which of a program's stored words read wrong, and how."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.device.activations import Reading, activation_memory, coded_memory
from simulator.device.array_faults import PartialSumFaults, partial_sum_faults
from simulator.device.program import Program
from simulator.placement import Placement
from sram.faultmap import FaultMap
from sram.protection import Overhead, Protection, word_faults


@dataclass(frozen=True)
class StoredActivations:
    """One buffer of a chip with the activations that pass it, and the partial sums that wait in it (None: none do)."""

    raw: FaultMap  # the silicon's own
    placed: Placement
    sums: Placement | None
    shield: Protection
    map: FaultMap  # as the protected memory has it
    overhead: Overhead  # of the protection on this chip

    def memory(self, program: Program, voltage: float, epoch: int | None) -> Reading:
        """What its cells do at a voltage to the words that a program stores."""
        found = self.map.at(voltage, epoch)
        if self.shield.words_as_stored:
            return activation_memory(program, self.placed, self.placed.faults(found.cell, found.kind))
        return coded_memory(program, self.placed, word_faults(self.map.geometry, found), self.shield)

    def partial_sums(
        self, program: Program, taps: Sequence[int], voltage: float, epoch: int | None
    ) -> PartialSumFaults | None:
        """What its cells do at a voltage to sums that come back after so many taps of each convolution.

        Words that are read through a code are right with one faulty cell, and read as they lie with more: what SECDED
        does unless a stuck cell agrees with its bit, or three are wrong.
        """
        if self.sums is None:
            return None
        found = self.map.at(voltage, epoch)
        cell, kind = found.cell, found.kind
        if not self.shield.words_as_stored:
            words, data_bits = word_faults(self.map.geometry, found), self.sums.geometry.word_bits
            kept = np.repeat(words.per_word > 1, words.per_word) & (words.bit < data_bits)
            word, bit = np.repeat(words.word, words.per_word)[kept], words.bit[kept].astype(np.int64)
            cell, kind = self.sums.geometry.cell(word, bit), words.kind[kept]
        return partial_sum_faults(program, self.sums, taps, self.sums.faults(cell, kind))


def store_activations(
    raw: FaultMap, placed: Placement, shield: Protection, sums: Placement | None = None
) -> StoredActivations:
    """The activations, and partial sums, that lie as `placed` and `sums` say in a chip, behind a protection."""
    protected, overhead = shield.apply(raw)
    return StoredActivations(raw, placed, sums, shield, protected, overhead)
