"""Loops over sums in the array. Arrays have channels and filters innermost."""

import numpy as np

from sram.jit import jit, jit_inline
from sram.random import Stream
from sram.random_kernels import philox

TIMING = int(Stream.TIMING)
LANE = 256  # outputs between two words of one philox
CHUNK = 4 * LANE
TOP = np.int32(-(2**31))


@jit
def signs(weights, below, above, square):
    """Of weights int8[filters, channels, taps]: how many are below 0, above 0, and their sum of squares, float64[3
    times, channels, filters]."""
    for f in range(weights.shape[0]):
        for c in range(weights.shape[1]):
            b, a, s = 0, 0, 0
            for t in range(weights.shape[2]):
                word = int(weights[f, c, t])
                b += word < 0
                a += word > 0
                s += word * word
            below[c, f], above[c, f], square[c, f] = b, a, s


@jit
def signs_and_squares(words):
    """float64[3, n, channels] of words int8[n, pixels, channels]: how many are above 0, below 0; sums of squares."""
    n, pixels, channels = words.shape
    found = np.zeros((3, n, channels))
    above, below, square = np.zeros((3, channels), np.int32)
    for i in range(n):
        for p in range(pixels):  # at most 2^26 words of at most 2^14: fits, for fewer than 2^17 pixels
            for c in range(channels):
                word = np.int32(words[i, p, c])
                above[c] += np.int32(word > 0)
                below[c] += np.int32(word < 0)
                square[c] += word * word
            if p % 65536 == 65535 or p == pixels - 1:
                for c in range(channels):
                    found[0, i, c] += above[c]
                    found[1, i, c] += below[c]
                    found[2, i, c] += square[c]
                above[:], below[:], square[:] = 0, 0, 0
    return found


