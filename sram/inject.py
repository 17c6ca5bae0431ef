"""Faults into stored words."""

import numpy as np

from sram import inject_kernels
from sram.errors import InputError

STUCK_AT_0, STUCK_AT_1, FLIP = 0, 1, 2


def apply(words: np.ndarray, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
    """Read `words` (int8 or int16 [n], in place) through faulty cells: k faults, each on one bit of one word.

    weight int64[k] (index into words), bit uint8[k] (0 is the least significant), kind uint8[k] (0 stuck at 0, 1 stuck
    at 1, 2 flip). Two's complement as stored: a stuck sign bit makes a number negative, -128 is possible, nothing is
    clamped. Raises InputError on lengths that differ or faults outside the words.

    >>> words = np.array([0, 0, -1], np.int8)
    >>> apply(words, np.array([0, 1, 2]), np.array([3, 7, 0], np.uint8), np.array([1, 2, 0], np.uint8))
    >>> words
    array([   8, -128,   -2], dtype=int8)
    """
    if words.dtype not in (np.int8, np.int16) or words.ndim != 1:
        raise InputError("inject", "words", f"{words.dtype}[{words.ndim}-d]", "int8[n] or int16[n]")
    if not len(weight) == len(bit) == len(kind):
        raise InputError("inject", "lengths", (len(weight), len(bit), len(kind)), "the same for weight, bit and kind")
    bad = inject_kernels.apply(words, weight, bit, kind, 8 * words.itemsize)
    if bad >= 0:
        raise InputError(
            "inject",
            f"fault {bad} (weight, bit, kind)",
            (int(weight[bad]), int(bit[bad]), int(kind[bad])),
            f"weight below {words.size}, bit below {8 * words.itemsize}, kind 0, 1 or 2",
        )
