"""The weight memory of a study: its size, its curve, and the numbers of the chips that trainings and evaluations
take."""

from pathlib import Path

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


def weight_geometry(schedule: str, workload: Workload, capacity_bytes: int, cells: Geometry, bits: int) -> Geometry:
    """The cells that a study's maps cover, in banks as `cells` has them.

    The accelerator's weight buffer of `capacity_bytes` (`streamed`), a memory in which every weight has its own cell
    (`resident`), or the one array of the paper-compatible maps (`paper`).
    """
    if schedule == "paper":
        return paper.GEOMETRY
    if schedule == "resident":
        slots = cells.word_bits // bits
        words = sum(-(-layer.weights // slots) for layer in workload.array_layers)
        capacity_bytes = max(capacity_bytes, words * cells.word_bits // 8)
    return Geometry.of_capacity(capacity_bytes, cells.rows, cells.columns, cells.word_bits)


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