@jit
def late(sums, fails_over, fails_under, spread, lowest, place, first_image, key):
    """Errors of TimingFaults in sums int32[n, pixels, filters], in place.

    fails_over, fails_under float32[n, filters]: 2^32 times the probability that an output fails whose running sum is at
    0 or above all the time, or below. spread float32[n, filters]: 8 / pi of a sum's variance. lowest float64[32]:
    probability that an error's lowest bit is this one or a lower one.
    """
    n, pixels, filters = sums.shape
    size = pixels * filters
    words, only_top = np.empty(CHUNK, np.uint32), lowest[30] == 0.0
    # of the filters of a chunk that begins with any of them: long loops, where there are few filters
    most = min(CHUNK, size) + filters
    over, under, wide = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    for i in range(n):
        _tile(over, fails_over[i])
        _tile(under, fails_under[i])
        _tile(wide, spread[i])
        image = sums[i].reshape(-1)
        for at in range(0, size, CHUNK):
            _fill(words, at // 4, place, first_image + i, key)
            chunk = image[at : at + CHUNK]
            first = at % filters
            if only_top:
                _flip_top(chunk, words, over[first:], under[first:], wide[first:])
            else:
                _flip_runs(chunk, words, over[first:], under[first:], wide[first:], lowest)


@jit
def _tile(out, row):
    """out[k] = row again and again."""
    for j in range(row.size):
        out[j] = row[j]
    done = row.size
    while done < out.size:
        count = min(done, out.size - done)
        for j in range(count):
            out[done + j] = out[j]
        done += count


@jit
def _fill(words, first, place, image, key):
    """uint32[4 LANE]: word LANE l + i is the l-th of philox(first + i, place, image)."""
    a, b, c, d = words[:LANE], words[LANE : 2 * LANE], words[2 * LANE : 3 * LANE], words[3 * LANE :]
    for i in range(LANE):
        a[i], b[i], c[i], d[i] = philox(first + i, place, image, TIMING, key[0], key[1])


@jit_inline
def _over(total, wide):
    """Of the running sum's time, float32, the share at 0 or above, by the output's sum."""
    s = np.float32(total)
    return np.float32(0.5) + np.divide(s, abs(s) + np.sqrt(s * s + wide))


@jit
def _flip_top(row, drawn, over, under, wide):
    """Sums int32[k] in place, where an error is of bit 31 for sure."""
    for j in range(row.size):
        fails = under[j] + _over(row[j], wide[j]) * (over[j] - under[j])
        row[j] ^= TOP if np.float32(drawn[j]) < fails else np.int32(0)


@jit
def _flip_runs(row, drawn, over, under, wide, lowest):
    for j in range(row.size):
        share = _over(row[j], wide[j])
        fails = under[j] + share * (over[j] - under[j])
        if np.float32(drawn[j]) < fails:
            row[j] += _error(np.float64(drawn[j]) / fails, share * over[j] / fails, lowest)


@jit
def _error(at, below, lowest):
    """An error, int32, of which a uniform number says the bit, and what is left of it the sign: minus with probability
    `below`."""
    bit = 31
    while bit > 0 and at < lowest[bit - 1]:
        bit -= 1
    before = lowest[bit - 1] if bit > 0 else 0.0
    size = np.int64(1) << bit
    return np.int32(-size if at - before < below * (lowest[bit] - before) else size)


@jit
def add_up(sums, words, weights, window, fold, pixel, filters, zero, one, flip):
    """Sums int32[n, pixels, f] of faulty outputs anew, in place: each partial sum reads back through its masks after
    every `fold` taps but the last.

    words int8[h, w, c, n], images innermost, for all pass through the same cells; weights int8[f, c / groups, kernel
    rows, kernel columns]; window: stride and padding, of rows and of columns, and columns of the output; pixel, filters
    int64[k] of the outputs.
    """
    stride, padding, out_w = window
    high, wide, channels, n = words.shape
    total = np.empty(n, np.int32)
    for i in range(pixel.size):
        kernel = weights[filters[i]]
        first = filters[i] // (weights.shape[0] * kernel.shape[0] // channels) * kernel.shape[0]  # of its group
        y, x = pixel[i] // out_w * stride[0] - padding[0], pixel[i] % out_w * stride[1] - padding[1]
        total[:] = 0
        t = 0
        for c in range(kernel.shape[0]):
            for row in range(kernel.shape[1]):
                for column in range(kernel.shape[2]):
                    if t > 0 and t % fold == 0:
                        _read_back(total, zero[i], one[i], flip[i])
                    if 0 <= y + row < high and 0 <= x + column < wide:
                        _multiply_add(total, words[y + row, x + column, first + c], kernel[c, row, column])
                    t += 1
        for image in range(n):
            sums[image, pixel[i], filters[i]] = total[image]


@jit
def _read_back(words, zero, one, flip):
    for i in range(words.size):
        words[i] = ((words[i] & ~zero) | one) ^ flip


@jit
def _multiply_add(total, words, weight):
    """total int32[n] += words int8[n] * weight: a product always fits into 16 bits."""
    for i in range(total.size):
        total[i] += np.int16(np.int16(words[i]) * np.int16(weight))


@jit
def compute_again(sums, right, again, pixels, filters, group):
    """Tiles of so many pixels and filters, of `group` filters at most, whose sums int32[n, pixels, f] of a pixel do not
    add up to those that are right modulo 2^32: they become those of `again`. Returns how many."""
    n, plane, total = sums.shape
    found = 0
    for i in range(n):
        for top in range(0, plane, pixels):
            for start in range(0, total, group):
                for left in range(start, start + group, filters):
                    rows, columns = slice(top, top + pixels), slice(left, min(left + filters, start + group))
                    if not _add_up_to(sums[i, rows, columns], right[i, rows, columns]):
                        sums[i, rows, columns] = again[i, rows, columns]
                        found += 1
    return found


@jit
def _add_up_to(sums, right):
    for pixel in range(sums.shape[0]):
        apart = np.int64(0)
        for f in range(sums.shape[1]):
            apart += np.int64(sums[pixel, f]) - np.int64(right[pixel, f])
        if apart % 2**32 != 0:
            return False
    return True
