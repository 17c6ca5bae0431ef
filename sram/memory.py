"""A buffer as silicon, and the chip that it lies on: all that a fault map follows from, and how it follows."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np

from sram import failure, random
from sram import faultmap_kernels as kernels
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.geometry import Geometry
from sram.inject import FLIP
from sram.random import Stream
from sram.structure import Structure, voltage_table
from sram.structure import structure as structure_of
from sram.weakcells import FaultMap, lowest_critical, noise_width

MODES = ("stuck", "flip")
REGION = 2**26  # cells that are marked one by one as they fail: 1.6 GB in each thread

Advance = Callable[[int, int], object]


@dataclass(frozen=True)
class Memory:
    """One buffer of an accelerator as silicon. Raises InputError.

    `geometry` of its cells; `curve`, which gives the share of cells that fail at a voltage; `structure`, how their
    variation is shared; `mode`: a faulty cell is "stuck", reads 1 with probability `stuck_at_one`, else 0, always the
    same, or reads the opposite of what was stored ("flip"); `rail`, the supply that it hangs on; `protection`, the
    texts of its chain of protections (`sram.protection.parse`); `first_bank`: the bank of its die that it begins at.
    """

    geometry: Geometry
    curve: FailureCurve | str = "ibm14"
    structure: Structure | str = "iid"
    mode: str = "stuck"
    stuck_at_one: float = 0.5
    rail: str = "weights"
    protection: tuple[str, ...] = ()
    first_bank: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError("fault map", "mode", self.mode, " or ".join(MODES))
        if not 0 <= self.stuck_at_one <= 1:
            raise InputError("fault map", "stuck_at_one", self.stuck_at_one, "a probability in [0, 1]")
        if self.first_bank < 0:
            raise InputError("fault map", "first_bank", self.first_bank, "0 or more")

    @property
    def die(self) -> Geometry:
        """The banks of its die up to its last one."""
        return replace(self.geometry, banks=self.first_bank + self.geometry.banks)


def side_by_side(memories: Iterable[Memory]) -> tuple[Memory, ...]:
    """The memories of one die: each begins at the bank behind the last, so that no two share a cell.

    >>> a, b = side_by_side([Memory(Geometry(banks=4)), Memory(Geometry(banks=2))])
    >>> a.first_bank, b.first_bank
    (0, 4)
    """
    laid: list[Memory] = []
    bank = 0
    for memory in memories:
        laid.append(replace(memory, first_bank=bank))
        bank += memory.geometry.banks
    return tuple(laid)


@dataclass(frozen=True, eq=False)
class Factors:
    """What the cells of a die share, as standard normal variates: the higher, the weaker.

    `bank` float64[b] and `column` float64[b, columns] of the banks of a memory's die up to its last one. Terms that its
    structure has no share for are drawn all the same, and change nothing.
    """

    die: float
    bank: np.ndarray
    column: np.ndarray

    def __add__(self, other: "Factors") -> "Factors":
        return Factors(self.die + other.die, self.bank + other.bank, self.column + other.column)


@dataclass(frozen=True)
class Chip:
    """One die of a lot: a number, 0 <= number < 2^32, from which the maps of all its memories follow.

    Memories that lie `side_by_side` share the die's part of the variance, and nothing else.

    >>> memory = Memory(Geometry.of_capacity(128 * 1024))
    >>> Chip(3).fault_map(memory, voltage_floor=0.79).count(0.83) > 0
    True
    """

    number: int
    seed: int = 0  # of the lot

    def factors(self, memory: Memory) -> Factors:
        """What this chip's cells of a memory share.

        >>> Chip(3).factors(Memory(Geometry(banks=2), structure="column")).column.shape
        (2, 64)
        """
        key, banks = {"seed": self.seed, "chip": self.number}, range(memory.die.banks)
        return Factors(
            float(random.normals(1, Stream.DIE, **key)[0]),
            np.array([random.normals(1, Stream.BANK, bank=bank, **key)[0] for bank in banks]),
            np.array([random.normals(memory.geometry.columns, Stream.COLUMN, bank=bank, **key) for bank in banks]),
        )

    def fault_map(
        self,
        memory: Memory,
        voltage_floor: float,
        *,
        noise: float = 0.0,
        banks: int | None = None,
        threads: int | None = None,
        advance: Advance = lambda done, banks: None,
        moved: Factors | None = None,
    ) -> FaultMap:
        """The weak cells of a memory of this chip, numbered from its own first.

        Time goes with the number of weak cells (and of columns, where columns differ), and so does memory but for 25
        bytes a thread for each cell of a bank (of a column, where columns or rows differ), of which there may be 2^26.
        Raises InputError.

        Parameters
        ----------
        memory
            Where the cells lie, how they fail and what they read then.
        voltage_floor
            The lowest voltage that the map knows, in the unit of the memory's curve.
        noise
            Makes cells intermittent: its square is the share of variance that is drawn anew at each access (0.07 to
            0.15 on silicon), so that the rate of one access follows the curve, and the count of cells that fail more
            often than not falls a little below it.
        banks
            Only the weak cells of so many banks, from the memory's first on: all that what lies there meets.
        threads
            All, unless NUMBA_NUM_THREADS says otherwise; they never change the map.
        advance
            Called with (banks done, banks) as the map grows.
        moved
            The chip that this one would be with so much more of each of its `factors`, all else being the same: chips
            that are rare among those of a lot, made on purpose. Of a lot are only chips that are not moved.
        """
        curve, shares, key = (
            failure.curve(memory.curve),
            structure_of(memory.structure),
            random.key(self.seed, self.number),
        )
        if not 0 <= noise < 1:
            raise InputError("fault map", "noise", noise, "in [0, 1), a share of the spread between cells")
        if not 0 < voltage_floor < np.inf:
            raise InputError("fault map", "voltage_floor", voltage_floor, f"a positive voltage in {curve.unit}")
        geometry, voltage_floor = memory.geometry, float(voltage_floor)
        marked = geometry.rows if shares.differs_in_bank else geometry.cells_per_bank
        if marked > REGION:
            allowed = f"banks of at most {REGION} cells (of so many rows, where columns or rows differ)"
            raise InputError("fault map", "geometry", geometry, allowed)

        steady = float(np.sqrt(1 - noise**2))
        model = _model(key, memory, lowest_critical(curve, voltage_floor, noise), steady, moved)

        def block(part: range) -> np.ndarray:
            return kernels.weak_cells(part.start, part.stop, *model)

        found = _in_blocks(block, memory, threads, advance, banks)
        packed = np.concatenate([np.empty(0, np.uint64), *found])
        del found
        packed.sort()
        critical_voltage = np.empty(len(packed), np.float32)
        kernels.unpack(packed, critical_voltage)
        cell = packed.view(np.int64)
        kind = np.full(len(cell), FLIP, np.uint8)
        if memory.mode == "stuck":
            polarities(cell, self.number, kind, self.seed, memory.stuck_at_one)
        cell -= memory.first_bank * geometry.cells_per_bank
        width = noise_width(curve, critical_voltage, noise) if noise else None
        arrays = cell, critical_voltage, kind, width
        return FaultMap(geometry, curve, shares, key[1], key[0], voltage_floor, *arrays, memory.first_bank)

    def dense(self, memory: Memory, voltage: float, *, threads: int | None = None) -> np.ndarray:
        """bool[banks, rows, columns], True where a cell is faulty: `fault_map(...).dense(voltage)` without sorting."""
        shares, geometry = structure_of(memory.structure), memory.geometry
        model = _model(random.key(self.seed, self.number), memory, float(voltage), 1.0)
        out = np.empty((memory.die.banks, geometry.rows, geometry.columns), np.bool_)

        def block(part: range) -> None:
            if shares.differs_in_bank:
                out[part.start : part.stop] = False
                kernels.mark(kernels.weak_cells(part.start, part.stop, *model), out.reshape(-1))
            else:
                kernels.mark_banks(out.reshape(-1), part.start, part.stop, *model)

        _in_blocks(block, memory, threads)
        return out[memory.first_bank :]


def polarities(cell: np.ndarray, chip: int, kind: np.ndarray, seed: int = 0, stuck_at_one: float = 0.5) -> None:
    """Write into kind uint8[n] what each cell (int64[n], of its die) of a chip is stuck at: a draw of its own."""
    kernels.polarity(cell, np.uint64(round(stuck_at_one * 2**32)), random.key(seed, chip), kind)


def _model(key: tuple[int, int], memory: Memory, floor: float, steady: float, moved: Factors | None = None) -> tuple:
    """What the kernels take after the range of banks."""
    geometry, shares = memory.die, structure_of(memory.structure)
    table = voltage_table(failure.curve(memory.curve), shares, floor, steady)
    scale = kernels.Scale(
        die=shares.die**0.5,
        bank=shares.bank**0.5,
        smooth=shares.smooth**0.5,
        column=shares.column_scale,
        tail=shares.tail,
        row=shares.row**0.5,
        cell=shares.cell**0.5,
        run=shares.run**0.5,
        **({} if moved is None else _moved(moved)),
    )
    # Banks stand row by row on a floor that is as square as their own shape allows.
    across = max(1, round((geometry.banks * geometry.rows / geometry.columns) ** 0.5))
    down = -(-geometry.banks // across)
    whole = kernels.Table(*table, floor, floor * (1 - 2.0**-22))
    return geometry.rows, geometry.columns, across, down, scale, key, random.times(), whole


def _moved(by: Factors) -> dict[str, Any]:
    arrays = {"bank_moved": by.bank, "column_moved": by.column.reshape(-1)}
    return {"die_moved": by.die} | {name: np.ascontiguousarray(each, np.float64) for name, each in arrays.items()}


def _in_blocks(
    work: Callable[[range], Any],
    memory: Memory,
    threads: int | None,
    advance: Advance = lambda done, banks: None,
    first: int | None = None,
) -> list:
    """Results of `work` on blocks of the memory's banks, all or the first, which go to threads and come back in
    order."""
    banks, threads = range(memory.first_bank, memory.die.banks)[:first], threads or numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    size = max(1, 2**21 // memory.geometry.cells_per_bank, min(256, -(-len(banks) // threads)))
    parts = [banks[i : i + size] for i in range(0, len(banks), size)]
    if len(parts) <= 1:  # two million cells take less time than it takes to start a thread
        return [work(part) for part in parts]
    results = []
    with ThreadPoolExecutor(threads) as pool:
        for part, result in zip(parts, pool.map(work, parts), strict=True):
            results.append(result)
            advance(part.stop - banks.start, len(banks))
    return results
