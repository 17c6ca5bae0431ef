"""Does an array that really multiplies, cycle by cycle, give the right product in the number of cycles that we claim?

The slow twins below know registers and wires only: a fold ends when its last result has left the array.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.array.dataflow import fold_cycles, gemm_cycles
from sram.errors import InputError

DATAFLOWS = ("os", "ws", "is")


def folds(dataflow, a, b, rows, cols, skip):
    """Fold by fold: (operands of the rows [T, u], of the columns [T, v] or stationary [u, v], where the results go)."""
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    sr, sc = {"os": (m, n), "ws": (k, n), "is": (k, m)}[dataflow]
    for c in range(0, sc, cols):
        for r in range(0, sr, rows):
            rs, cs = slice(r, min(r + rows, sr)), slice(c, min(c + cols, sc))
            if dataflow == "os":
                left, top, where = a[rs].T, b[:, cs], (rs, cs)
            elif dataflow == "ws":
                left, top, where = a[:, rs], b[rs, cs], (slice(None), cs)
            else:
                left, top, where = b[rs].T, a[cs, rs].T, (cs, slice(None))
            if not skip:  # idle rows and columns work on zeros; used rows stay next to the exit
                left = np.pad(left, ((0, 0), (rows - left.shape[1], 0)))
                top = np.pad(top, ((rows - top.shape[0], 0) if dataflow != "os" else (0, 0), (0, cols - top.shape[1])))
            yield left, top, where


def put(dataflow, out, where, block, u, v):
    """Add the results of a fold ([u, v] or [T, v], idle ones cut off) to the product."""
    shape = out[where].shape
    if dataflow == "os":
        out[where] += block[block.shape[0] - shape[0] :, : shape[1]]
    elif dataflow == "ws":
        out[where] += block[:, : shape[1]]
    else:
        out[where] += block.T[: shape[0]]


def plain_fold_os(left, top, rows, cols):
    """Operand registers shift right and down, accumulators add, then the columns shift down and out."""
    (t, u), v = left.shape, top.shape[1]
    a, b, acc = np.zeros((rows, cols)), np.zeros((rows, cols)), np.zeros((rows, cols))
    a_valid, b_valid, done = np.zeros((rows, cols), bool), np.zeros((rows, cols), bool), np.zeros((rows, cols), int)
    cycle = 0
    while (done[rows - u :, :v] < t).any():
        a[:, 1:], b[1:] = a[:, :-1].copy(), b[:-1].copy()
        a_valid[:, 1:], b_valid[1:] = a_valid[:, :-1].copy(), b_valid[:-1].copy()
        for row in range(rows):
            term, used = cycle - row, row - (rows - u)
            a_valid[row, 0] = used >= 0 and 0 <= term < t
            a[row, 0] = left[term, used] if a_valid[row, 0] else 0
        for column in range(cols):
            term = cycle - column
            b_valid[0, column] = column < v and 0 <= term < t
            b[0, column] = top[term, column] if b_valid[0, column] else 0
        acc += a * b
        done += a_valid & b_valid
        cycle += 1
    block = np.zeros((u, v))
    for d in range(u):
        block[u - 1 - d] = acc[-1, :v]
        acc[1:] = acc[:-1].copy()
        cycle += 1
    return block, cycle


def plain_fold_stationary(left, top, rows, cols):
    """Weights shift down into place; then inputs shift right and sums shift down and out."""
    (t, u), v = left.shape, top.shape[1]
    weight, cycle = np.zeros((rows, cols)), 0
    while cycle < rows:
        weight[1:] = weight[:-1].copy()
        weight[0] = np.pad(top[u - 1 - cycle], (0, cols - v)) if cycle < u else 0
        cycle += 1
    x, total, valid = np.zeros((rows, cols)), np.zeros((rows, cols)), np.zeros((rows, cols), bool)
    block, left_out, begin = np.zeros((t, v)), np.zeros(v, int), cycle
    while (left_out < t).any():
        x[:, 1:], valid[:, 1:] = x[:, :-1].copy(), valid[:, :-1].copy()
        for row in range(rows):
            used = row - (rows - u)
            pixel = cycle - begin - used
            valid[row, 0] = used >= 0 and 0 <= pixel < t
            x[row, 0] = left[pixel, used] if valid[row, 0] else 0
        total[1:] = total[:-1].copy()
        total[0] = 0
        total += weight * x
        for column in range(v):
            if valid[-1, column]:
                block[left_out[column], column] = total[-1, column]
                left_out[column] += 1
        cycle += 1
    return block, cycle


def plain(dataflow, a, b, rows, cols, skip):
    out, cycles = np.zeros((a.shape[0], b.shape[1])), 0
    for left, top, where in folds(dataflow, a, b, rows, cols, skip):
        fold = plain_fold_os if dataflow == "os" else plain_fold_stationary
        block, took = fold(left, top, rows, cols)
        put(dataflow, out, where, block, *top.shape)
        cycles += took
    return out, cycles


def overlapped_os(a, b, rows, cols, skip):
    """Two accumulators a PE: one adds up, the other shifts down; control lags one cycle a hop."""
    work = list(folds("os", a, b, rows, cols, skip))
    t = a.shape[1]
    # At PE(0, 0) a fold starts when an accumulator is empty and the operands of the fold before are through.
    starts, drains, empty = [], [], 0
    clock = 0
    for left, _, _ in work:
        starts.append(clock)
        clock = max(clock + t, empty)
        drains.append(clock)
        empty = clock + left.shape[1]
    acc, shadow, pipe = np.zeros((rows, cols)), np.zeros((rows, cols)), np.zeros((rows, cols))
    pending = np.zeros((rows, cols), int)  # rows of results still to pass each PE
    out, last = np.zeros((a.shape[0], b.shape[1])), -1
    blocks = [np.zeros((left.shape[1], top.shape[1])) for left, top, _ in work]
    for cycle in range(drains[-1] + 3 * rows + 2 * cols + 2):
        above = pipe.copy()
        for row in range(rows):
            for column in range(cols):
                now = cycle - row - column
                for f, (left, top, _) in enumerate(work):
                    u, v = left.shape[1], top.shape[1]
                    used = row - (rows - u)
                    if now == drains[f]:
                        assert pending[row, column] == 0, "results of the fold before are still here"
                        shadow[row, column], acc[row, column] = acc[row, column], 0
                        pending[row, column] = u
                    if drains[f] <= now < drains[f] + u:
                        pending[row, column] -= 1
                        if row == rows - 1 and column < v:
                            blocks[f][u - 1 - (now - drains[f]), column] = shadow[row, column]
                            last = cycle
                        pipe[row, column] = shadow[row, column]
                        if row > 0:  # what PE(row - 1) sent a cycle ago
                            shadow[row, column] = above[row - 1, column]
                for f, (left, top, _) in enumerate(work):
                    used = row - (rows - left.shape[1])
                    if starts[f] <= now < starts[f] + t and used >= 0 and column < top.shape[1]:
                        acc[row, column] += left[now - starts[f], used] * top[now - starts[f], column]
    for block, (left, top, where) in zip(blocks, work, strict=True):
        put("os", out, where, block, left.shape[1], top.shape[1])
    return out, last + 1


def overlapped_stationary(dataflow, a, b, rows, cols, skip):
    """Two stationary words a PE: one multiplies, the other waits for the word that carries its row number."""
    work = list(folds(dataflow, a, b, rows, cols, skip))
    t = work[0][0].shape[0]
    starts, clock = [], 0
    for f, (left, _, _) in enumerate(work):
        clock = left.shape[1] if f == 0 else clock + max(t, left.shape[1])
        starts.append(clock)
    active, waiting = np.zeros((rows, cols)), np.full((rows, cols), np.nan)
    passing = np.zeros((rows, cols))
    out, last = np.zeros((a.shape[0], b.shape[1])), -1
    blocks = [np.zeros((t, top.shape[1])) for _, top, _ in work]
    for cycle in range(starts[-1] + t + 2 * rows + 2 * cols):
        above = passing.copy()
        for row in range(rows):
            for column in range(cols):
                now = cycle - row - column
                for f, (left, _, _) in enumerate(work):
                    if now == starts[f] and row >= rows - left.shape[1]:
                        assert not np.isnan(waiting[row, column]) or column >= work[f][1].shape[1], "not loaded in time"
                        active[row, column], waiting[row, column] = waiting[row, column], np.nan
                for f, (left, top, _) in enumerate(work):
                    u, v = top.shape
                    step = now - (starts[f] - u)  # the word of row rows-u+step passes
                    if 0 <= step < u and row == rows - u + step and column < v:
                        assert np.isnan(waiting[row, column]), "the word before has not been taken"
                        waiting[row, column] = top[step, column]
                    if starts[f] <= now < starts[f] + t:
                        used = row - (rows - u)
                        carried = above[row - 1, column] if row > 0 else 0.0
                        here = used >= 0 and column < v
                        passing[row, column] = carried + (
                            active[row, column] * left[now - starts[f], used] if here else 0.0
                        )
                        if row == rows - 1 and column < v:
                            blocks[f][now - starts[f], column] = passing[row, column]
                            last = cycle
    for block, (left, top, where) in zip(blocks, work, strict=True):
        put(dataflow, out, where, block, left.shape[1], top.shape[1])
    return out, last + 1


def overlapped(dataflow, *args):
    return overlapped_os(*args) if dataflow == "os" else overlapped_stationary(dataflow, *args)


sizes = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DATAFLOWS), sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_array_without_overlap_multiplies_right_in_the_cycles_claimed(dataflow, m, k, n, rows, cols, skip):
    rng = np.random.default_rng(m * 100 + k * 10 + n)
    a, b = rng.integers(-9, 10, (m, k)), rng.integers(-9, 10, (k, n))
    product, cycles = plain(dataflow, a, b, rows, cols, skip)
    assert np.array_equal(product, a @ b)
    assert cycles == gemm_cycles(dataflow, m, k, n, rows, cols, skip_idle_rows=skip)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DATAFLOWS), sizes, sizes, sizes, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_array_with_overlap_multiplies_right_in_the_cycles_claimed(dataflow, m, k, n, rows, cols, skip):
    rng = np.random.default_rng(m * 100 + k * 10 + n)
    a, b = rng.integers(-9, 10, (m, k)), rng.integers(-9, 10, (k, n))
    product, cycles = overlapped(dataflow, a, b, rows, cols, skip)
    assert np.array_equal(product, a @ b)
    assert cycles == gemm_cycles(dataflow, m, k, n, rows, cols, overlap=True, skip_idle_rows=skip)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DATAFLOWS), st.tuples(*[st.integers(1, 300)] * 3), st.integers(1, 40), st.integers(1, 40))
def test_neither_overlap_nor_skipping_ever_costs_cycles_and_no_mac_is_done_faster_than_the_array_can(
    df, mkn, rows, cols
):
    cycles = {(o, s): gemm_cycles(df, *mkn, rows, cols, o, s) for o in (False, True) for s in (False, True)}
    assert cycles[True, True] <= cycles[True, False] <= cycles[False, False]
    assert cycles[True, True] <= cycles[False, True] <= cycles[False, False]
    assert cycles[True, True] * rows * cols >= mkn[0] * mkn[1] * mkn[2]


def test_one_fold_takes_load_skew_stream_and_drain():
    # 2R + C + T - 2 (SCALE-Sim's ws and is; its os leaves out the R cycles in which the results shift out)
    for dataflow in DATAFLOWS:
        m, k, n = {"os": (32, 100, 16), "ws": (100, 32, 16), "is": (16, 32, 100)}[dataflow]
        assert gemm_cycles(dataflow, m, k, n, 32, 16) == 2 * 32 + 16 + 100 - 2
        assert gemm_cycles(dataflow, m, k, n, 32, 16, overlap=True) == 2 * 32 + 16 + 100 - 2
        assert fold_cycles(dataflow, 32, 16, 100, 32, 16) == 2 * 32 + 16 + 100 - 2


def test_a_fold_larger_than_the_array_is_refused():
    with pytest.raises(InputError, match="rows_used"):
        fold_cycles("os", 33, 1, 1, 32, 32)
    with pytest.raises(InputError, match="allowed: os, ws, is"):
        gemm_cycles("rs", 1, 1, 1, 32, 32)
