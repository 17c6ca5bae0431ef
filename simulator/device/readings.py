"""The patterns a memory is read with, and one voltage's reading of all its cells.

Every pattern is written at nominal voltage and read at the voltage, so that what fails is the reading. Solid
patterns show polarity; checkerboards put neighbours at opposite values, and show cells that fail in such company only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.device import readings_kernels as kernels
from simulator.device.protocol import DeviceMemory
from sram.geometry import Geometry

PATTERNS = ("zeros", "ones", "checkerboard", "inverse checkerboard")
BLOCK_CELLS = 1 << 22  # counted at once: bounds memory to a few tens of megabytes


@dataclass(frozen=True, eq=False)
class Reading:
    """One voltage: the cells int64[k] that read wrong at all, and how often under each pattern, wrong uint16[k, 4]."""

    voltage: float
    cell: NDArray[np.int64]
    wrong: NDArray[np.uint16]


def stored_bit(geometry: Geometry, cell: NDArray[np.int64], pattern: int) -> NDArray[np.bool_]:
    """What pattern number `pattern` stores in cells int64[n]; checkerboards are of physical rows and columns.

    >>> stored_bit(Geometry(1, rows=2, columns=8, word_bits=8), np.arange(16), 2).astype(int)
    array([0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0])
    """
    if pattern < 2:
        return np.full(len(cell), bool(pattern))
    _, row, column = geometry.bank_row_column(cell)
    return (row + column + pattern) % 2 == 1


def pattern_words(geometry: Geometry, pattern: int, first: int, count: int) -> NDArray[np.uint64]:
    """Words first .. first + count - 1 of a pattern, uint64[count].

    >>> [hex(word) for word in pattern_words(Geometry(1, rows=2, columns=16, word_bits=8), 2, 0, 4)]
    ['0x0', '0xff', '0xff', '0x0']
    """
    full = np.uint64((1 << geometry.word_bits) - 1)
    if pattern < 2:
        return np.full(count, full * np.uint64(pattern))
    # Bit b of the word in slot s of row r lies in column b * column_mux + s.
    row, slot = np.divmod(np.arange(first, first + count), geometry.column_mux)
    even = np.uint64(sum(1 << bit for bit in range(geometry.word_bits) if bit * geometry.column_mux % 2 == 0))
    return np.where((row % geometry.rows + slot + pattern) % 2 == 1, even, full & ~even)


def blocks(geometry: Geometry) -> list[range]:
    """Word numbers of the pieces that a memory is read in."""
    size = max(1, BLOCK_CELLS // geometry.word_bits)
    return [range(first, min(first + size, geometry.words)) for first in range(0, geometry.words, size)]


def read_voltage(
    device: DeviceMemory, voltage: float, repeats: int, advance: Callable[[], None] = lambda: None
) -> Reading:
    """All patterns at one voltage, `repeats` reads each. Leaves the device at nominal voltage, its memory
    overwritten."""
    geometry = device.info.geometry
    cells, counts = [], []
    for block in blocks(geometry):
        first, count = block.start, len(block)
        wrong = np.zeros((len(PATTERNS), count * geometry.word_bits), np.uint16)
        for p in range(len(PATTERNS)):
            stored = pattern_words(geometry, p, first, count)
            device.write(first, stored)
            reached = device.set_voltage(voltage)
            for _ in range(repeats):
                kernels.count(device.read(first, count), stored, wrong[p], geometry.word_bits)
            device.set_voltage(device.info.voltage_nominal)
            advance()
        any_wrong = np.flatnonzero(wrong.any(axis=0))
        cells.append(geometry.cell(first + any_wrong // geometry.word_bits, any_wrong % geometry.word_bits))
        counts.append(wrong[:, any_wrong].T)
    cell, wrong = np.concatenate(cells), np.concatenate(counts)
    order = np.argsort(cell)
    return Reading(reached, cell[order], np.ascontiguousarray(wrong[order]))
