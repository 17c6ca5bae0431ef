"""Loops over the stored words of a network."""

import numpy as np

from sram.jit import jit, jit_inline

DENSE = 128  # from one named word in so many on, one pass over all of them is faster than sorting the names


@jit
def changed(words, shown, weight):
    """The named words that differ from what another device shows, each once; `shown` is brought up to date.

    words, shown: int8[n] or int16[n]; weight: int64[k]. Returns int64[m].
    """
    index = np.empty(weight.size, np.int64)
    m = 0
    for i in range(weight.size):
        w = weight[i]
        if words[w] != shown[w]:
            shown[w] = words[w]
            index[m] = w
            m += 1
    return index[:m]


@jit_inline
def ones(byte):
    """Number of ones of an integer 0 to 255, in three steps that vectorise."""
    byte = byte - ((byte >> 1) & 0x55)
    byte = (byte & 0x33) + ((byte >> 2) & 0x33)
    return (byte + (byte >> 4)) & 0x0F


@jit
def flipped_bits(words, clean, weight, bits):
    """Number of stored bits that differ, where they differ in named words only, each counted once. Both int8[n] or
    int16[n], weight int64[k]."""
    if bits > 8:
        return flipped_bits_of(words, clean, weight, 0xFF) + flipped_bits_of(words >> 8, clean >> 8, weight, 0xFF)
    return flipped_bits_of(words, clean, weight, (1 << bits) - 1)


@jit
def flipped_bits_of(words, clean, weight, mask):
    """The same of the bits, of the lowest eight, that are in a mask."""
    total = 0
    if weight.size * DENSE > words.size:
        for start in range(0, words.size, 4096):
            part = np.int32(0)  # narrow, so that many fit into a register
            for i in range(start, min(start + 4096, words.size)):
                part += ones(np.int32((words[i] ^ clean[i]) & mask))
            total += int(part)
        return total
    named = np.sort(weight)
    for i in range(named.size):
        if i == 0 or named[i] != named[i - 1]:
            total += ones((words[named[i]] ^ clean[named[i]]) & mask)
    return total
