"""Single-error-correcting, double-error-detecting codes for memory words (Hsiao, IBM J. Res. Dev. 14, 1970).

Every column of the parity-check matrix has odd weight, and no two are equal: one wrong bit gives the column of that
bit, two give a nonzero syndrome of even weight, which is no column.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from sram.errors import InputError
from sram.protection.kernels import encode

CHECK_BITS = {64: 8, 32: 7}


@dataclass(frozen=True, eq=False)
class Code:
    """A (data_bits + check_bits, data_bits) code.

    masks uint64[check_bits]: data bits that each check bit is the parity of. position int8[2^check_bits]: the bit that
    a syndrome points at (data bits first, then check bits), -1 where it is no single bit.
    """

    data_bits: int
    check_bits: int
    masks: np.ndarray
    position: np.ndarray

    def check(self, data: int) -> int:
        """Check bits of one data word.

        >>> secded(64).check(0), secded(64).check(1)
        (0, 7)
        """
        return int(encode(np.uint64(data), self.masks))

    def parity_check_matrix(self) -> np.ndarray:
        """H, uint8[check_bits, data_bits + check_bits]; H times a code word is 0 over GF(2)."""
        shifts = np.arange(self.data_bits, dtype=np.uint64)
        data = (self.masks[:, None] >> shifts & np.uint64(1)).astype(np.uint8)
        return np.hstack([data, np.eye(self.check_bits, dtype=np.uint8)])


@cache
def secded(data_bits: int) -> Code:
    """The (72, 64) or the (39, 32) code. Raises InputError for other widths.

    Columns of weight three first, then five, chosen so that the rows stay balanced: 216 ones in all for (72, 64) and
    103 for (39, 32), Hsiao's minima.

    >>> secded(64).parity_check_matrix().sum(axis=1)
    array([27, 27, 27, 27, 27, 27, 27, 27]...)
    """
    if data_bits not in CHECK_BITS:
        raise InputError("SECDED", "data_bits", data_bits, "64 or 32")
    checks = CHECK_BITS[data_bits]
    columns: list[tuple[int, ...]] = []
    load = [0] * checks
    for weight in (3, 5):
        pool = list(combinations(range(checks), weight))
        while pool and len(columns) < data_bits:
            best = min(pool, key=lambda column: (sum(load[j] for j in column), column))
            pool.remove(best)
            columns.append(best)
            for j in best:
                load[j] += 1
    masks = np.zeros(checks, np.uint64)
    position = np.full(2**checks, -1, np.int8)
    for i, column in enumerate(columns):
        for j in column:
            masks[j] |= np.uint64(1 << i)
        position[sum(1 << j for j in column)] = i
    for j in range(checks):
        position[1 << j] = data_bits + j
    return Code(data_bits, checks, masks, position)
