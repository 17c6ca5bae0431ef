"""Loops over faults: the cost is in proportion to them, not to the words."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sram.jit import jit, jit_inline

# A scattered write of four bytes moves a whole cache line each way: from one fault in so many words on, writing all
# values in order is faster (benchmarks/inject.py, 11 million words).
DENSE = 128


@jit_inline
def through(word, bit, kind):
    """The word (int64) as read when this bit is stuck at 0 (kind 0), stuck at 1 (1) or flipped (2)."""
    mask = np.int64(1) << np.int64(bit)
    return (word & ~(mask * (kind < 2))) ^ (mask * (kind > 0))  # cleared, or cleared and set, or turned over


@jit
def first_outside(words, weight, bit, kind, word_bits):
    """Index of the first of k faults (weight int64, bit uint8, kind uint8) outside `words` words, or -1."""
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
    """Read words int8[n] or int16[n] through k faults (weight int64, bit uint8, kind uint8), in place."""
    for i in range(weight.size):
        words[weight[i]] = through(np.int64(words[weight[i]]), bit[i], kind[i])


@jit
def run_of(w, starts, words):
    """(number, first word, end) of the run of equal scale that word w lies in; starts int64[g] rising."""
    run = np.searchsorted(starts, w, side="right") - 1
    return run, starts[run], starts[run + 1] if run + 1 < starts.size else words


@intrinsic
def scale_eight(typing, words, i, scale, values):
    """values[i : i + 8] = words[i : i + 8] * scale, written past the caches: words and values of any width.

    A write through the caches reads the line first, which is half of all that a pass over the values moves. The
    address of values[i] has to be a multiple of 8 of them.
    """

    def emit(context, builder, signature, arguments):
        word_type, _, _, value_type = signature.args
        value = context.get_value_type(value_type.dtype)
        word = context.get_value_type(word_type.dtype)
        eight, number, out = (ir.VectorType(one, 8) for one in (word, ir.FloatType(), value))
        stored = context.make_array(word_type)(context, builder, arguments[0])
        read = context.make_array(value_type)(context, builder, arguments[3])
        source = builder.bitcast(builder.gep(stored.data, [arguments[1]]), eight.as_pointer())
        target = builder.bitcast(builder.gep(read.data, [arguments[1]]), out.as_pointer())
        nothing = ir.Constant(number, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        scales = builder.insert_element(nothing, arguments[2], ir.Constant(ir.IntType(32), 0))
        scales = builder.shuffle_vector(scales, nothing, lanes)
        product = builder.fmul(builder.sitofp(builder.load(source, align=1), number), scales)
        if out != number:
            product = builder.fpext(product, out)
        store = builder.store(product, target, align=32)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(words, types.int64, types.float32, values), emit


@jit
def scaled(words, first, end, scale, values, table):
    """values[first : end] = what these words stand for, times scale; words int8[n] or int16[n], values of any float
    type, table float32[patterns of bits], or empty where a word stands for itself."""
    if table.size:
        for i in range(first, end):
            values[i] = table[np.int64(words[i]) & (table.size - 1)] * scale
        return
    aligned = first + (-(values.ctypes.data // values.itemsize + first)) % 8
    vectors = max(end - aligned, 0) // 8
    for i in range(first, min(aligned, end)):
        values[i] = np.float32(words[i]) * scale
    for i in range(aligned, aligned + 8 * vectors, 8):
        scale_eight(words, i, scale, values)  # type: ignore[call-arg]  # the first is the compiler's
    for i in range(aligned + 8 * vectors, end):
        values[i] = np.float32(words[i]) * scale


@jit_inline
def number(word, table):
    """What a word (int64) stands for, before it is scaled."""
    return table[word & (table.size - 1)] if table.size else np.float32(word)


@jit
def copied(source, out):
    """out[:] = source, which takes seconds to compile as a slice."""
    for i in range(source.size):
        out[i] = source[i]


@jit
def reread(words, clean, values, starts, scale, before, weight, bit, kind, bits, table):
    """words, clean int8[n] or int16[n]; values float32[m], of the first m words; starts int64[g], scale float32[g];
    before int64[j]; faults [k]; table as in `scaled`."""
    n = values.size
    sign = np.int64(1) << np.int64(bits - 1)
    dense = (before.size + weight.size) * DENSE > words.size
    run, first, end = 0, 0, 0
    if dense:
        copied(clean, words)
    else:
        for i in range(before.size):
            w = before[i]
            if words[w] != clean[w]:
                words[w] = clean[w]
                if w >= n:
                    continue
                if w < first or w >= end:
                    run, first, end = run_of(w, starts, n)
                values[w] = number(np.int64(words[w]), table) * scale[run]
    for i in range(weight.size):
        w = weight[i]
        old = np.int64(words[w])
        new = through(old, bit[i], kind[i])
        new = ((new & (2 * sign - 1)) ^ sign) - sign
        words[w] = new
        if new != old and not dense and w < n:
            if w < first or w >= end:
                run, first, end = run_of(w, starts, n)
            values[w] = number(new, table) * scale[run]
    if dense:
        rescaled(words, values, starts, scale, np.arange(starts.size), table)


@jit
def rescaled(words, values, starts, scale, runs, table):
    """Make the values of these runs (int64[r]) anew from their words and scale."""
    for run in runs:
        _, first, end = run_of(starts[run], starts, values.size)
        scaled(words, first, end, scale[run], values, table)
