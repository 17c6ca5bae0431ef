"""One point of a sweep, and its key: a hash of everything that can change its result."""

import functools
from dataclasses import asdict, dataclass

from neuralfuse.study.digest import RESULTS_VERSION, digest
from neuralfuse.study.grid import Point


@dataclass(frozen=True)
class Task:
    """One chip at one voltage, at one point of the grid."""

    point: Point
    chip: int
    voltage: float

    @functools.cached_property
    def key(self) -> str:
        """Names the result of this task for ever: same inputs and code, same key.

        >>> point = Point("n", "d", "a", "ibm14", "iid", "none", "0")
        >>> Task(point, 1, 0.8).key == Task(point, 1, 0.8).key != Task(point, 2, 0.8).key
        True
        """
        return digest(
            {"point": asdict(self.point), "chip": self.chip, "voltage": self.voltage, "results": RESULTS_VERSION}
        )


@dataclass(frozen=True)
class Result:
    """What one task found. Counts add up; energies and cycles are per inference, and the same for all chips but where a
    protection gives each a supply of its own."""

    key: str
    network: str
    dataset: str
    accelerator: str
    curve: str
    structure: str
    protection: str
    voltage: float  # in the unit of the curve
    chip: int
    correct: int
    total: int
    correct_clean: int  # of the bare network without a fault, on the same images
    cell_fault_rate: float  # share of this chip's weight-SRAM cells that are faulty at this voltage
    flip_rate: float  # share of the stored weight bits that are read wrong
    energy_weight_sram_pj: float
    energy_sram_pj: float
    energy_system_pj: float
    saving_weight_sram: float  # share of the unprotected network's energy at nominal voltage, same scope
    saving_sram: float
    saving_system: float
    cycles: int
    seconds: float  # this task took so long; kept for estimates, not part of results.csv

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


COLUMNS = [name for name in Result.__dataclass_fields__ if name not in {"key", "seconds"}]
COLUMNS.insert(COLUMNS.index("correct_clean") + 1, "accuracy")
