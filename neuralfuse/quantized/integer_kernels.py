"""Loops over sums and words of integer networks. Arrays have channels innermost."""

import numpy as np

from sram.jit import jit


@jit
def round_to_words(x, words, unit):
    """words int8[n] = x float32[n] in whole units, half to even, from -127 to 127."""
    one, top = np.float32(unit), np.float32(127.0)
    for i in range(x.size):
        words[i] = np.int8(np.int32(max(min(np.rint(x[i] / one), top), -top)))


@jit
def scale(sums, numbers, scale, offset, relu):
    """numbers float32[n, f], which may be the sums: what sums[n, f] stand for, by scale and offset float64[f]."""
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            number = np.float32(np.float64(sums[i, j]) * scale[j] + offset[j])
            numbers[i, j] = max(number, np.float32(0.0)) if relu else number


@jit
def to_integers(sums, integers):
    """integers int32[n] = sums float32[n], in whose memory they may lie."""
    part = np.empty(1024, np.int32)
    for start in range(0, sums.size, part.size):
        count = min(part.size, sums.size - start)
        for i in range(count):
            part[i] = np.int32(sums[start + i])
        for i in range(count):
            integers[start + i] = part[i]


@jit
def largest(sums):
    """The largest magnitude in float32[n]."""
    found = np.float32(0.0)
    for i in range(sums.size):
        found = max(found, abs(sums[i]))
    return found


@jit
def add_signs(sums, index, plane, taps, stride, padding):
    """Add to sums float32[n, oh, ow, f] the sign bits, each -128, of the words at `index` int64[k] of an input
    [n, h, w, c] whose (h, w) is `plane`; taps float32[kh, kw, c, f]; stride and padding of rows and of columns."""
    h, w = plane
    kh, kw, c, f = taps.shape
    _, oh, ow, _ = sums.shape
    for each in index:
        pixel, channel = divmod(each, c)
        row, x = divmod(pixel, w)
        image, y = divmod(row, h)
        for i in range(kh):
            out_y, left = divmod(y + padding[0] - i, stride[0])
            if left or not 0 <= out_y < oh:
                continue
            for j in range(kw):
                out_x, left = divmod(x + padding[1] - j, stride[1])
                if left or not 0 <= out_x < ow:
                    continue
                for k in range(f):
                    sums[image, out_y, out_x, k] -= np.float32(128.0) * taps[i, j, channel, k]
