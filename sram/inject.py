"""Faults into stored words."""

from dataclasses import dataclass, field

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


@dataclass(eq=False)
class StoredWords:
    """Words in a memory and the numbers computed with, both as they are read through the faults that are set.

    clean int8[n] is what was written, words int8[n] what is read; words of fewer `bits` than 8 are sign-extended when
    read. values float32[n] are words times scale: scale[r] (float32) holds from word starts[r] (int64, rising from 0)
    to the next start. `touched` int64[k] are the words at which faults are set. Raises InputError on strided arrays.

    >>> starts, scale = np.array([0]), np.array([0.5], np.float32)
    >>> stored = StoredWords(np.array([5, 5], np.int8), np.array([2.5, 2.5], np.float32), starts, scale)
    >>> stored.set_faults(np.array([1]), np.array([1], np.uint8), np.array([1], np.uint8))
    >>> stored.words, stored.values
    (array([5, 7], dtype=int8), array([2.5, 3.5], dtype=float32))
    """

    clean: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    scale: np.ndarray
    bits: int = 8
    words: np.ndarray = field(init=False)
    touched: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if not self.values.flags.c_contiguous:
            raise InputError("inject", "values", "strided", "a contiguous array")
        self.words, self.touched = self.clean.copy(), np.empty(0, np.int64)

    def set_faults(self, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
        """Read through these faults, as in `apply`, and no others. Raises InputError, and then changes nothing.

        Only words that change are touched, unless so many faults come that one pass over all of them is faster.
        """
        weight = np.array(weight, np.int64, order="C")  # a copy: kept, and the caller's array may change
        bit, kind = np.ascontiguousarray(bit, np.uint8), np.ascontiguousarray(kind, np.uint8)
        _check(self.words, weight, bit, kind, self.bits)
        kernels.reread(
            *(self.words, self.clean, self.values, self.starts, self.scale),
            *(self.touched, weight, bit, kind, self.bits),
        )
        self.touched = weight


def _check(words: np.ndarray, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray, word_bits: int) -> None:
    if not len(weight) == len(bit) == len(kind):
        raise InputError("inject", "lengths", (len(weight), len(bit), len(kind)), "the same for weight, bit and kind")
    bad = kernels.first_outside(words.size, weight, bit, kind, word_bits)
    if bad >= 0:
        fault = int(weight[bad]), int(bit[bad]), int(kind[bad])
        allowed = f"weight below {words.size}, bit below {word_bits}, kind 0, 1 or 2"
        raise InputError("inject", f"fault {bad} (weight, bit, kind)", fault, allowed)
