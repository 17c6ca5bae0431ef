"""A chip's weak cells, sorted by the voltage at which each begins to fail, and what can be asked of them."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from sram import faultmap_kernels as kernels
from sram import random
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.geometry import Geometry
from sram.inject import FLIP
from sram.structure import Structure

# A cell further than this many noise widths from the voltage always fails, or never: 3e-5 of the accesses are cut off.
NOISE_REACH = 4.0
ROUNDING = 1e-9  # of a voltage: 0.58 - 10 * 0.01 is not 0.48


def noise_width(curve: FailureCurve, critical_voltage: np.ndarray, noise: float) -> np.ndarray:
    """Widths float32[n] of noise that is normal in the latent: in volts they go with the local slope of the curve."""
    z, step = curve.z(critical_voltage), 1e-3
    slope = (curve.voltage_at_z(z - step) - curve.voltage_at_z(z + step)) / (2 * step)
    return (noise * slope).astype(np.float32)


def lowest_critical(curve: FailureCurve, voltage_floor: float, noise: float) -> float:
    """Where the cells of a map with this noise end: so far below its floor they still fail there now and then."""
    if not noise:
        return voltage_floor
    return max(float(curve.critical_voltage(-curve.z(voltage_floor) - NOISE_REACH * noise)), 1e-6 * voltage_floor)


class Faults(NamedTuple):
    """Faulty cells, the weakest first: cell int64[k], kind uint8[k] (0 stuck at 0, 1 stuck at 1, 2 flip)."""

    cell: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True, eq=False)
class FaultMap:
    """The weak cells of one chip down to `voltage_floor`; voltages in `curve.unit`.

    cell int64[n], critical_voltage float32[n] (falling; ties by cell) and kind uint8[n] belong together. `noise`
    float32[n] is the standard deviation of each cell's critical voltage from access to access, None where cells are
    steady; such a map also holds cells a little below its floor, which fail there now and then. Of its die's banks it
    has those from `first_bank` on.
    """

    geometry: Geometry
    curve: FailureCurve
    structure: Structure
    chip: int
    seed: int
    voltage_floor: float
    cell: np.ndarray
    critical_voltage: np.ndarray
    kind: np.ndarray
    noise: np.ndarray | None = None
    first_bank: int = 0

    def __len__(self) -> int:
        return len(self.cell)

    def reaches(self, voltage: float) -> bool:
        """Whether the map knows all cells that fail here: down to its floor, errors of rounding forgiven."""
        return voltage >= self.voltage_floor * (1 - ROUNDING)

    def count(self, voltage: float) -> int:
        """Number of cells whose critical voltage lies above this one. Raises InputError below `voltage_floor`."""
        if not self.reaches(voltage):
            allowed = f"at least {self.voltage_floor} {self.curve.unit}, the lowest voltage of the map"
            raise InputError("fault map", "voltage", voltage, allowed)
        return self._above(max(voltage, self.voltage_floor))

    def _above(self, voltage: float) -> int:
        return bisect_left(self.critical_voltage, -float(voltage), key=lambda critical: -float(critical))

    def at(self, voltage: float, epoch: int | None = None) -> Faults:
        """The faulty cells at this voltage: views of the map's first `count(voltage)` entries.

        With `epoch` (0 <= epoch < 2^32), the cells of an intermittent map that fail in this very access: cells near the
        voltage change from epoch to epoch, each with its own probability (`access_probability`); arrays of their own.
        Raises InputError below `voltage_floor`.
        """
        n = self.count(voltage)
        if epoch is None or self.noise is None:
            return Faults(self.cell[:n], self.kind[:n])
        if not 0 <= epoch < 2**32:
            raise InputError("fault map", "epoch", epoch, "an integer in [0, 2**32)")
        n = self._candidates(voltage)
        of_die = self.cell[:n] + self.first_bank * self.geometry.cells_per_bank
        arrays = of_die, self.critical_voltage[:n], self.noise[:n]
        fails = kernels.failing(*arrays, float(voltage), epoch, NOISE_REACH, (self.seed, self.chip), random.times())
        return Faults(self.cell[:n][fails], self.kind[:n][fails])

    def drifted(self, shift: float) -> "FaultMap":
        """The chip after the critical voltages of all its cells, and with them the map's floor, have risen by this.

        >>> from sram.faultmap import generate
        >>> m = generate(0, Geometry(64), "ibm14", voltage_floor=0.8)
        >>> m.drifted(0.005).count(0.82) == m.count(0.815)
        True
        """
        return replace(
            self,
            critical_voltage=self.critical_voltage + np.float32(shift),
            voltage_floor=round(self.voltage_floor + shift, 12),
        )

    def access_probability(self, voltage: float) -> np.ndarray:
        """Probability that each of the first cells of the map fails one access at this voltage, float64[m].

        Cells after the m-th never fail here. Phi((Vc - V) / noise), or 1 where cells are steady.
        """
        n = self.count(voltage)
        if self.noise is None:
            return np.ones(n)
        n = self._candidates(voltage)
        margin = (self.critical_voltage[:n].astype(np.float64) - voltage) / self.noise[:n]
        return np.where(margin >= NOISE_REACH, 1.0, np.where(margin <= -NOISE_REACH, 0.0, ndtr(margin)))

    def _candidates(self, voltage: float) -> int:
        """How many cells could fail some access at this voltage."""
        widest = float(self.noise.max()) if self.noise is not None and len(self) else 0.0
        return self._above(voltage - NOISE_REACH * widest)

    def cell_fault_rate(self, voltage: float) -> float:
        """Share of all cells that are faulty at this voltage."""
        return self.count(voltage) / self.geometry.cells

    def flip_rate(self, voltage: float) -> float:
        """Share of stored bits that read wrong in data of as many ones as zeros: a stuck cell shows half the time.

        >>> from sram.faultmap import generate
        >>> m = generate(0, Geometry(64), "ibm14", voltage_floor=0.8)
        >>> m.flip_rate(0.8) == m.cell_fault_rate(0.8) / 2
        True
        """
        kind = self.at(voltage).kind
        flips = int(np.count_nonzero(kind == FLIP))
        return (flips + (len(kind) - flips) / 2) / self.geometry.cells

    def dense(self, voltage: float) -> np.ndarray:
        """bool[banks, rows, columns], True where the cell is faulty at this voltage."""
        out = np.zeros(self.geometry.cells, np.bool_)
        out[self.at(voltage).cell] = True
        return out.reshape(self.geometry.banks, self.geometry.rows, self.geometry.columns)
