"""Counting wrong bits: the cost goes with the words, and with the wrong bits among them."""

import numpy as np

from sram.jit import jit


@jit
def count(read, stored, wrong, word_bits):
    """One more in wrong uint16[n * word_bits] for each bit in which read and stored uint64[n] differ."""
    one, zero = np.uint64(1), np.uint64(0)
    for i in range(read.size):
        left = read[i] ^ stored[i]
        bit = i * word_bits
        while left != zero:
            if left & one:
                wrong[bit] += np.uint16(1)
            left >>= one
            bit += 1
