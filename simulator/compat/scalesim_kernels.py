"""SCALE-Sim's demand streams against its buffers, exact to the word (semantics: scalesim.py); plain integers.

A word of an operand belongs to a carrier (an output pixel's window for the ifmap, a filter for the filters) and a tap.
Tap t of carrier p has the address base[p] + (t // row_taps) * row_stride + t % row_taps, and is missing outside the
first rows_valid[p] rows and the first taps_valid[p] taps of a row (windows that hang over the edge).
"""

import numpy as np

from simulator.array.dataflow_kernels import OS, spatial
from sram.jit import jit

# The lines (cycles) of a fold: carrier p and tap t, both counted from the fold's first, are on line p + t, ports being
# carriers or taps; or, TILE, a line is a tap, the last one first, and ports are carriers.
CARRIER_PORTS, TAP_PORTS, TILE = 0, 1, 2
CHUNK = 64  # lines that are counted together where their order does not matter


@jit
def count_together(stream, stamp, operand, p0, carriers, t0, taps, line, end, number):
    """Words on lines [line, end) that are not in set `number` yet; they join it. Along the rows, carrier by carrier."""
    base, rows_valid, taps_valid, row_taps, row_stride = operand
    new = 0
    first, last = 0, carriers
    if stream != TILE:
        first, last = max(0, line - taps + 1), min(carriers, end)
    for d in range(first, last):
        t, stop = t0 + max(0, line - d), t0 + min(taps, end - d)
        if stream == TILE:
            t, stop = t0 + taps - end, t0 + taps - line
        p = p0 + d
        while t < stop:
            row = t // row_taps
            here = row * row_taps
            if row < rows_valid[p]:
                begin = base[p] + row * row_stride + t - here
                words = stamp[begin : begin + max(0, min(stop, here + taps_valid[p]) - t)]
                for i in range(words.shape[0]):
                    new += words[i] != number
                    words[i] = number
            t = here + row_taps
    return new


@jit
def reads(stream, base, rows_valid, taps_valid, row_taps, row_stride, words, folds, limit):
    """DRAM reads of an operand of `words` words: its demand, fold by fold, against a set emptied when it holds `limit`.

    folds: int64[folds, 4], first carrier, carriers, first tap, taps.
    """
    operand = (base, rows_valid, taps_valid, row_taps, row_stride)
    stamp = np.full(words, -1, np.int32)
    total, held, number = 0, 0, 0
    for f in range(folds.shape[0]):
        p0, carriers, t0, taps = folds[f]
        lines = taps if stream == TILE else carriers + taps - 1
        width = carriers if stream == TILE else min(carriers, taps)
        for line in range(0, lines, CHUNK):
            end = min(line + CHUNK, lines)
            if held + (end - line) * width < limit:  # cannot fill up in these lines: their order does not matter
                new = count_together(stream, stamp, operand, p0, carriers, t0, taps, line, end, number)
                total += new
                held += new
                continue
            for at in range(line, end):
                first, last = 0, carriers
                if stream != TILE:
                    first, last = max(0, at - taps + 1), min(carriers, at + 1)
                for i in range(last - first):
                    d = last - 1 - i if stream == TAP_PORTS else first + i
                    p, t = p0 + d, t0 + (taps - 1 - at if stream == TILE else at - d)
                    row = t // row_taps
                    column = t - row * row_taps
                    if row >= rows_valid[p] or column >= taps_valid[p]:
                        continue
                    address = base[p] + row * row_stride + column
                    if stamp[address] != number:
                        stamp[address] = number
                        total += 1
                        held += 1
                        if held == limit:
                            held = 0
                            number += 1
    return total


@jit
def ofmap_writes(dataflow, m, k, n, rows, cols, places):
    """DRAM writes of the outputs through a buffer of `places` words that drains by halves, in lines of `cols` words."""
    sr, sc, t = spatial(dataflow, m, k, n)
    portion = places // 2
    portion_lines = -(-portion // cols)
    fold = rows + cols + t - 2 + (0 if dataflow == OS else rows)
    closed = np.zeros(1, np.int64)  # sizes of closed lines: a ring, `lines` of them from `head` on
    head, lines = 0, 0
    opened, free, total, drain_end, start = 0, places, 0, -1, 0
    for c in range(0, sc, cols):
        v = min(cols, sc - c)
        for r in range(0, sr, rows):
            u = min(rows, sr - r)
            first = t - 1 + rows - u if dataflow == OS else 2 * rows - 1
            words = u if dataflow == OS else t  # of a column, one a line, those of column j from line first + j on
            for line in range(words + v - 1):
                cycle = start + first + line
                left = min(line, v - 1) - max(0, line - words + 1) + 1
                while left > 0:
                    # up to the word that starts a drain, or that closes a line, or all
                    step = min(left, cols - opened)
                    if cycle >= drain_end:
                        step = min(step, max(1, free - (places - portion) + 1))
                    left -= step
                    free -= step
                    opened += step
                    drains = cycle >= drain_end and free < places - portion
                    if opened == cols or (drains and opened > 0):
                        closed, head, lines = push(closed, head, lines, opened)
                        opened = 0
                    if drains:
                        drained = min(lines, portion_lines)
                        counted = (drained - 1) * cols + closed[(head + drained - 1) % closed.shape[0]]
                        head, lines = (head + drained) % closed.shape[0], lines - drained
                        total += counted
                        free += counted
                        drain_end = cycle + drained - 1
            start += fold
    if opened > 0:
        closed, head, lines = push(closed, head, lines, opened)
    while lines > 0:
        drained = min(lines, portion_lines)
        total += (drained - 1) * cols + closed[(head + drained - 1) % closed.shape[0]]
        head, lines = (head + drained) % closed.shape[0], lines - drained
    return total


@jit
def push(ring, head, count, value):
    """Append to a ring, which doubles when it is full; (ring, head, count)."""
    size = ring.shape[0]
    if count == size:
        larger = np.empty(2 * size, np.int64)
        for i in range(size):
            larger[i] = ring[(head + i) % size]
        ring, head, size = larger, 0, 2 * size
    ring[(head + count) % size] = value
    return ring, head, count + 1
