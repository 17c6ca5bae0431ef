"""Loops over faults: the cost is in proportion to them, not to the words."""

from sram.jit import jit


@jit
def apply(words, weight, bit, kind, word_bits):  # words int[n]; weight int64[k], bit uint8[k], kind uint8[k]
    """Apply faults in place; index of the first that points outside (it and later ones are not applied), or -1."""
    for i in range(weight.size):
        w, b, k = weight[i], bit[i], kind[i]
        if w < 0 or w >= words.size or b >= word_bits or k > 2:
            return i
        mask = words.dtype.type(1 << b)
        if k == 0:
            words[w] &= ~mask
        elif k == 1:
            words[w] |= mask
        else:
            words[w] ^= mask
    return -1
