"""A study's weight memory: its cells, its chips' maps, and where a network's words lie in it."""

from neuralfuse.chips.memory import curve_of, maps_of, weight_geometry
from neuralfuse.study.config import SramConfig, StudyConfig
from simulator.accelerator import Accelerator
from simulator.placement import Placement, place
from simulator.workload import Workload
from sram import faultmap
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.memory import Chip, Memory


def mapped_cells(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Geometry:
    """The cells that the maps of a network on this accelerator cover."""
    cells = Geometry(1, sram.rows, sram.columns, sram.word_bits)
    return weight_geometry(sram.schedule, workload, machine.weight_buffer.capacity_bytes, cells, bits)


def place_weights(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Placement:
    """Where each stored weight bit of the network lies."""
    return place(workload, machine, mapped_cells(sram, workload, machine, bits), schedule=sram.schedule, bits=bits)


def memory_of(sram: SramConfig, geometry: Geometry, structure: str, first_bank: int = 0) -> Memory:
    """A memory of these cells, as the study has its silicon."""
    curve = curve_of(sram.curve)
    return Memory(geometry, curve, structure, sram.mode, sram.stuck_at_one, first_bank=first_bank)


def chip_map(
    study: StudyConfig, geometry: Geometry, structure: str, chip: int, floor: float, first_bank: int = 0
) -> FaultMap:
    """The fault map of an evaluation chip down to a voltage: generated, or measured where the study has maps."""
    if study.sram.map is not None:
        return faultmap.load(maps_of(study.sram.map)[chip])
    return Chip(chip, study.seed).fault_map(
        memory_of(study.sram, geometry, structure, first_bank), floor, noise=study.sram.noise
    )
