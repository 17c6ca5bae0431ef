"""A study's weight memory: its cells, its chips' maps, and where a network's words lie in it."""

from neuralfuse.chips.memory import weight_geometry
from neuralfuse.study.config import SramConfig
from simulator.accelerator import Accelerator
from simulator.placement import Placement, place
from simulator.workload import Workload
from sram.geometry import Geometry
from sram.memory import Memory


def mapped_cells(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Geometry:
    """The cells that the maps of a network on this accelerator cover."""
    cells = Geometry(1, sram.rows, sram.columns, sram.word_bits)
    return weight_geometry(sram.schedule, workload, machine.weight_buffer.capacity_bytes, cells, bits)


def place_weights(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Placement:
    """Where each stored weight bit of the network lies."""
    return place(workload, machine, mapped_cells(sram, workload, machine, bits), schedule=sram.schedule, bits=bits)


def memory_of(sram: SramConfig, geometry: Geometry, structure: str, first_bank: int = 0) -> Memory:
    """A memory of these cells, as the study has its silicon."""
    return Memory(geometry, sram.curve, structure, sram.mode, sram.stuck_at_one, first_bank=first_bank)
