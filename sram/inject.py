"""Faults into stored words."""

import numpy as np

from sram import inject_kernels as kernels
from sram.errors import InputError

STUCK_AT_0, STUCK_AT_1, FLIP = 0, 1, 2


def apply(words: np.ndarray, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
    """Read `words` (int8 or int16 [n], in place) through faulty cells: k faults, each on one bit of one word.

    weight int64[k] (index into words), bit uint8[k] (0 is the least significant), kind uint8[k] (0 stuck at 0, 1 stuck
    at 1, 2 flip). Two's complement as stored: a stuck sign bit makes a number negative, -128 is possible, nothing is
    clamped. Raises InputError on lengths that differ or faults outside the words, and then changes nothing.

    >>> words = np.array([0, 0, -1], np.int8)
    >>> apply(words, np.array([0, 1, 2]), np.array([3, 7, 0], np.uint8), np.array([1, 2, 0], np.uint8))
    >>> words
    array([   8, -128,   -2], dtype=int8)
    """
    if words.dtype not in (np.int8, np.int16) or words.ndim != 1:
        raise InputError("inject", "words", f"{words.dtype}[{words.ndim}-d]", "int8[n] or int16[n]")
    _check(words, weight, bit, kind, 8 * words.itemsize)
    kernels.apply(words, weight, bit, kind)


def reread(
    words: np.ndarray,
    clean: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    scale: np.ndarray,
    before: np.ndarray,
    weight: np.ndarray,
    bit: np.ndarray,
    kind: np.ndarray,
    bits: int = 8,
) -> None:
    """Read the stored words through the next chip's faults, and bring the numbers computed with up to date; in place.

    words int8[n] and values float32[n] show the faults of the chip before, which were at the words `before` (int64[j]);
    clean int8[n] is what was written. Faults as in `apply`. values are words times scale: scale[r] (float32) holds from
    word starts[r] (int64, rising from 0) to the next start. Only words that change are touched, unless so many faults
    come that one pass over all of them is faster. Words of fewer `bits` than 8 are sign-extended when read.

    >>> words, clean = np.array([5, 5], np.int8), np.array([5, 5], np.int8)
    >>> values, nothing = np.array([2.5, 2.5], np.float32), np.zeros(0, np.int64)
    >>> whole = np.array([0]), np.array([0.5], np.float32)
    >>> reread(words, clean, values, *whole, nothing, np.array([1]), np.array([1], np.uint8), np.array([1], np.uint8))
    >>> words, values
    (array([5, 7], dtype=int8), array([2.5, 3.5], dtype=float32))
    """
    if not (words.flags.c_contiguous and values.flags.c_contiguous):
        raise InputError("inject", "words, values", "strided", "contiguous arrays")
    _check(words, weight, bit, kind, bits)
    kernels.reread(words, clean, values, starts, scale, before, weight, bit, kind, bits)


def _check(words: np.ndarray, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray, word_bits: int) -> None:
    if not len(weight) == len(bit) == len(kind):
        raise InputError("inject", "lengths", (len(weight), len(bit), len(kind)), "the same for weight, bit and kind")
    bad = kernels.first_outside(words.size, weight, bit, kind, word_bits)
    if bad >= 0:
        fault = int(weight[bad]), int(bit[bad]), int(kind[bad])
        allowed = f"weight below {words.size}, bit below {word_bits}, kind 0, 1 or 2"
        raise InputError("inject", f"fault {bad} (weight, bit, kind)", fault, allowed)
