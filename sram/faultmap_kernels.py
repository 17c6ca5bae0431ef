"""Weak cells of a memory, in time proportional to their number.

Give every cell an exponential clock: cell i rings at time T_i, and its own normal term is the one that is exceeded
with probability 1 - exp(-T_i). The first rings of n independent clocks are the points of a Poisson process of rate n,
each at a cell drawn uniformly, where points at cells that rang before are ignored. So a region of n cells is sampled
from the weakest cell on, and stopping at the lowest voltage asked for changes nothing about the cells found up to
there: a map made for a lower voltage contains the map made for a higher one.

A region is one column of one bank (whose cells share the bank and column terms) or, where nothing is shared inside a
bank, the whole bank.
"""

import numpy as np

from sram.jit import jit
from sram.random_kernels import expm1, log, normal, normal_of_time, philox, uniform

B32 = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


@jit
def voltage_of_latent(latent, low, per_step, voltages):  # voltages float64[m], on a grid of latents from `low`
    """Linear interpolation; the grid's ends continue straight."""
    x = (latent - low) * per_step
    i = min(max(np.int64(x), 0), voltages.size - 2)
    return voltages[i] + (x - i) * (voltages[i + 1] - voltages[i])


@jit
def heavy(z, tail):
    """Tukey's h transform of a normal variate."""
    if tail == 0.0:
        return z
    return z * (expm1(0.5 * tail * z * z) + 1.0)


@jit
def one_normal(index, item, bank, stream, k0, k1):
    x0, x1, _, _ = philox(index, item, bank, stream, k0, k1)
    return normal(uniform(x0, x1))


@jit
def weak_cells(
    first, last, rows, columns, by_column, offset, scale, streams, key, table_low, per_step, voltages, floor
):
    """Cells of banks [first, last) whose critical voltage (rounded to float32) is above `floor`, bank by bank.

    offset: latent of the die. scale float64[5]: bank, column, column tail's h, row, cell. streams int64[4]: bank,
    column, row, cell. -> uint64[n]: inverted bits of the critical voltage above the cell number, so that sorting
    these integers sorts by falling voltage, ties by cell.
    """
    k0, k1 = key
    region_cells = rows if by_column else rows * columns
    regions = columns if by_column else 1
    stride = columns if by_column else 1
    rate = 1.0 / region_cells
    row_term = np.zeros(rows)
    varying = scale[3] > 0.0
    taken = np.zeros(region_cells, np.bool_)
    touched = np.empty(region_cells, np.int64)
    found = np.empty(1024, np.uint64)
    n = 0
    for bank in range(first, last):
        bank_offset = offset
        if scale[0] > 0.0:
            bank_offset += scale[0] * one_normal(0, 0, bank, streams[0], k0, k1)
        top = 0.0
        if varying:
            for r in range(rows):
                row_term[r] = scale[3] * one_normal(r, 0, bank, streams[2], k0, k1)
            top = row_term.max()
        for region in range(regions):
            shared = bank_offset
            if by_column:
                shared += scale[1] * heavy(one_normal(region, 0, bank, streams[1], k0, k1), scale[2])
            base = np.int64(bank) * rows * columns + region
            time = 0.0
            rung = 0
            draw = 0
            while rung < region_cells:
                x0, x1, x2, x3 = philox(draw, region, bank, streams[3], k0, k1)
                draw += 1
                time -= log(uniform(x0, x1)) * rate
                latent = shared + scale[4] * normal_of_time(time)
                # Nobody later in this region can be weaker than this, in the region's weakest row.
                if voltage_of_latent(latent + top, table_low, per_step, voltages) < floor:
                    break
                i = np.int64(uniform(x2, x3) * region_cells)
                if taken[i]:
                    continue
                taken[i] = True
                touched[rung] = i
                rung += 1
                if varying:
                    latent += row_term[i]
                voltage = np.float32(voltage_of_latent(latent, table_low, per_step, voltages))
                if voltage > floor:
                    if n == found.size:
                        grown = np.empty(2 * n, np.uint64)
                        grown[:n] = found
                        found = grown
                    inverted = LOW - np.uint64(voltage.view(np.uint32))
                    found[n] = (inverted << B32) | np.uint64(base + i * stride)
                    n += 1
            for j in range(rung):
                taken[touched[j]] = False
    return found[:n].copy()


@jit
def unpack(packed, critical_voltage):  # packed uint64[n] -> cell numbers in place; critical_voltage float32[n] out
    for i in range(packed.size):
        critical_voltage[i] = np.uint32(LOW - (packed[i] >> B32)).view(np.float32)
        packed[i] &= LOW


@jit
def polarity(cell, stuck_at_one, stream, key, kind):  # cell int64[n]; kind uint8[n] out: 0 stuck at 0, 1 stuck at 1
    k0, k1 = key
    for i in range(cell.size):
        x0, x1, _, _ = philox(np.uint64(cell[i]), 0, 0, stream, k0, k1)
        kind[i] = uniform(x0, x1) < stuck_at_one
