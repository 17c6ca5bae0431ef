"""Weak cells of a memory, in time proportional to their number.

Give every cell an exponential clock: cell i rings at time T_i, and its own normal term is the one that is exceeded
with probability 1 - exp(-T_i). The first rings of n independent clocks are the points of a Poisson process of rate n,
each at a cell drawn uniformly, where points at cells that rang before are ignored. So a region of n cells is sampled
from the weakest cell on, and stopping at the lowest voltage asked for changes nothing about the cells found up to
there: a map made for a lower voltage contains the map made for a higher one.

A region is one column of one bank (whose cells share the bank and column terms) or, where nothing differs inside a
bank, the whole bank. Row terms differ within a column: the process runs until the weakest row could not fail any more.

Where neighbouring rows of a column share a term too, runs and cells have clocks of their own, and both are looked
through as a tree of first rings (`cells_in_runs`).
"""

from typing import NamedTuple

import numpy as np

from sram.jit import jit, jit_inline
from sram.random import Stream
from sram.random_kernels import expm1, fill_normals, log, normal_at, one_normal, philox, uniform
from sram.structure import RUN_ROWS

B32, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
DIE, BANK, SMOOTH, COLUMN, ROW, CELL, POLARITY, ACCESS, RUN, _ = (np.int64(stream) for stream in Stream)
ONE_BIT = np.uint64(1)
NONE, ONE = np.int64(0), np.int64(1)  # typed, so that a kernel called with them is compiled once, not per value
LATTICE = 4  # intervals of the smooth field's lattice along each edge of the die


NOT_MOVED = np.empty(0)


class Scale(NamedTuple):
    """Standard deviations of the terms; `tail` is Tukey's h of the column's. By how much the normal variates of the
    die, of each bank of it and of each column (of all banks, one bank after the other) are moved; none if empty."""

    die: float
    bank: float
    smooth: float
    column: float
    tail: float
    row: float
    cell: float
    run: float = 0.0
    die_moved: float = 0.0
    bank_moved: np.ndarray = NOT_MOVED
    column_moved: np.ndarray = NOT_MOVED


class Table(NamedTuple):
    """Critical voltage on a grid over the sum of terms, and the lowest voltage asked for.

    A total whose voltage lies below `stop` cannot be above `floor` once rounded to float32.
    """

    low: float
    per_step: float
    voltages: np.ndarray
    floor: float
    stop: float


@jit_inline
def heavy(z, tail):
    """Tukey's h transform of a normal variate."""
    if tail == 0.0:
        return z
    return z * (expm1(0.5 * tail * z * z) + 1.0)


@jit_inline
def voltage_of(total, table):
    """Linear interpolation; beyond the grid's ends it continues straight."""
    x = (total - table.low) * table.per_step
    i = min(max(np.int64(x), 0), table.voltages.size - 2)
    return table.voltages[i] + (x - i) * (table.voltages[i + 1] - table.voltages[i])


@jit
def smooth_field(x, y, key, times):
    """Standard normal field at (x, y) in the unit square: cubic B-splines on a lattice of normals, unit variance."""
    total = 0.0
    power = 0.0
    column, row = np.int64(x * LATTICE), np.int64(y * LATTICE)
    for j in range(4):
        for i in range(4):
            weight = bspline(x * LATTICE - column - (i - 1)) * bspline(y * LATTICE - row - (j - 1))
            node = (row + j) * (LATTICE + 4) + column + i
            total += weight * one_normal(node, NONE, SMOOTH, key, times)
            power += weight * weight
    return total / np.sqrt(power)


@jit
def bspline(d):
    """Cubic B-spline of unit knots at distance d from its centre."""
    d = abs(d)
    if d < 1.0:
        return 2.0 / 3.0 - d * d * (1.0 - 0.5 * d)
    if d < 2.0:
        return (2.0 - d) * (2.0 - d) * (2.0 - d) / 6.0
    return 0.0


