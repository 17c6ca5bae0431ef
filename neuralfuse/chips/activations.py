"""Activations in a chip's buffers: which of a program's stored words read wrong, and how."""

from dataclasses import dataclass

from simulator.device.activations import Reading, activation_memory, coded_memory
from simulator.device.program import Program
from simulator.placement import Placement
from sram.faultmap import FaultMap
from sram.protection import Overhead, Protection, word_faults


@dataclass(frozen=True)
class StoredActivations:
    """One buffer of a chip with the activations that pass it."""

    raw: FaultMap  # the silicon's own
    placed: Placement
    shield: Protection
    map: FaultMap  # as the protected memory has it
    overhead: Overhead  # of the protection on this chip

    def memory(self, program: Program, voltage: float, epoch: int) -> Reading:
        """What its cells do at a voltage to the words that a program stores."""
        found = self.map.at(voltage, epoch)
        if self.shield.words_as_stored:
            return activation_memory(program, self.placed, self.placed.faults(found.cell, found.kind))
        return coded_memory(program, self.placed, word_faults(self.map.geometry, found), self.shield)


def store_activations(raw: FaultMap, placed: Placement, shield: Protection) -> StoredActivations:
    """The activations that lie as `placed` says in a chip, behind a protection."""
    protected, overhead = shield.apply(raw)
    return StoredActivations(raw, placed, shield, protected, overhead)
