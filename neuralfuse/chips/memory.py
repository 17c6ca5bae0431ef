"""The weight memory of a study: its size, and the numbers of the chips that trainings and evaluations take."""

from simulator.workload import Workload
from sram import paper
from sram.geometry import Geometry

FIRST_TRAINING_CHIP = 1_000_000  # evaluations count from 0, so that the two never meet
SCHEDULES = ("streamed", "resident", "paper")


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
