"""What a stored word stands for: an integer, or a small floating-point number; and how many words share a scale.

| format | word | scale |
|---|---|---|
| `int` | 2..8 bits, two's complement | float32, for the tensor, each filter, or each run of so many words of a row |
| `bf16` | 1 sign, 8 exponent, 7 mantissa bits | none |
| `fp8_e4m3`, `fp8_e5m2` | 8 bits (OFP8: Micikevicius et al., arXiv 2209.05433) | as `int` |
| `mxfp8_e4m3`, `mxfp8_e5m2`, `mxint8`, `mxfp4` | 8 bits, or 4 | 2^e of each 32 words of a row; e is stored, in 8 bits |

The last four are those of OCP Microscaling Formats v1.0. E4M3 has no infinity and NaN in S.1111.111 only, E5M2 both as
IEEE 754 has them, E2M1 (MXFP4) neither. An element of MXINT8 is a two's complement integer of 1/64, a shared exponent
E8M0: 2^(code - 127), or NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from sram.errors import InputError

BITS = range(2, 9)  # of an integer
BLOCK = 32  # words that share an exponent in an MX format
BIAS = 127  # of such an exponent


class _Float(NamedTuple):
    """Bits of exponent and mantissa, beside the sign; how many of the largest codes stand for no finite number."""

    exponent: int
    mantissa: int
    special: int = 0


_FLOATS = {
    "bf16": _Float(8, 7, special=2**7),
    "fp8_e4m3": _Float(4, 3, special=1),
    "fp8_e5m2": _Float(5, 2, special=2**2),
    "fp4": _Float(2, 1),
}
_MX = {"mxfp8_e4m3": "fp8_e4m3", "mxfp8_e5m2": "fp8_e5m2", "mxint8": "int8", "mxfp4": "fp4"}
WIDTHS = {"bf16": 16, "fp8_e4m3": 8, "fp8_e5m2": 8, "mxfp8_e4m3": 8, "mxfp8_e5m2": 8, "mxint8": 8, "mxfp4": 4}


@dataclass(frozen=True)
class WordFormat:
    """How weights are stored. `name`: "int", or one of WIDTHS, which have `bits` of their own.

    One scale a tensor, `per_channel` one for each entry of the first axis, with `group` one for each run of so many
    words of such a row (the last may be shorter). InputError for what does not go together.

    >>> WordFormat(4, group=32), WordFormat(name="bf16").bits
    (WordFormat(bits=4, per_channel=False, group=32, name='int'), 16)
    """

    bits: int = 8
    per_channel: bool = False
    group: int | None = None
    name: str = "int"

    def __post_init__(self) -> None:
        if self.name != "int":
            if self.name not in WIDTHS:
                raise InputError("words", "format", self.name, ", ".join(WIDTHS))
            object.__setattr__(self, "bits", WIDTHS[self.name])
        elif self.bits not in BITS:
            raise InputError("quantize", "bits", self.bits, "2 to 8")
        given = {"per_channel": self.per_channel, "group": self.group is not None}
        chosen = [key for key, one in given.items() if one]
        if chosen and (self.name == "bf16" or self.shared):
            raise InputError("words", chosen[0], getattr(self, chosen[0]), f"none with format {self.name}")
        if len(chosen) > 1:
            raise InputError("words", "group", self.group, "none with per_channel")
        if self.group is not None and self.group < 2:
            raise InputError("words", "group", self.group, "2 or more words to a scale")

    @property
    def shared(self) -> bool:
        """Whether words share exponents that are words, too."""
        return self.name in _MX

    @property
    def element(self) -> str:
        """The format of one word, whatever it is scaled by."""
        return _MX.get(self.name, self.name)

    def starts(self, shape: Sequence[int], by_rows: bool = False) -> np.ndarray:
        """The first word int64[runs] of each run of a scale in a tensor of this shape; `by_rows`: runs end with rows,
        too.

        >>> WordFormat(group=4).starts((2, 6))
        array([ 0,  4,  6, 10])
        """
        size = prod(shape)
        rows = shape[0] if len(shape) > 1 and (self.run or self.per_channel or by_rows) else 1
        within = np.arange(0, size // rows, self.run or max(size, 1))
        return (np.arange(rows)[:, None] * (size // rows) + within).ravel()

    @property
    def run(self) -> int | None:
        """Words of a row that share a scale, if not all."""
        return BLOCK if self.shared else self.group

    def exponent_words(self, shape: Sequence[int]) -> int:
        """Words of a tensor's shared exponents; 0 where it has none."""
        return len(self.starts(shape)) * (8 // self.bits) if self.shared else 0

    @property
    def table(self) -> np.ndarray:
        """What each pattern of bits stands for, float32[2^bits]; empty where a word stands for itself."""
        return _table(self.element)

    @property
    def magnitudes(self) -> np.ndarray:
        """The finite numbers that words stand for, from 0 on, rising, float32; of a format with a table."""
        half = self.table[: len(self.table) // 2]
        return half[np.isfinite(half)]

    @property
    def largest_power(self) -> int:
        """Of two in the largest number (OCP: emax)."""
        return int(np.frexp(float(self.magnitudes[-1]))[1]) - 1


def words_of(bits: "int | WordFormat", per_channel: bool = False) -> WordFormat:
    """Integers of so many bits, or the format itself."""
    return bits if isinstance(bits, WordFormat) else WordFormat(bits, per_channel)


@lru_cache
def _table(element: str) -> np.ndarray:
    if element == "int":
        return np.empty(0, np.float32)
    if element == "int8":
        return (np.arange(256).astype(np.int8) / 64).astype(np.float32)
    form = _FLOATS[element]
    top = 1 << form.exponent + form.mantissa
    code = np.arange(top)
    power, part = code >> form.mantissa, code & (1 << form.mantissa) - 1
    bias = (1 << form.exponent - 1) - 1
    whole = np.where(power > 0, 1 << form.mantissa, 0) + part
    size = np.ldexp(whole.astype(np.float64), np.maximum(power, 1) - bias - form.mantissa)
    size[top - form.special :] = np.nan
    if form.special > 1:  # as IEEE 754: the first of the last exponent is infinity
        size[top - form.special] = np.inf
    return np.concatenate([size, -size]).astype(np.float32)
