"""One point of a sweep, and its key: a hash of everything that can change its result."""

import functools
from dataclasses import asdict, dataclass

from neuralfuse.study.digest import RESULTS_VERSION, digest, given
from neuralfuse.study.grid import Point
from simulator.operating_point import OperatingPoint


@dataclass(frozen=True)
class Task:
    """One chip at one operating point, at one point of the grid, on all test images or a part of the chip's own."""

    point: Point
    chip: int
    at: OperatingPoint
    images: tuple[int, int] | None = None  # where the part begins and ends; None: all

    @functools.cached_property
    def key(self) -> str:
        """Names the result of this task for ever: same inputs and code, same key.

        >>> from simulator.operating_point import Supply
        >>> point = Point("n", "d", "a", "ibm14", "iid", "none", "0")
        >>> low = OperatingPoint((Supply("weights", 0.8),))
        >>> Task(point, 1, low).key == Task(point, 1, low).key != Task(point, 2, low).key
        True
        """
        part = {} if self.images is None else {"images": self.images}
        of = {"point": asdict(self.point), "chip": self.chip, "at": given(self.at), "results": RESULTS_VERSION}
        return digest(of | part)
