"""Persistent fault maps: the weak cells of one chip, sorted by the voltage at which each begins to fail.

A cell fails at V iff its critical voltage lies above V, so the faulty cells at any voltage are a prefix of the map, and
maps are nested in voltage by construction. A map is a pure function of (seed, chip, geometry, curve, structure, mode):
banks can be made alone, threads never change it, and a lower `voltage_floor` only adds cells at the end.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from sram import failure, random
from sram import faultmap_kernels as kernels
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.geometry import Geometry
from sram.inject import FLIP
from sram.mapfile import load, save
from sram.structure import Structure, voltage_table
from sram.structure import structure as structure_of
from sram.weakcells import FaultMap, Faults, lowest_critical, noise_width

__all__ = ["FaultMap", "Faults", "dense", "generate", "load", "save"]

MODES = ("stuck", "flip")
REGION = 2**26  # cells that are marked one by one as they fail: 1.6 GB in each thread


def generate(
    chip: int,
    geometry: Geometry,
    curve: FailureCurve | str,
    structure: Structure | str = "iid",
    *,
    voltage_floor: float,
    seed: int = 0,
    mode: str = "stuck",
    stuck_at_one: float = 0.5,
    noise: float = 0.0,
    banks: range | None = None,
    threads: int | None = None,
    advance: Callable[[int, int], object] = lambda done, banks: None,
) -> FaultMap:
    """The fault map of chip number `chip` (0 <= chip < 2^32), down to `voltage_floor` in the curve's unit.

    mode "stuck": a faulty cell reads 1 with probability `stuck_at_one`, else 0, always the same; "flip": it reads the
    opposite of what was stored. `noise` makes cells intermittent: its square is the share of variance that is drawn
    anew at each access (0.07 to 0.15 on silicon), so that the rate of one access follows the curve, and the count of
    cells that fail more often than not falls a little below it. `banks` makes a part of the chip only: the very cells
    that the whole map has there. `threads` (all, unless NUMBA_NUM_THREADS says otherwise) never change the map, and
    `advance(banks done, banks)` is told how far it is. Time goes with the number of weak cells (and of columns, where
    columns differ), and so does memory but for 25 bytes a thread for each cell of a bank (of a column, where columns or
    rows differ), of which there may be 2^26. Raises InputError.

    >>> m = generate(3, Geometry.of_capacity(128 * 1024), "ibm14", voltage_floor=0.79)
    >>> m.count(0.79) > m.count(0.83) > 0
    True
    >>> round(m.cell_fault_rate(0.8333), 3)
    0.01
    """
    curve, shares, key = failure.curve(curve), structure_of(structure), random.key(seed, chip)
    banks = range(geometry.banks) if banks is None else banks
    if mode not in MODES:
        raise InputError("fault map", "mode", mode, " or ".join(MODES))
    if not 0 <= stuck_at_one <= 1:
        raise InputError("fault map", "stuck_at_one", stuck_at_one, "a probability in [0, 1]")
    if not 0 <= noise < 1:
        raise InputError("fault map", "noise", noise, "in [0, 1), a share of the spread between cells")
    if not 0 < voltage_floor < np.inf:
        raise InputError("fault map", "voltage_floor", voltage_floor, f"a positive voltage in {curve.unit}")
    if not (banks.step == 1 and 0 <= banks.start <= banks.stop <= geometry.banks):
        raise InputError("fault map", "banks", banks, f"a range within 0 to {geometry.banks}")

    marked = geometry.rows if shares.column or shares.row else geometry.cells_per_bank
    if marked > REGION:
        allowed = f"banks of at most {REGION} cells (of so many rows, where columns or rows differ)"
        raise InputError("fault map", "geometry", geometry, allowed)

    steady = float(np.sqrt(1 - noise**2))
    lowest = lowest_critical(curve, float(voltage_floor), noise)
    model = _model(key, geometry, curve, shares, lowest, steady)

    def block(part: range) -> np.ndarray:
        return kernels.weak_cells(part.start, part.stop, *model)

    found = _in_blocks(block, banks, geometry.cells_per_bank, threads, advance)
    packed = np.concatenate([np.empty(0, np.uint64), *found])
    del found
    packed.sort()
    critical_voltage = np.empty(len(packed), np.float32)
    kernels.unpack(packed, critical_voltage)
    cell = packed.view(np.int64)
    kind = np.full(len(cell), FLIP, np.uint8)
    if mode == "stuck":
        kernels.polarity(cell, np.uint64(round(stuck_at_one * 2**32)), key, kind)
    width = noise_width(curve, critical_voltage, noise) if noise else None
    return FaultMap(geometry, curve, shares, key[1], key[0], float(voltage_floor), cell, critical_voltage, kind, width)


def dense(
    chip: int,
    geometry: Geometry,
    curve: FailureCurve | str,
    structure: Structure | str = "iid",
    *,
    voltage: float,
    seed: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """bool[banks, rows, columns], True where a cell is faulty: `generate(...).dense(voltage)` without sorting.

    >>> g = Geometry(8)
    >>> bool((dense(1, g, "ibm14", voltage=0.8) == generate(1, g, "ibm14", voltage_floor=0.75).dense(0.8)).all())
    True
    """
    shares = structure_of(structure)
    model = _model(random.key(seed, chip), geometry, failure.curve(curve), shares, float(voltage), 1.0)
    out = np.empty((geometry.banks, geometry.rows, geometry.columns), np.bool_)

    def block(part: range) -> None:
        if shares.column or shares.row:
            out[part.start : part.stop] = False
            kernels.mark(kernels.weak_cells(part.start, part.stop, *model), out.reshape(-1))
        else:
            kernels.mark_banks(out.reshape(-1), part.start, part.stop, *model)

    _in_blocks(block, range(geometry.banks), geometry.cells_per_bank, threads)
    return out


def _model(
    key: tuple[int, int], geometry: Geometry, curve: FailureCurve, shares: Structure, floor: float, steady: float
) -> tuple:
    """What the kernels take after the range of banks."""
    table = kernels.Table(*voltage_table(curve, shares, floor, steady), floor, floor * (1 - 2.0**-22))
    scale = kernels.Scale(
        die=shares.die**0.5,
        bank=shares.bank**0.5,
        smooth=shares.smooth**0.5,
        column=shares.column_scale,
        tail=shares.tail,
        row=shares.row**0.5,
        cell=shares.cell**0.5,
    )
    # Banks stand row by row on a floor that is as square as their own shape allows.
    across = max(1, round((geometry.banks * geometry.rows / geometry.columns) ** 0.5))
    down = -(-geometry.banks // across)
    return geometry.rows, geometry.columns, across, down, scale, key, random.times(), table


def _in_blocks(
    work: Callable[[range], Any],
    banks: range,
    cells_per_bank: int,
    threads: int | None,
    advance: Callable[[int, int], object] = lambda done, banks: None,
) -> list:
    """Results of `work` on blocks of banks, which go to threads and come back in order."""
    threads = threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    size = max(1, 2**21 // cells_per_bank, min(256, -(-len(banks) // threads)))
    parts = [banks[i : i + size] for i in range(0, len(banks), size)]
    if len(parts) <= 1:  # two million cells take less time than it takes to start a thread
        return [work(part) for part in parts]
    results = []
    with ThreadPoolExecutor(threads) as pool:
        for part, result in zip(parts, pool.map(work, parts), strict=True):
            results.append(result)
            advance(part.stop - banks.start, len(banks))
    return results