@jit
def bank_term(bank, across, down, scale, key, times):
    """What the cells of a bank share: die, bank and smooth terms. Banks lie row by row on a floor of across x down."""
    total = 0.0
    if scale.die > 0.0:
        total += scale.die * (one_normal(NONE, NONE, DIE, key, times) + scale.die_moved)
    if scale.bank > 0.0:
        moved = scale.bank_moved[bank] if scale.bank_moved.size > 0 else 0.0
        total += scale.bank * (one_normal(NONE, bank, BANK, key, times) + moved)
    if scale.smooth > 0.0:
        x, y = (bank % across + 0.5) / across, (bank // across + 0.5) / down
        total += scale.smooth * smooth_field(x, y, key, times)
    return total


@jit
def draw_rings(draw, draw_step, region, region_step, bank, key, wait, where):  # wait, where: float64[lanes] out
    """Waiting times (in units of the region's mean) and places in [0, 1), for lanes of consecutive draws or regions."""
    k0, k1 = key
    for lane in range(wait.size):  # without branches or dependence, so that the compiler does four lanes at once
        x0, x1, x2, x3 = philox(draw + lane * draw_step, region + lane * region_step, bank, CELL, k0, k1)
        wait[lane] = uniform(x0, x1)
        where[lane] = uniform(x2, x3)
    for lane in range(wait.size):
        wait[lane] = -log(wait[lane])


@jit
def first_of(array, n, size):
    """A new array of this size that begins with the first n elements; a slice assignment takes seconds to compile."""
    out = np.empty(size, array.dtype)
    for i in range(n):
        out[i] = array[i]
    return out


@jit_inline
def first_rings(parent, high, low, clocks):
    """First rings of the halves of a set whose first ring is `parent`, from two random words; `clocks` in a half.

    It rang in one half or the other. Clocks have no memory: the other half, silent until then, waits anew.
    """
    other = parent - log(uniform(high, low)) / clocks
    return (parent, other) if low & ONE_BIT else (other, parent)  # a bit that `uniform` drops


@jit
def cells_in_runs(out, n, shared, row_term, weakest_row, column, columns, bank, scale, key, times, table, stack):
    """Put a column's weak cells into out uint64[...] from n on -> how many there are then.

    A binary tree over the column, drawn from the root down as far as needed: each node knows the weakest run and the
    weakest cell below it, and is left where even these two together would not fail. Leaves are cells, RUN_ROWS of them
    a run; where the column lies on its runs is drawn, too. `stack`: room for nodes, int64, float64 and float64[64].
    """
    rows = row_term.size
    runs = np.int64(1)
    while runs * RUN_ROWS < rows + RUN_ROWS - 1:
        runs *= 2
    leaves = runs * RUN_ROWS
    k0, k1 = key
    x0, x1, x2, x3 = philox(np.int64(0), column, bank, RUN, k0, k1)
    skipped = np.int64(x1 & LOW) % RUN_ROWS  # leaves before row 0
    node, of_run, of_cell = stack
    node[0], of_run[0], of_cell[0] = 1, -log(uniform(x0, x1)) / runs, -log(uniform(x2, x3)) / leaves
    depth = 1
    while depth > 0:
        depth -= 1
        k, run, cell = node[depth], of_run[depth], of_cell[depth]
        total = shared + scale.run * normal_at(run, times) + scale.cell * normal_at(cell, times)
        if voltage_of(total + weakest_row, table) < table.stop:
            continue
        if k >= leaves:
            row = k - leaves - skipped
            if 0 <= row < rows:
                rounded = np.float32(voltage_of(total + row_term[row], table))
                if rounded > table.floor:
                    where = np.uint64((np.int64(bank) * rows + row) * columns + column)
                    out[n] = ((LOW - np.uint64(rounded.view(np.uint32))) << B32) | where
                    n += 1
            continue
        level = np.int64(1)
        while 2 * level <= k:
            level *= 2
        x0, x1, x2, x3 = philox(k, column, bank, RUN, k0, k1)
        run_left, run_right = first_rings(run, x0, x1, 0.5 * runs / level) if k < runs else (run, run)
        cell_left, cell_right = first_rings(cell, x2, x3, 0.5 * leaves / level)
        node[depth], of_run[depth], of_cell[depth] = 2 * k, run_left, cell_left
        node[depth + 1], of_run[depth + 1], of_cell[depth + 1] = 2 * k + 1, run_right, cell_right
        depth += 2
    return n


@jit
def weak_cells(first, last, rows, columns, across, down, scale, key, times, table):
    """Cells of banks [first, last) whose critical voltage, rounded to float32, lies above table.floor, bank by bank.

    -> uint64[n]: inverted bits of the critical voltage above the cell number, so that sorting these integers sorts by
    falling voltage, ties by cell. Memory goes with n and with the cells of one region, which are marked as they ring.
    """
    by_column = scale.column > 0.0 or scale.row > 0.0 or scale.run > 0.0
    regions = columns if by_column else 1
    cells = rows if by_column else rows * columns
    rate = 1.0 / cells
    column_term, row_term = np.zeros(regions), np.zeros(rows)
    weakest_row = 0.0
    rang = np.zeros(cells, np.bool_)
    ringer = np.empty(cells, np.int64)
    # The first ring of every region at once: most columns have no other. Then a few more, of one region at a time.
    first_wait, first_where = np.empty(regions), np.empty(regions)
    wait, where = np.empty(4 if by_column else 32), np.empty(4 if by_column else 32)
    stack = np.empty(64, np.int64), np.empty(64), np.empty(64)
    out = np.empty(2 * cells, np.uint64)
    n = np.int64(0)
    for bank in range(first, last):
        in_bank = bank_term(bank, across, down, scale, key, times)
        if scale.column > 0.0:
            fill_normals(column_term, bank, COLUMN, key, times)
            for c in range(columns):
                moved = scale.column_moved[bank * columns + c] if scale.column_moved.size > 0 else 0.0
                column_term[c] = scale.column * heavy(column_term[c] + moved, scale.tail)
        if scale.row > 0.0:
            fill_normals(row_term, bank, ROW, key, times)
            weakest_row = -np.inf
            for r in range(rows):
                row_term[r] *= scale.row
                weakest_row = max(weakest_row, row_term[r])
        draw_rings(NONE, NONE, NONE, ONE, bank, key, first_wait, first_where)
        for region in range(regions):
            shared = in_bank + column_term[region]
            base = np.int64(bank) * rows * columns + region
            wait[0], where[0] = first_wait[region], first_where[region]
            if n + cells > out.size:
                out = first_of(out, n, 2 * out.size)
            if scale.run > 0.0:
                n = cells_in_runs(
                    out, n, shared, row_term, weakest_row, region, columns, bank, scale, key, times, table, stack
                )
                continue
            time, rings, draw, lane, lanes = 0.0, 0, NONE, 0, 1
            while rings < cells:
                if lane == lanes:
                    draw += lanes
                    draw_rings(draw, ONE, region, NONE, bank, key, wait, where)
                    lane, lanes = 0, wait.size
                time += wait[lane] * rate
                i = np.int64(where[lane] * cells)
                lane += 1
                total = shared + scale.cell * normal_at(time, times)
                voltage = voltage_of(total + weakest_row, table)
                if voltage < table.stop:
                    break
                if rang[i]:
                    continue
                rang[i] = True
                ringer[rings] = i
                rings += 1
                if scale.row > 0.0:
                    voltage = voltage_of(total + row_term[i], table)
                rounded = np.float32(voltage)
                if rounded > table.floor:
                    out[n] = ((LOW - np.uint64(rounded.view(np.uint32))) << B32) | np.uint64(base + i * regions)
                    n += 1
            for j in range(rings):
                rang[ringer[j]] = False
    return first_of(out, n, n)


@jit
def unpack(packed, critical_voltage):
    """Of packed uint64[n] leave the cell numbers in place, and put the voltages into critical_voltage float32[n]."""
    for i in range(packed.size):
        critical_voltage[i] = np.uint32(LOW - (packed[i] >> B32)).view(np.float32)
        packed[i] &= LOW


@jit
def mark(packed, faulty):
    """Set faulty bool[cells] where one of packed uint64[n] lies."""
    for i in range(packed.size):
        faulty[packed[i] & LOW] = True


@jit
def time_of_floor(shared, scale, times, table):
    """The last time at which a ring's critical voltage, rounded to float32, lies above the floor; by bisection."""
    low, high = 0.0, 64.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if np.float32(voltage_of(shared + scale.cell * normal_at(middle, times), table)) > table.floor:
            low = middle
        else:
            high = middle
    return low


@jit
def mark_banks(faulty, first, last, rows, columns, across, down, scale, key, times, table):
    """`weak_cells` where nothing differs inside a bank, straight into faulty (bool[cells]) and from times alone.

    Critical voltages are worked out only for rings so near to the floor that rounding decides.
    """
    cells = rows * columns
    rate = 1.0 / cells
    wait, where = np.empty(32), np.empty(32)
    before, limit = np.nan, 0.0
    for bank in range(first, last):
        shared = bank_term(bank, across, down, scale, key, times)
        if shared != before:  # the same for all banks where cells are independent
            before, limit = shared, time_of_floor(shared, scale, times, table)
        surely, surely_not = limit * (1.0 - 1e-6), limit * (1.0 + 1e-6)
        inside = faulty[bank * cells : (bank + 1) * cells]
        for i in range(cells):  # here rather than for all banks at once: the bank is then in the cache
            inside[i] = False
        time, draw, ringing = 0.0, NONE, True
        while ringing:
            draw_rings(draw, ONE, NONE, NONE, bank, key, wait, where)
            draw += wait.size
            after = time
            for lane in range(wait.size):
                after += wait[lane] * rate
            if after <= surely:  # most often: all of them fail, and nothing needs a look
                for lane in range(wait.size):
                    inside[np.int64(where[lane] * cells)] = True
                time = after
                continue
            for lane in range(wait.size):
                time += wait[lane] * rate
                if time > surely:
                    if time > surely_not:
                        ringing = False
                        break
                    voltage = voltage_of(shared + scale.cell * normal_at(time, times), table)
                    if not np.float32(voltage) > table.floor:
                        continue
                inside[np.int64(where[lane] * cells)] = True


@jit
def polarity(cell, below, key, kind):
    """Kinds uint8[n] of cells int64[n]: 1 (stuck at 1) with probability below / 2^32, else 0."""
    k0, k1 = key
    for i in range(cell.size):
        x0, _, _, _ = philox(cell[i], NONE, NONE, POLARITY, k0, k1)
        kind[i] = x0 < below


@jit
def failing(cell, critical_voltage, noise, voltage, epoch, reach, key, times):
    """Which of these cells (arrays [n]) fail at this access: bool[n].

    Vc + noise * e > V with a standard normal e for each (cell, epoch), cut off at +-reach, so that only cells within
    reach of the voltage need a draw; the same e at every voltage, so that faults of one epoch are nested too.
    """
    out = np.empty(cell.size, np.bool_)
    for i in range(cell.size):
        margin = np.float64(critical_voltage[i]) - voltage
        width = np.float64(noise[i])
        if abs(margin) >= reach * width:
            out[i] = margin > 0.0
        else:
            e = one_normal(cell[i], epoch, ACCESS, key, times)
            out[i] = margin + width * min(max(e, -reach), reach) > 0.0
    return out
