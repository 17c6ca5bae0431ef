"""Fault maps with cells added, dropped, moved or replaced by spares; the map stays sorted and nested throughout."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.memory import Chip, Memory
from sram.protection import kernels
from sram.weakcells import NOISE_REACH


@dataclass(frozen=True, eq=False)
class Cells:
    """Weak cells outside a map: line (bank * rows + row) and column, int64[n], and the rest as in a map."""

    line: np.ndarray
    column: np.ndarray
    critical_voltage: np.ndarray
    kind: np.ndarray
    noise: np.ndarray | None


def extra_cells(fault_map: FaultMap, rows: int, columns: int, block: int) -> Cells:
    """The weak ones among `rows` x `columns` more cells in every bank (check bits, spares) of this very chip.

    They follow the same curve and structure, and are numbered as banks beyond those of the map, `block` by block, so
    that they are as persistent as the map and independent of it. Their bank and column terms are their own, and none of
    those of another memory on the die: with its blocks 1 to 3 a memory takes four times its banks. Those of the memory
    that is first on its die are numbered as the main cells of the memories behind it, and drawn as they are.
    """
    banks = fault_map.geometry.banks
    extra = Memory(
        Geometry(banks, rows, columns, columns),
        fault_map.curve,
        fault_map.structure,
        mode="flip" if len(fault_map) and bool((fault_map.kind == 2).all()) else "stuck",
        stuck_at_one=_share_of_ones(fault_map.kind),
        first_bank=4 * fault_map.first_bank + banks * block,
    )
    chip = Chip(fault_map.chip, fault_map.seed)
    more = chip.fault_map(extra, fault_map.voltage_floor, noise=_noise(fault_map))
    return Cells(more.cell // columns, more.cell % columns, more.critical_voltage, more.kind, more.noise)


def _share_of_ones(kind: np.ndarray) -> float:
    """Bias of the polarity as the map shows it, in twentieths: a tenth of a percent must not move every spare."""
    stuck = kind[kind < 2]
    return round(20 * float(stuck.mean())) / 20 if len(stuck) else 0.5


def _noise(fault_map: FaultMap) -> float:
    """Noise of a map's cells as a share of the spread between cells, in thousandths; 0 for steady cells."""
    if fault_map.noise is None or not len(fault_map):
        return 0.0
    half = fault_map.noise.astype(np.float64) / 2
    z = fault_map.curve.z
    width = z(fault_map.critical_voltage - half) - z(fault_map.critical_voltage + half)
    return round(float(np.median(width)), 3)


def _sorted(
    fault_map: FaultMap,
    cell: np.ndarray,
    critical_voltage: np.ndarray,
    kind: np.ndarray,
    noise: np.ndarray | None,
    floor: float,
) -> FaultMap:
    """A map of these cells, weakest first, without those that never fail at the floor."""
    critical_voltage = critical_voltage.astype(np.float32)
    lowest = np.float64(floor)
    if noise is not None and len(noise):
        lowest -= NOISE_REACH * float(noise.max())
    order = np.lexsort((cell, -critical_voltage))
    order = order[: np.count_nonzero(critical_voltage > lowest)]
    return replace(
        fault_map,
        cell=cell[order],
        critical_voltage=critical_voltage[order],
        kind=kind[order],
        noise=None if noise is None else noise[order],
        voltage_floor=floor,
    )


def select(fault_map: FaultMap, keep: np.ndarray) -> FaultMap:
    """The map without the cells where `keep` (bool[n]) is False."""
    noise = fault_map.noise
    return replace(
        fault_map,
        cell=fault_map.cell[keep],
        critical_voltage=fault_map.critical_voltage[keep],
        kind=fault_map.kind[keep],
        noise=None if noise is None else noise[keep],
    )


def shifted(fault_map: FaultMap, critical_voltage: np.ndarray, floor: float) -> FaultMap:
    """The map with other critical voltages (float[n]) and another floor."""
    return _sorted(fault_map, fault_map.cell, critical_voltage, fault_map.kind, fault_map.noise, floor)


def renumbered(fault_map: FaultMap, cell: np.ndarray) -> FaultMap:
    """The map with its weak cells at other addresses (int64[n])."""
    m = fault_map
    return _sorted(m, cell, m.critical_voltage, m.kind, m.noise, m.voltage_floor)


def merge(fault_map: FaultMap, cell: np.ndarray, added: Cells) -> FaultMap:
    """The map with `added` cells; `cell` int64[n + added] are the addresses of all."""
    both = None
    if fault_map.noise is not None and added.noise is not None:
        both = np.concatenate([fault_map.noise, added.noise])
    critical_voltage = np.concatenate([fault_map.critical_voltage, added.critical_voltage])
    kind = np.concatenate([fault_map.kind, added.kind])
    return _sorted(fault_map, cell, critical_voltage, kind, both, fault_map.voltage_floor)


def widened(fault_map: FaultMap, bits: int, block: int = 1) -> FaultMap:
    """The map with `bits` more bits in every word, behind those that it has, in columns of their own.

    `block` as in `extra_cells`: 1 is that of SECDED, 2 and 3 those of spares; two that widen words need two.

    >>> from sram.faultmap import generate
    >>> wide = widened(generate(0, Geometry(banks=4), "ibm14", voltage_floor=0.8), 8)
    >>> wide.geometry.word_bits, wide.geometry.columns
    (72, 72)
    """
    old = fault_map.geometry
    mux = old.column_mux
    wide = Geometry(old.banks, old.rows, mux * (old.word_bits + bits), old.word_bits + bits)
    added = extra_cells(fault_map, old.rows, mux * bits, block)
    # A column is bit * mux + slot, so that the new columns simply follow those of their row.
    before = fault_map.cell // old.columns * wide.columns + fault_map.cell % old.columns
    behind = added.line * wide.columns + old.columns + added.column
    return merge(replace(fault_map, geometry=wide), np.concatenate([before, behind]), added)


