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
