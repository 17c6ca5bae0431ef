"""From the accelerator's memory to the network's words: which cells a study's weights lie in, numbered as the
network has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralfuse.config import SramConfig, StudyConfig
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.sources import Chips, Faults, Source
from simulator.accelerator import Accelerator
from simulator.placement import Placement, place
from simulator.workload import Workload
from sram import faultmap
from sram.geometry import Geometry

PAPER_ARRAY = Geometry(banks=1, rows=8192, columns=128, word_bits=64)  # of the reference code's fault maps


def geometry_of(study: StudyConfig, workload: Workload, machine: Accelerator, bits: int) -> Geometry:
    """The cells that a study's maps cover: the accelerator's weight buffer (`streamed`), a memory in which every
    weight has
    its own cell (`resident`), or the one array of the paper-compatible maps (`paper`)."""
    s = study.sram
    if s.schedule == "paper":
        return PAPER_ARRAY
    capacity = machine.weight_buffer.capacity_bytes
    if s.schedule == "resident":
        slots = s.word_bits // bits
        words = sum(-(-layer.weights // slots) for layer in workload.array_layers)
        capacity = max(capacity, words * s.word_bits // 8)
    return Geometry.of_capacity(capacity, rows=s.rows, columns=s.columns, word_bits=s.word_bits)


def place_weights(study: StudyConfig, workload: Workload, machine: Accelerator, bits: int) -> Placement:
    """Where each stored weight bit of the network lies in the study's memory."""
    return place(
        workload, machine, geometry_of(study, workload, machine, bits), schedule=study.sram.schedule, bits=bits
    )


@dataclass(frozen=True)
class StoredChip:
    """One chip's fault map, and every stored weight bit that lies in one of its weak cells, the weakest cell first."""

    map: faultmap.FaultMap
    fault: np.ndarray  # int64[h], index into the map's cells, rising
    weight: np.ndarray  # int64[h], index into the network's words
    bit: np.ndarray  # uint8[h]

    def faults(self, voltage: float) -> Faults:
        """(weight, bit, kind) of the stored bits in cells that are faulty at `voltage`: a prefix."""
        n = int(np.searchsorted(self.fault, self.map.count(voltage)))
        return self.weight[:n], self.bit[:n], self.map.kind[self.fault[:n]]


def store(
    sram: SramConfig, seed: int, placed: Placement, network: FaultyNetwork, structure: str, chip: int, floor: float
) -> StoredChip:
    """Make chip number `chip` down to voltage `floor` and find the weights in its weak cells: a StoredChip."""
    fault_map = faultmap.generate(
        chip,
        placed.geometry,
        sram.curve,
        structure,
        voltage_floor=floor,
        seed=seed,
        mode=sram.mode,
        stuck_at_one=sram.stuck_at_one,
    )
    hits = placed.hits(fault_map.cell)
    return StoredChip(fault_map, hits.fault, network.numbering(placed.tensors).words(hits.weight), hits.bit)


@dataclass(frozen=True)
class InTurn:
    """Draws from several sources in turn, each counting on its own."""

    sources: tuple[Source, ...]

    def __call__(self, draw: int) -> Faults:
        return self.sources[draw % len(self.sources)](draw // len(self.sources))


def training_source(study: StudyConfig, placed: Placement, network: FaultyNetwork, voltages: Sequence[float]) -> Source:
    """Chips of the study's own memory that no evaluation uses, at these voltages, all structures in turn."""
    s = study.sram
    numbering = network.numbering(placed.tensors)
    return InTurn(
        tuple(
            Chips(placed, numbering, s.curve, form, voltages, study.seed, s.mode, s.stuck_at_one)
            for form in s.structures
        )
    )
