"""Butterfly curves of the 6T cell and Seevinck's squares: static noise margins, and a check of the cell's stability."""

from dataclasses import dataclass

import numpy as np

from sram.cell import bitcell_kernels as kernels
from sram.cell.physics import cell
from sram.cell.technology import Conditions, Technology
from sram.errors import InputError

Squares = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, eq=False)
class Butterfly:
    """Transfer curves of both inverters at one supply, and the largest square in each lobe (Seevinck, JSSC 1987).

    The right node is `right` when the left is forced to `grid`, the left is `left` when the right is; float64[n] in V.
    `squares`: for states 0 and 1 the lower left corner and the side of its square, in V; side 0 where the state is
    lost. `noise_margin_v` is the smaller side.
    """

    voltage: float
    mode: str
    grid: np.ndarray
    right: np.ndarray
    left: np.ndarray
    squares: Squares

    @property
    def noise_margin_v(self) -> float:
        """The smaller side of the two squares, in V; 0 where one state is lost."""
        return min(side for _, _, side in self.squares)


def butterfly(
    tech: Technology | int | str,
    voltage: float,
    conditions: Conditions | None = None,
    *,
    mode: str = "read",
    deviation: np.ndarray | None = None,
    points: int = 801,
) -> Butterfly:
    """Butterfly curve while holding or reading; `deviation` float64[6] of the thresholds in standard deviations.

    >>> hold, read = (butterfly(28, 1.0, mode=mode).noise_margin_v for mode in ("hold", "read"))
    >>> bool(0 < read < hold < 0.5)
    True
    """
    if mode not in ("read", "hold"):
        raise InputError("butterfly", "mode", mode, "read or hold")
    c = cell(tech, conditions)
    deviation = np.zeros(6) if deviation is None else np.asarray(deviation, dtype=np.float64)
    threshold = c.mean[:6] + c.sigma[:6] * deviation  # without the sense amplifier's offset, the seventh
    word_line = voltage if mode == "read" else 0.0
    grid = np.linspace(0, voltage, points)
    right, left = np.empty(points), np.empty(points)
    kernels.transfer(1, grid, voltage, word_line, threshold, c.transistors, right)
    kernels.transfer(0, grid, voltage, word_line, threshold, c.transistors, left)
    return Butterfly(voltage, mode, grid, right, left, _squares(grid, right, left))


def _squares(grid: np.ndarray, right: np.ndarray, left: np.ndarray) -> Squares:
    """Largest squares between (x, right(x)) and (left(y), y): their diagonals are vertical once all is turned by 45
    degrees, where the difference of the curves over u = (x - y) / sqrt 2 is the diagonal."""
    root = np.sqrt(2)
    u_right, w_right = (grid - right) / root, (grid + right) / root
    u_left, w_left = ((left - grid) / root)[::-1], ((left + grid) / root)[::-1]
    u = np.linspace(max(u_right[0], u_left[0]), min(u_right[-1], u_left[-1]), 4 * len(grid))
    upper, lower = np.interp(u, u_right, w_right), np.interp(u, u_left, w_left)
    gap = upper - lower
    gap[np.abs(gap) < 1e-7] = 0.0  # the corners of a holding cell, where the curves run into each other
    # From left to right: beyond state 0, its lobe, (in odd cells more crossings,) the lobe of state 1, beyond state 1.
    # Lobes lie between crossings, and a state is one only on its own side of the diagonal, u < 0 for state 0.
    signed = np.flatnonzero(gap)
    change = signed[:-1][gap[signed[:-1]] * gap[signed[1:]] < 0]
    ends = [int(i) for i in change if gap[i] > 0]  # of state 0's lobe, the first; the last begins that of state 1
    start = max((int(i) for i in change if ends and i < ends[0]), default=0)
    stop = min((int(i) for i in change if ends and i > ends[-1]), default=len(u) - 1)
    if ends and u[start] < 0 < u[stop]:
        return _square(u, upper, lower, start, ends[0]), _square(u, lower, upper, ends[-1], stop)
    state_0 = u[change[0]] < 0 if len(change) else gap.sum() > 0
    whole = _square(u, upper, lower, 0, len(u) - 1) if state_0 else _square(u, lower, upper, 0, len(u) - 1)
    lost = (0.0, 0.0, 0.0)
    return (whole, lost) if state_0 else (lost, whole)


def _square(u: np.ndarray, above: np.ndarray, below: np.ndarray, first: int, last: int) -> tuple[float, float, float]:
    """(x, y, side) of the square under the widest gap from `first` to `last`."""
    i = first + int(np.argmax((above - below)[first : last + 1]))
    root = np.sqrt(2)
    return float((below[i] + u[i]) / root), float((below[i] - u[i]) / root), float((above[i] - below[i]) / root)
