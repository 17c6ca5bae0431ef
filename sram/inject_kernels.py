"""Loops over faults: the cost is in proportion to them, not to the words."""

import numpy as np

from sram.jit import jit, jit_inline

# A scattered write of four bytes moves a whole cache line each way: from one fault in so many words on, writing all
# values in order is faster (benchmarks/inject.py, 11 million words).
DENSE = 16


@jit_inline
def through(word, bit, kind):
    """The word (int64) as read when this bit is stuck at 0 (kind 0), stuck at 1 (1) or flipped (2)."""
    mask = np.int64(1) << np.int64(bit)
    return ((word & ~(mask * (kind == 0))) | (mask * (kind == 1))) ^ (mask * (kind == 2))


@jit
def first_outside(words, weight, bit, kind, word_bits):
    """Index of the first fault outside `words` words, or -1. weight int64[k], bit uint8[k], kind uint8[k]"""
    for start in range(0, weight.size, 4096):
        end = min(start + 4096, weight.size)
        outside = 0
        for i in range(start, end):  # no way out of this loop, so that it is vectorised
            outside |= (weight[i] < 0) | (weight[i] >= words) | (bit[i] >= word_bits) | (kind[i] > 2)
        if outside:
            for i in range(start, end):
                if weight[i] < 0 or weight[i] >= words or bit[i] >= word_bits or kind[i] > 2:
                    return i
    return -1


@jit
def apply(words, weight, bit, kind):
    for i in range(weight.size):
        words[weight[i]] = through(np.int64(words[weight[i]]), bit[i], kind[i])


@jit
def run_of(w, starts, words):
    """(number, first word, end) of the run of equal scale that word w lies in; starts int64[g] rising."""
    run = np.searchsorted(starts, w, side="right") - 1
    return run, starts[run], starts[run + 1] if run + 1 < starts.size else words


@jit
def scaled(words, scale, values):  # words int8[n]; values float32[n] out. Whole slices from 0, so that it is vectorised
    for i in range(words.size):
        values[i] = np.float32(words[i]) * scale


@jit
def copied(source, out):
    for i in range(source.size):
        out[i] = source[i]


@jit
def reread(words, clean, values, starts, scale, before, weight, bit, kind, bits):
    """words, clean int8[n]; values float32[n]; starts int64[g], scale float32[g]; before int64[j]; faults [k]."""
    n = words.size
    sign = np.int64(1) << np.int64(bits - 1)
    dense = (before.size + weight.size) * DENSE > n
    run, first, end = 0, 0, 0
    if dense:
        copied(clean, words)
    else:
        for i in range(before.size):
            w = before[i]
            if words[w] != clean[w]:
                words[w] = clean[w]
                if w < first or w >= end:
                    run, first, end = run_of(w, starts, n)
                values[w] = np.float32(words[w]) * scale[run]
    for i in range(weight.size):
        w = weight[i]
        old = np.int64(words[w])
        new = through(old, bit[i], kind[i])
        new = ((new & (2 * sign - 1)) ^ sign) - sign
        words[w] = new
        if new != old and not dense:
            if w < first or w >= end:
                run, first, end = run_of(w, starts, n)
            values[w] = np.float32(new) * scale[run]
    if dense:
        for run in range(starts.size):
            _, first, end = run_of(starts[run], starts, n)
            scaled(words[first:end], scale[run], values[first:end])
