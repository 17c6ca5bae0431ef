"""Loops over the stored words of a network; cost in proportion to the words that are named, never to all of them."""

import numpy as np

from sram.jit import jit


@jit
def restore(words, clean, weight):
    """words, clean: int8[n]; weight: int64[k]. words[weight] = clean[weight]."""
    for i in range(weight.size):
        words[weight[i]] = clean[weight[i]]


@jit
def sign_extend(words, weight, bits):
    """words: int8[n]; weight: int64[k]. Read the low `bits` of each named word as a two's complement number."""
    sign = 1 << (bits - 1)
    mask = (1 << bits) - 1
    for i in range(weight.size):
        words[weight[i]] = ((words[weight[i]] & mask) ^ sign) - sign


@jit
def changed(words, shown, weight, scale_start, scale):
    """Values of the named words that differ from what the float tensor shows.

    words, shown: int8[n], shown is brought up to date (so that a word named twice comes once); weight: int64[k];
    scale_start: int64[g] rising, first word of each group that shares scale[g]. Returns (index int64[m], value
    float32[m]).
    """
    index = np.empty(weight.size, np.int64)
    value = np.empty(weight.size, np.float32)
    m = 0
    for i in range(weight.size):
        w = weight[i]
        if words[w] != shown[w]:
            shown[w] = words[w]
            group = np.searchsorted(scale_start, w, side="right") - 1
            index[m] = w
            value[m] = np.float32(words[w]) * scale[group]
            m += 1
    return index[:m], value[:m]


@jit
def flipped_bits(words, clean, weight, bits):
    """Number of stored bits that differ, over the named words, each counted once. All int8[n], weight int64[k]
    sorted."""
    total = 0
    mask = (1 << bits) - 1
    for i in range(weight.size):
        if i > 0 and weight[i] == weight[i - 1]:
            continue
        different = (words[weight[i]] ^ clean[weight[i]]) & mask
        while different:
            different &= different - 1
            total += 1
    return total
