"""A study's weight memory: its cells, its chips' maps, and where a network's words lie in it."""

from neuralfuse.chips.memory import curve_of, maps_of, place_once, weight_geometry
from neuralfuse.study.config import NeuralFuseConfig, SramConfig, StudyConfig
from neuralfuse.study.rails import Buffer, Role
from neuralfuse.study.supplies import own_of, roles_of
from simulator.accelerator import Accelerator
from simulator.activation_placement import place_activations, place_partial_sums, taps_between_spills
from simulator.placement import Placement
from simulator.workload import Workload
from sram import faultmap
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.memory import Chip, Memory


def mapped_cells(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Geometry:
    """The cells that the maps of a network on this accelerator cover."""
    cells = Geometry(1, sram.rows, sram.columns, sram.word_bits)
    return weight_geometry(sram.schedule, workload, machine, cells, bits)


def place_weights(sram: SramConfig, workload: Workload, machine: Accelerator, bits: int) -> Placement:
    """Where each stored weight bit of the network lies."""
    cells = mapped_cells(sram, workload, machine, bits)
    return place_once(workload, machine, cells, sram.schedule, bits, sram.weights_per_cell)


def buffers_lowered(study: StudyConfig) -> dict[str, Buffer]:
    """{buffer of activations: whose rail it is on}, of those that a study lowers."""
    roles = roles_of(study)
    own: dict[str, Buffer] = {"ofmap_buffer": "accumulators"} if "accumulators" in roles else {}
    both: dict[str, Buffer] = dict.fromkeys(("ifmap_buffer", "ofmap_buffer"), "activations")
    return (both if "activations" in roles else {}) | own


def sees_activations(study: StudyConfig, fuse: NeuralFuseConfig) -> bool:
    """Whether a transform is trained or fitted with the faults of all memories that the study lowers."""
    return bool(buffers_lowered(study)) and fuse.sees == "all"


def place_activations_of(study: StudyConfig, workload: Workload, machine: Accelerator, buffer: str) -> Placement:
    """Where each activation lies in a buffer that it passes, in banks as the study has them."""
    own, size = silicon_of(study, buffers_lowered(study)[buffer]), getattr(machine, buffer).capacity_bytes
    cells = Geometry.of_capacity(size, own.rows, own.columns, own.word_bits)
    return place_activations(workload, machine, cells, bits=8, buffer=buffer)  # type: ignore[arg-type]


def place_partial_sums_of(workload: Workload, machine: Accelerator, cells: Geometry) -> Placement | None:
    """Where each partial sum waits in the output buffer; None where none leaves the array before its last tap."""
    layers = zip(workload.array_layers, taps_between_spills(workload, machine), strict=True)
    if all(taps >= layer.k for layer, taps in layers):
        return None
    return place_partial_sums(workload, machine, cells, bits=32)


def silicon_of(study: StudyConfig, role: Role) -> SramConfig:
    """What a memory is made of: what is said of it, and the rest as the weight memory's."""
    own = own_of(study, role)
    said = {} if own is None else own.model_dump(exclude_none=True, exclude={"structure", "map", "format"})
    return study.sram.model_copy(update=said)


def memory_of(sram: SramConfig, geometry: Geometry, structure: str, first_bank: int = 0) -> Memory:
    """A memory of these cells, as the study has its silicon."""
    curve = curve_of(sram.curve)
    return Memory(geometry, curve, structure, sram.mode, sram.stuck_at_one, first_bank=first_bank)


def chip_map(
    study: StudyConfig,
    geometry: Geometry,
    structure: str,
    chip: int,
    floor: float,
    first_bank: int = 0,
    role: Role = "weights",
) -> FaultMap:
    """The fault map of a memory of an evaluation chip down to a voltage: generated, or measured where the study has
    maps."""
    own = own_of(study, role)
    measured = study.sram.map if role == "weights" else None if own is None else own.map
    if measured is not None:
        return faultmap.load(maps_of(measured)[chip])
    structure = structure if own is None or own.structure is None else own.structure
    memory = memory_of(silicon_of(study, role), geometry, structure, first_bank)
    return Chip(chip, study.seed).fault_map(memory, floor, noise=study.sram.noise)
