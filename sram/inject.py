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

    clean int8[n] or int16[n] is what was written, words what is read; words of fewer `bits` than that are sign-extended
    when read. values float32[m] are what the first m words stand for times scale: scale[r] (float32) holds from word
    starts[r] (int64, rising from 0) to the next start. A word stands for itself, or for the entry of table
    (float32[2^bits]) at its bits. n > m: the words behind are the exponents that the words of a run share, 8 bits of
    E8M0 each in 8 / bits words, the least significant first; the run's scale is multiplied by 2^(exponent - 127), and
    is NaN for 255. `touched` int64[k] are the words at which faults are set. Raises InputError on strided arrays.

    >>> starts, scale = np.array([0]), np.array([0.5], np.float32)
    >>> stored = StoredWords(np.array([5, 5], np.int8), np.array([2.5, 2.5], np.float32), starts, scale)
    >>> stored.set_faults(np.array([1]), np.array([1], np.uint8), np.array([1], np.uint8))
    >>> stored.words, stored.values
    (array([5, 7], dtype=int8), array([2.5, 3.5], dtype=float32))
    >>> shared = StoredWords(np.array([5, 5, 126], np.int8), np.array([2.5, 2.5], np.float32), starts, 2 * scale)
    >>> shared.set_faults(np.array([2]), np.array([1], np.uint8), np.array([0], np.uint8))  # 2^-1 becomes 2^-3
    >>> shared.values
    array([0.625, 0.625], dtype=float32)
    """

    clean: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    scale: np.ndarray
    bits: int = 8
    table: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    words: np.ndarray = field(init=False)
    touched: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if not self.values.flags.c_contiguous:
            raise InputError("inject", "values", "strided", "a contiguous array")
        self.words, self.touched = self.clean.copy(), np.empty(0, np.int64)
        self._now = self._scales()

    def read_all(self) -> None:
        """Make all values from the words: for an array that was made without them."""
        kernels.rescaled(self.words, self.values, self.starts, self._now, np.arange(self.starts.size), self.table)

    def set_faults(self, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
        """Read through these faults, as in `apply`, and no others. Raises InputError, and then changes nothing.

        Only words that change are touched, unless so many faults come that one pass over all of them is faster.
        """
        weight = np.array(weight, np.int64, order="C")  # a copy: kept, and the caller's array may change
        bit, kind = np.ascontiguousarray(bit, np.uint8), np.ascontiguousarray(kind, np.uint8)
        _check(self.words, weight, bit, kind, self.bits)
        kernels.reread(
            *(self.words, self.clean, self.values, self.starts, self._now),
            *(self.touched, weight, bit, kind, self.bits, self.table),
        )
        self.touched = weight
        if self.words.size > self.values.size:
            before, self._now = self._now, self._scales()
            runs = np.flatnonzero(self._now.view(np.int32) != before.view(np.int32))  # NaN is not equal to NaN
            kernels.rescaled(self.words, self.values, self.starts, self._now, runs, self.table)

    def _scales(self) -> np.ndarray:
        """float32[g] as the exponents are now read."""
        if self.words.size == self.values.size:
            return self.scale
        return (self.scale * exponents(self.words[self.values.size :], self.bits)).astype(np.float32)


def exponents(words: np.ndarray, bits: int) -> np.ndarray:
    """The powers of two float32[g] that words of E8M0 stand for, 8 / bits of them for each, the least significant first
    (OCP Microscaling Formats v1.0, 5.4.1).

    >>> exponents(np.array([127, 0, -1], np.int8), bits=8)
    array([1.000000e+00, 5.877472e-39,          nan], dtype=float32)
    """
    parts = words.reshape(-1, 8 // bits).astype(np.int64) & (1 << bits) - 1
    code = (parts << bits * np.arange(8 // bits)).sum(1)
    return np.where(
        code == 255, np.float32(np.nan), np.ldexp(np.float32(1), np.minimum(code, 254).astype(np.int32) - 127)
    )


def _check(words: np.ndarray, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray, word_bits: int) -> None:
    if not len(weight) == len(bit) == len(kind):
        raise InputError("inject", "lengths", (len(weight), len(bit), len(kind)), "the same for weight, bit and kind")
    bad = kernels.first_outside(words.size, weight, bit, kind, word_bits)
    if bad >= 0:
        fault = int(weight[bad]), int(bit[bad]), int(kind[bad])
        allowed = f"weight below {words.size}, bit below {word_bits}, kind 0, 1 or 2"
        raise InputError("inject", f"fault {bad} (weight, bit, kind)", fault, allowed)
