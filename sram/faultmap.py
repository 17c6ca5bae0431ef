"""Persistent fault maps: the weak cells of one chip, sorted by the voltage at which each begins to fail.

A cell fails at V iff its critical voltage lies above V, so the faulty cells at any voltage are a prefix of the map, and
maps are nested in voltage by construction. A map is a pure function of (seed, chip, memory): threads never change it,
and a lower `voltage_floor` only adds cells at the end.
"""

import numpy as np

from sram.failure import FailureCurve
from sram.geometry import Geometry
from sram.mapfile import load, save
from sram.memory import Chip, Memory
from sram.structure import Structure
from sram.weakcells import FaultMap, Faults

__all__ = ["FaultMap", "Faults", "dense", "generate", "load", "save"]


def generate(
    chip: int,
    geometry: Geometry,
    curve: FailureCurve | str,
    structure: Structure | str = "iid",
    *,
    voltage_floor: float,
    seed: int = 0,
    mode: str = "stuck",
    noise: float = 0.0,
) -> FaultMap:
    """The fault map of chip number `chip`, down to `voltage_floor` in the curve's unit.

    In short for `Chip(chip, seed).fault_map(Memory(geometry, curve, structure, mode), voltage_floor, noise=noise)`,
    which says what each means and takes more. Raises InputError.

    >>> m = generate(3, Geometry.of_capacity(128 * 1024), "ibm14", voltage_floor=0.79)
    >>> m.count(0.79) > m.count(0.83) > 0
    True
    >>> round(m.cell_fault_rate(0.8333), 3)
    0.01
    """
    return Chip(chip, seed).fault_map(Memory(geometry, curve, structure, mode), voltage_floor, noise=noise)


def dense(
    chip: int,
    geometry: Geometry,
    curve: FailureCurve | str,
    structure: Structure | str = "iid",
    *,
    voltage: float,
    seed: int = 0,
) -> np.ndarray:
    """bool[banks, rows, columns], True where a cell is faulty: `generate(...).dense(voltage)` without sorting.

    >>> g = Geometry(8)
    >>> bool((dense(1, g, "ibm14", voltage=0.8) == generate(1, g, "ibm14", voltage_floor=0.75).dense(0.8)).all())
    True
    """
    return Chip(chip, seed).dense(Memory(geometry, curve, structure), voltage)