def repaired(fault_map: FaultMap, spare_rows: int, spare_columns: int, optimal: bool = False) -> FaultMap:
    """The map after `spare_rows` and `spare_columns` of each bank replace its worst lines, those at the floor."""
    g = fault_map.geometry
    bank, row, column = g.bank_row_column(fault_map.cell)
    replaced_rows = np.zeros((g.banks, g.rows), np.bool_)
    replaced_columns = np.zeros((g.banks, g.columns), np.bool_)
    choose = optimal_lines if optimal and spare_rows and spare_columns else kernels.greedy_lines
    order = np.argsort(bank, kind="stable")
    first = np.searchsorted(bank[order], np.arange(g.banks + 1))
    for b in np.flatnonzero(np.diff(first)):
        mine = order[first[b] : first[b + 1]]
        limits = (g.rows, g.columns, spare_rows, spare_columns)
        choose(row[mine], column[mine], *limits, replaced_rows[b], replaced_columns[b])

    result = fault_map
    for spares, replaced, by_row, block in (
        (spare_columns, replaced_columns, False, 2),
        (spare_rows, replaced_rows, True, 3),
    ):
        if spares:
            result = _swap(result, spares, replaced, by_row, block)
    return result


def _swap(fault_map: FaultMap, spares: int, replaced: np.ndarray, by_row: bool, block: int) -> FaultMap:
    """Put spare lines in for the `replaced` ones (bool[banks, lines]): worst line, best spare, where that is a gain."""
    g = fault_map.geometry
    rows, columns = (spares, g.columns) if by_row else (g.rows, spares)
    added = extra_cells(fault_map, rows, columns, block)
    bank, row, column = g.bank_row_column(fault_map.cell)
    line = row if by_row else column
    lines = g.rows if by_row else g.columns
    faults = np.bincount(bank * lines + line, minlength=g.banks * lines).reshape(g.banks, lines)
    spare_bank = added.line // rows
    spare_line = added.line % rows if by_row else added.column
    spare_faults = np.bincount(spare_bank * spares + spare_line, minlength=g.banks * spares).reshape(g.banks, spares)

    worst = np.argsort(np.where(replaced, -faults, 1), axis=1, kind="stable")[:, :spares]
    best = np.argsort(spare_faults, axis=1, kind="stable")[:, : worst.shape[1]]
    gain = np.take_along_axis(faults, worst, 1) > np.take_along_axis(spare_faults, best, 1)
    gain &= np.take_along_axis(replaced, worst, 1)
    target = np.full((g.banks, spares), -1)
    np.put_along_axis(target, best, np.where(gain, worst, -1), 1)
    swapped = np.zeros_like(replaced)
    banks, which = np.nonzero(target >= 0)
    swapped[banks, target[banks, which]] = True

    kept = select(fault_map, ~swapped[bank, line])
    at = target[spare_bank, spare_line]
    used = at >= 0
    new_row = at if by_row else added.line % rows
    new_column = added.column if by_row else at
    address = (spare_bank * g.rows + new_row) * g.columns + new_column
    noise = None if added.noise is None else added.noise[used]
    moved = Cells(added.line[used], added.column[used], added.critical_voltage[used], added.kind[used], noise)
    return merge(kept, np.concatenate([kept.cell, address[used]]), moved)


def optimal_lines(
    row: np.ndarray,
    column: np.ndarray,
    rows: int,
    columns: int,
    spare_rows: int,
    spare_columns: int,
    replaced_rows: np.ndarray,
    replaced_columns: np.ndarray,
) -> None:
    """The lines of one bank that together cover most faults; arguments as in kernels.greedy_lines.

    maximise sum of covered faults, covered_f <= row chosen + column chosen, within the spares: as an integer programme,
    where faults may be fractions because the lines are whole.
    """
    row_used, r = np.unique(row, return_inverse=True)
    column_used, c = np.unique(column, return_inverse=True)
    n, lines = len(row), len(row_used) + len(column_used)
    f = np.arange(n)
    ones = np.ones(n)
    covered = coo_array(
        (
            np.concatenate([-ones, -ones, ones]),
            (np.tile(f, 3), np.concatenate([r, len(row_used) + c, lines + f])),
        ),
        shape=(n, lines + n),
    )
    budget = np.zeros((2, lines + n))
    budget[0, : len(row_used)] = 1
    budget[1, len(row_used) : lines] = 1
    found = milp(
        c=np.concatenate([np.zeros(lines), -ones]),
        constraints=[LinearConstraint(covered.tocsr(), ub=0), LinearConstraint(budget, ub=[spare_rows, spare_columns])],
        integrality=np.concatenate([np.ones(lines), np.zeros(n)]),
        bounds=Bounds(0, 1),
    )
    if found.x is None:
        raise RuntimeError(f"HiGHS found no repair: {found.message}")
    chosen = found.x[:lines] > 0.5
    replaced_rows[row_used[chosen[: len(row_used)]]] = True
    replaced_columns[column_used[chosen[len(row_used) :]]] = True
