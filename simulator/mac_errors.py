"""What a multiply-accumulate unit gets wrong when its clock is faster than its critical path.

**How often.** `slack` is the period over the delay of the path (`simulator.timing.slack`); below 1 some sums are not
ready in time. Against slack the error curves of all supplies of one process and temperature fall together
(`mac_error_rates.csv`, the median of them); those of other temperatures do not: at a slack of 0.75 the rates of all 16
corners reach from 0.001 to 0.09, and the slow corner at -40 C is a middle one. A curve ends where two of its 20,000
MACs were wrong; beyond, its last decade is continued as a straight line in the logarithm (`extrapolated`), to 0 at a
slack of 1. Input-stationary arrays are taken for weight-stationary ones: in both a sum comes from the neighbour above.

**Which MACs.** Carries ripple through the sign extension, so the rate depends on the signs of the running sum and of
the product (`mac_error_signs.csv`, counted in the order of an output-stationary array, used for all).

**Which bits.** A run from some bit up to bit 31: an error is a sum too small by 2^b (a running sum of 0 or more whose
top bits are still ones), or too large by 2^b (a negative one). Shares of each b come from `mac_error_bits.csv`. The
mean of log2 |error| in the curves agrees with such runs (0.1 bits); the 0.6% (weight-stationary: up to 5%, at a rate of
0.1) of errors in which bit 31 is right are taken for runs.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np

from simulator.accelerator import Accelerator
from sram.errors import InputError

SIGNS = ("sum_positive_product_negative", "both_positive", "sum_negative_product_positive", "both_negative")
BITS = 32
Corner = Literal["ss", "ff"]


@dataclass(frozen=True)
class MacErrors:
    """The errors of a MAC at one clock.

    word_error_rate: of MACs, on the operands that it was measured with. by_signs: of MACs of each of the `SIGNS`; 0 is
    not negative. lowest_bit: of an error, the probability of each bit to be the lowest wrong one. `extrapolated`:
    beyond what was counted.
    """

    word_error_rate: float
    by_signs: tuple[float, float, float, float]
    lowest_bit: tuple[float, ...]
    extrapolated: bool = False


NO_ERRORS = MacErrors(0.0, (0.0,) * 4, (0.0,) * (BITS - 1) + (1.0,))


def stream_of(machine: Accelerator) -> str:
    """The operand stream that an accelerator's MACs see: that of its dataflow; output-stationary where layers differ in
    it (`best`), and for row stationary.

    >>> from simulator.accelerator import accelerator
    >>> stream_of(accelerator("gap9-like")), stream_of(accelerator("eyeriss"))
    ('ws', 'os')
    """
    return machine.dataflow if machine.dataflow in ("ws", "is") else "os"


def mac_errors(slack: float, dataflow: str = "os", corner: Corner = "ss") -> MacErrors:
    """Errors at a slack (period / path delay), for the operands' order of a dataflow, in a process corner at -40 C.

    InputError below the slack at which a tenth of all sums are wrong, where the curves are not kept.

    >>> found = mac_errors(0.75)
    >>> round(found.word_error_rate, 6), [round(rate, 4) for rate in found.by_signs]
    (0.003975, [0.0221, 0.003, 0.0029, 0.0])
    >>> mac_errors(1.0).word_error_rate, mac_errors(0.82).extrapolated
    (0.0, True)
    """
    slacks, rates = _rates(dataflow, corner)
    if not slack >= slacks[0]:
        raise InputError("timing errors", "slack", slack, f"{slacks[0]:g} or more; 1 and above has no errors")
    if slack >= 1:
        return NO_ERRORS
    logs = np.log10(rates)
    log = float(np.interp(slack, slacks, logs))
    if extrapolated := bool(slack > slacks[-1]):
        decade = np.interp(logs[-1] + 1, logs[::-1], slacks[::-1])  # where the rate is ten times the last one
        log = float(logs[-1] - (slack - slacks[-1]) / (slacks[-1] - decade))
    return errors_at(10**log, dataflow, extrapolated)


def errors_at(word_error_rate: float, dataflow: str = "os", extrapolated: bool = False) -> MacErrors:
    """Errors of so many of the MACs, whatever clock that takes; InputError for a rate that is none.

    >>> errors_at(0.1).lowest_bit[30] > errors_at(0.001).lowest_bit[30]
    True
    """
    if not 0 <= word_error_rate <= 1:
        raise InputError("timing errors", "word_error_rate", word_error_rate, "0 to 1")
    if word_error_rate == 0:
        return NO_ERRORS
    log = np.log10(word_error_rate)
    signs, bits = _signs(), _bits(_stream(dataflow))
    by_signs = (min(1.0, word_error_rate * _between(log, signs, name)) for name in SIGNS)
    wrong = np.array([0.0] * 25 + [_between(log, bits, f"b{bit}") for bit in range(25, BITS - 1)] + [1.0])
    wrong = np.maximum.accumulate(wrong)
    lowest = np.diff(wrong, prepend=0.0).tolist()
    return MacErrors(float(word_error_rate), tuple(by_signs), tuple(lowest), extrapolated)  # type: ignore[arg-type]


def _between(log: float, rows: list[dict[str, float]], column: str) -> float:
    """A column at a word error rate, linear in its logarithm and constant beyond the rows."""
    at = [np.log10(row["word_error_rate"]) for row in rows]
    return float(np.interp(log, at, [row[column] for row in rows]))


def _stream(dataflow: str) -> str:
    if dataflow not in ("os", "ws", "is"):
        raise InputError("timing errors", "dataflow", dataflow, "os, ws, is")
    return "os" if dataflow == "os" else "ws"


@cache
def _rates(dataflow: str, corner: str) -> tuple[np.ndarray, np.ndarray]:
    """(slacks rising, word error rates) of a curve."""
    if corner not in ("ss", "ff"):
        raise InputError("timing errors", "corner", corner, "ss, ff")
    wanted = (corner, _stream(dataflow))
    rows = [row for row in _table("mac_error_rates.csv") if (row["process"], row["dataflow"]) == wanted]
    slacks, rates = (np.array([float(row[key]) for row in rows]) for key in ("slack", "word_error_rate"))
    return slacks, rates


@cache
def _signs() -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in _table("mac_error_signs.csv")]


@cache
def _bits(stream: str) -> list[dict[str, float]]:
    rows = [row for row in _table("mac_error_bits.csv") if row["dataflow"] == stream]
    return [{key: float(value) for key, value in row.items() if key != "dataflow"} for row in rows]


def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("simulator").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
