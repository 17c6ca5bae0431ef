"""Closed forms of the timing that dataflow.py describes; plain integers."""

from sram.jit import jit

OS, WS, IS = 0, 1, 2
RS = 4  # row stationary, which is not systolic: rowstationary_kernels


@jit
def spatial(dataflow, m, k, n):
    """(rows needed, columns needed, cycles streamed)."""
    if dataflow == OS:
        return m, n, k
    if dataflow == WS:
        return k, n, m
    return k, m, n


@jit
def gemm_cycles(dataflow, products, m, k, n, rows, cols, overlap, skip_idle):
    """Cycles of `products` products; `overlap` and `skip_idle` as in dataflow.py."""
    sr, sc, t = spatial(dataflow, m, k, n)
    fr, fc = -(-sr // rows), -(-sc // cols)
    # u, v of whole folds are rows, cols; these are those of the last ones.
    last_u = sr - (fr - 1) * rows if skip_idle else rows
    last_v = sc - (fc - 1) * cols if skip_idle else cols
    if not overlap:
        # sum over folds of t + rows + u + v - 2
        used = fc * ((fr - 1) * rows + last_u) + fr * ((fc - 1) * cols + last_v)
        return products * (fr * fc * (t + rows - 2) + used)
    whole, part = max(t, rows), max(t, last_u)
    column = (fr - 1) * whole + part  # the steady cost of the fr folds of one column of folds
    steady = products * fc * column
    if dataflow == OS:
        # drain of the last fold starts at t + all intervals but that of the last fold
        ahead = t + steady - part + last_u
    else:
        # streaming starts after the first load, all intervals but that of the first fold
        first_u = rows if fr > 1 else last_u
        ahead = first_u + steady - max(t, first_u) + t
    end = ahead + rows + last_v - 2
    if fc > 1:  # wider folds before a narrow last one may still be leaving
        end = max(end, ahead - column + rows + cols - 2)
    return end
