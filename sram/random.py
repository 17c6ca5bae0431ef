"""Random numbers as a pure function of (seed, chip, bank, stream, item, index): no state, no order, no threads.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is
(seed, chip), the counter (index, item, bank, stream), where item numbers what a bank has many of (columns).
"""

from enum import IntEnum
from functools import cache

import numpy as np

from sram import random_kernels as kernels
from sram.errors import InputError


class Stream(IntEnum):
    """What a random number is for. The values are part of every fault map: never renumber, only add."""

    DIE = 0
    BANK = 1
    SMOOTH = 2
    COLUMN = 3
    ROW = 4
    CELL = 5
    POLARITY = 6
    ACCESS = 7
    RUN = 8
    TIMING = 9


def key(seed: int, chip: int) -> tuple[int, int]:
    """The two key words. Raises InputError unless both lie in [0, 2^32)."""
    for name, value in (("seed", seed), ("chip", chip)):
        if not (isinstance(value, int | np.integer) and 0 <= value < 2**32):
            raise InputError("fault map", name, value, "an integer in [0, 2**32)")
    return int(seed), int(chip)


@cache
def times() -> np.ndarray:
    """The table of normal variates that the kernels take; float64, read-only, the same bits on every machine."""
    table = np.empty(((kernels.TIME_HIGH - kernels.TIME_LOW) << kernels.TIME_BITS) + 1)
    kernels.fill_times(table)
    table.flags.writeable = False
    return table


def uniforms(size: int, stream: int, *, seed: int = 0, chip: int = 0, bank: int = 0) -> np.ndarray:
    """float64[size], uniform in (0, 1), both ends excluded.

    >>> bool((uniforms(5, Stream.CELL, seed=1)[:3] == uniforms(3, Stream.CELL, seed=1)).all())
    True
    """
    out = np.empty(size)
    kernels.fill_uniforms(out, bank, int(stream), key(seed, chip))
    return out


def normals(size: int, stream: int, *, seed: int = 0, chip: int = 0, bank: int = 0) -> np.ndarray:
    """float64[size], standard normal, within 3e-7 of the exact quantile of a uniform."""
    out = np.empty(size)
    kernels.fill_normals(out, bank, int(stream), key(seed, chip), times())
    return out
