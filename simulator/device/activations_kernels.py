"""Loops over stored activations."""

from sram.jit import jit


@jit
def read_back(words, element, zero, one, flip):
    """Words int8[b, n] in place, at the elements int64[k]: bits, uint8[k], read as 0, as 1, as what was not stored."""
    for image in range(words.shape[0]):
        for i in range(element.size):
            words[image, element[i]] = ((words[image, element[i]] & ~zero[i]) | one[i]) ^ flip[i]
