"""How a memory is cut into banks, rows and columns, and which cell holds which bit of which word."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sram.errors import InputError

Index = TypeVar("Index", int, np.ndarray)


@dataclass(frozen=True)
class Geometry:
    """`banks` arrays of `rows` x `columns` cells; a row holds `column_mux` words of `word_bits`, bit-interleaved.

    Cells are numbered (bank * rows + row) * columns + column; words bank by bank, row by row, slot by slot. Bit b of
    the word in slot s lies in column b * column_mux + s, as column multiplexers are built: the slots of one bit sit
    side by side and share a sense amplifier. At most 2^32 cells (512 MiB): a larger memory is several chips.

    >>> g = Geometry(banks=2, rows=4, columns=16, word_bits=8)
    >>> g.column_mux, g.words, g.cells, g.capacity_bytes
    (2, 16, 128, 16)
    >>> g.cell(word=3, bit=5)  # row 1, slot 1, column 5 * 2 + 1
    27
    >>> g.word_bit(27)
    (3, 5)
    """

    banks: int
    rows: int = 512
    columns: int = 64
    word_bits: int = 64

    def __post_init__(self) -> None:
        for name in ("banks", "rows", "columns", "word_bits"):
            value = getattr(self, name)
            if not (isinstance(value, int | np.integer) and value > 0):
                raise InputError("geometry", name, value, "a positive integer")
            object.__setattr__(self, name, int(value))
        if self.columns % self.word_bits:
            raise InputError("geometry", "columns", self.columns, f"a multiple of word_bits = {self.word_bits}")
        if self.cells > 2**32:
            raise InputError("geometry", "banks", self.banks, "at most 2**32 cells in all (512 MiB)")

    @staticmethod
    def of_capacity(capacity_bytes: int, rows: int = 512, columns: int = 64, word_bits: int = 64) -> "Geometry":
        """The smallest memory of whole banks that holds `capacity_bytes`.

        >>> Geometry.of_capacity(128 * 1024).banks
        32
        """
        if not (isinstance(capacity_bytes, int | np.integer) and capacity_bytes > 0):
            raise InputError("geometry", "capacity_bytes", capacity_bytes, "a positive integer")
        return Geometry(-(-int(capacity_bytes) * 8 // (rows * columns)), rows, columns, word_bits)

    @property
    def column_mux(self) -> int:
        """Words per physical row."""
        return self.columns // self.word_bits

    @property
    def words_per_bank(self) -> int:
        """Words of one bank."""
        return self.rows * self.column_mux

    @property
    def words(self) -> int:
        """Words of all banks."""
        return self.banks * self.words_per_bank

    @property
    def cells_per_bank(self) -> int:
        """Cells of one bank, one bit each."""
        return self.rows * self.columns

    @property
    def cells(self) -> int:
        """Cells of all banks."""
        return self.banks * self.cells_per_bank

    @property
    def capacity_bytes(self) -> int:
        """Cells of all banks, in bytes of 8."""
        return self.cells // 8

    def cell(self, word: Index, bit: Index) -> Index:
        """Cell that holds bit `bit` (0 is the least significant) of word `word`; numbers or arrays, unchecked."""
        if isinstance(bit, np.ndarray | np.generic):
            bit = bit.astype(np.int64)  # type: ignore[assignment]  # a uint8 bit times column_mux would wrap
        row, slot = word // self.column_mux, word % self.column_mux
        return row * self.columns + bit * self.column_mux + slot

    def word_bit(self, cell: Index) -> tuple[Index, Index]:
        """(word, bit) that lies in `cell`; the inverse of `cell`."""
        row, column = cell // self.columns, cell % self.columns
        return row * self.column_mux + column % self.column_mux, column // self.column_mux

    def bank_row_column(self, cell: Index) -> tuple[Index, Index, Index]:
        """(bank, row, column) of `cell`."""
        line = cell // self.columns
        return line // self.rows, line % self.rows, cell % self.columns

    def fields(self) -> dict[str, int]:
        """Plain data for JSON; `Geometry(**fields)` is the inverse."""
        return {"banks": self.banks, "rows": self.rows, "columns": self.columns, "word_bits": self.word_bits}
