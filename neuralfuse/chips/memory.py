"""The weight memory of a study: its size, its curve, and the numbers of the chips that trainings and evaluations
take."""

from dataclasses import replace
from pathlib import Path

from simulator.accelerator import Accelerator
from simulator.placement import Placement, place, resident_words
from simulator.workload import Workload
from sram import failure, faultmap, paper
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.geometry import Geometry

FIRST_TRAINING_CHIP = 1_000_000  # evaluations count from 0, so that the two never meet
PLACEMENTS = {  # by schedule: which weight lies in which cell
    "streamed": "streamed: words pass through the weight buffer in the order in which the array fetches them",
    "resident": "resident: every stored bit has a cell of its own, in the order in which the array fetches them",
    "paper": "paper: the mapping of the published code, where a cell holds 16 weights of every layer",
}


def weight_geometry(schedule: str, workload: Workload, machine: Accelerator, cells: Geometry, bits: int) -> Geometry:
    """The cells that a study's maps cover, in banks as `cells` has them, those of all cores.

    The accelerator's weight buffer (`streamed`), a memory in which every weight has its own cell (`resident`), or the
    one array of the paper-compatible maps (`paper`).
    """
    if schedule == "paper":
        return paper.GEOMETRY
    capacity_bytes = machine.weight_buffer.capacity_bytes
    if schedule == "resident":
        capacity_bytes = max(capacity_bytes, resident_bytes(workload, machine, cells, bits))
    return of_cores(capacity_bytes, machine, cells)


def for_words(machine: Accelerator, bits: int) -> Accelerator:
    """The machine with weights as wide as a network's words, where these are wider than its own: traffic, room and
    products are then those of such weights.

    >>> from simulator.accelerator import accelerator
    >>> for_words(accelerator("paper"), 16).weight_bits, for_words(accelerator("paper"), 4).weight_bits
    (16, 8)
    """
    return replace(machine, weight_bits=max(machine.weight_bits, bits))


def resident_bytes(workload: Workload, machine: Accelerator, cells: Geometry, bits: int) -> int:
    """Bytes of each core's memory in which every weight has its own cell."""
    if cells.word_bits < bits:
        raise InputError("sram", "word_bits", cells.word_bits, f"at least {bits}, the bits of a weight")
    return resident_words(workload, for_words(machine, bits), cells.word_bits // bits) * cells.word_bits // 8


def of_cores(capacity_bytes: int, machine: Accelerator, cells: Geometry) -> Geometry:
    """So many bytes for each core, in banks as `cells` has them."""
    own = Geometry.of_capacity(capacity_bytes, cells.rows, cells.columns, cells.word_bits)
    return replace(own, banks=machine.cores * own.banks)


def place_once(
    workload: Workload, machine: Accelerator, cells: Geometry, schedule: str, bits: int, weights_per_cell: int = 16
) -> Placement:
    """`simulator.placement.place` for networks in which a word has one value for all samples.

    InputError where a layer is cut by samples: each core then reads a copy of its weights, with faults of its own.
    """
    placed = place(workload, for_words(machine, bits), cells, schedule, bits)
    if placed.copied:
        allowed = "1 for faults where layers are cut by samples, each core reading its own weights; or batch: 1"
        raise InputError(machine.name, "cores", machine.cores, allowed)
    return replace(placed, weights_per_cell=weights_per_cell)


def curve_of(name: str) -> FailureCurve:
    """The published curve of this name, the one in a .json file, or that of a fault map (.npz). Raises InputError."""
    return faultmap.load(name).curve if name.endswith(".npz") else failure.curve(name)


def maps_of(where: str, key: str = "sram.map") -> tuple[Path, ...]:
    """Measured chips: a fault map (.npz), or those in a folder by name. InputError where there are none."""
    path = Path(where)
    found = tuple(sorted(path.glob("*.npz"))) if path.is_dir() else (path,)
    if not found or found[0].suffix != ".npz":
        raise InputError("study", key, where, "a fault map (.npz), or a folder with some")
    return found
