"""Protections of the array's logic against sums that are late: what they find, what they cost, what is left.

Neither mends a clock that is too fast for free: an error found is paid for in cycles, by the whole array. So both pay
as long as errors are rare, and they do not stay rare: within 0.1 of slack they go from none to a percent.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from simulator.accelerator import Accelerator
from simulator.array.cycles import plan_of
from simulator.array.schedule import Plan
from simulator.mac_errors import Corner, MacErrors, errors_at, mac_errors
from simulator.workload import Workload
from sram.errors import InputError


class LogicCost(NamedTuple):
    """Over the unprotected array: more energy of its MACs and registers, more cycles, and more reads and writes of all
    buffers, each as a share."""

    energy: float
    cycles: float
    accesses: float = 0.0


@dataclass(frozen=True)
class Razor:
    """A shadow latch beside each flip-flop of the sums samples again `window` of a period later; where the two differ,
    the right value is put in and the whole array waits for a cycle (global clock gating).

    Source: Ernst et al., "Razor: a low-power pipeline based on circuit-level timing speculation", MICRO 2003: 3.1% more
    energy without errors, of a processor; that it is as much of an array's is assumed. That the window is half a period
    is from memory. Paths shorter than the window need buffers, which the 3.1% stands for. Errors detected are mended
    for sure: metastable latches are not modelled.

    >>> razor = Razor()
    >>> razor.detects(0.7), razor.surviving(0.7).word_error_rate
    (1.0, 0.0)
    >>> [round(share, 3) for share in razor.cost(3e-5, 32 * 32)], round(razor.cost(1e-3, 32 * 32).cycles, 2)
    ([0.031, 0.03, 0.0], 0.64)
    """

    window: float = 0.5
    energy: float = 0.031
    penalty_cycles: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.window <= 1:
            raise InputError("razor", "window", self.window, "more than 0, at most 1, of a period")
        if not self.energy >= 0 or self.penalty_cycles < 0:
            raise InputError("razor", "energy, penalty_cycles", (self.energy, self.penalty_cycles), "not negative")

    def surviving(self, slack: float, dataflow: str = "os", corner: Corner = "ss") -> MacErrors:
        """Errors that are still there: of sums that are late for the shadow latch, too."""
        return mac_errors(slack * (1 + self.window), dataflow, corner)

    def detects(self, slack: float, dataflow: str = "os", corner: Corner = "ss") -> float:
        """The share of errors that is found; 1 where there are none."""
        rate = mac_errors(slack, dataflow, corner).word_error_rate
        return 1 - self.surviving(slack, dataflow, corner).word_error_rate / rate if rate else 1.0

    def cost(self, rate: float, elements: int) -> LogicCost:
        """At an error rate of the MACs, in an array of so many that stop together."""
        _check_rate("razor", rate)
        return LogicCost(self.energy, self.penalty_cycles * _any(rate * elements))


@dataclass(frozen=True)
class Tile:
    """A product (m pixels x k taps) @ (k x n filters), which is checked as a whole."""

    m: int
    k: int
    n: int

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 1:
            raise InputError("tile", "m, k, n", (self.m, self.k, self.n), "1 or more")

    @property
    def macs(self) -> int:
        """Without those of a checksum."""
        return self.m * self.k * self.n


def checked_tiles(workload: Workload, machine: Accelerator, plan: Plan | None = None) -> list[Tile]:
    """Of each layer on the array, the outputs that are checked together, and computed again: those that its columns
    make at a time, with all their taps. Output-stationary: a pixel for each row; weight-stationary: those of the
    schedule's tile.

    InputError for dataflows whose columns are not filters.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> checked_tiles(Workload("one", (conv("a", 8, 8, 16, 48, kernel=3, padding=1),)), accelerator("paper"))
    [Tile(m=32, k=144, n=32)]
    """
    if machine.dataflow not in ("os", "ws"):
        raise InputError("abft", "dataflow", machine.dataflow, "os, ws: a checksum beside filters in columns")
    schedules = plan or plan_of(workload, machine)
    found = []
    for layer in workload.array_layers:
        pixels = min(layer.m, schedules.of(layer).m)
        rows = min(pixels, machine.array_rows) if machine.dataflow == "os" else pixels
        found.append(Tile(rows, layer.k, min(layer.n, machine.array_cols)))
    return found


@dataclass(frozen=True)
class Abft:
    """A checksum filter, the sum of the tile's filters, runs beside them; each pixel's outputs must add up to its own.
    A tile where they do not is computed again, at a clock that meets timing, since the same operands would fail again.

    Source: Huang and Abraham, "Algorithm-based fault tolerance for matrix operations", IEEE Trans. Computers 33, 1984
    (the scheme from memory; the counts below are this module's). Sums of integers are exact, so any difference beyond
    `threshold` is an error, and errors are of 2^25 and more; only those of one pixel that cancel modulo 2^32, as any
    two of bit 31 do, stay unseen. The checksum's weights are log2(n) bits wider, and cost as much more; to add them up
    takes an addition for each weight, to compare one for each output, counted as MACs. The checksum has a column of its
    own and takes no cycles. Its own errors have a tile computed again, and are taken never to hide another. A tile that
    is computed again is read and written again, and is not checked a second time.

    >>> abft, tile = Abft(), Tile(56, 576, 16)
    >>> round(abft.detects(1e-6, tile), 4), [round(share, 3) for share in abft.cost(1e-6, tile, slack=0.8)]
    (0.9965, [0.583, 0.528, 0.422])
    """

    threshold: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 2**25:
            raise InputError("abft", "threshold", self.threshold, "0 to 2**25 - 1, less than any error")

    def _unseen(self, rate: float, tile: Tile) -> float:
        """The probability of a tile whose errors, one or more, are even in number in every pixel."""
        each = rate * tile.k * tile.n
        even = tile.m * math.log1p(math.expm1(-2 * each) / 2)  # log of P(even in all pixels)
        none = -tile.m * each
        return math.exp(none) * math.expm1(even - none) if even - none < 1 else math.exp(even) - math.exp(none)

    def detects(self, rate: float, tile: Tile) -> float:
        """The share of wrong tiles that is found, at an error rate of the MACs; 1 where there are none. All errors are
        taken for ones of bit 31, which is the worst."""
        _check_rate("abft", rate)
        return 1 - self._unseen(rate, tile) / _any(rate * tile.macs) if rate else 1.0

    def surviving(self, rate: float, tile: Tile, dataflow: str = "os") -> MacErrors:
        """Errors that are still there: those of tiles that pass wrong."""
        _check_rate("abft", rate)
        odd = -math.expm1(-2 * rate * tile.k * tile.n) / 2  # of one pixel
        return errors_at(rate * odd * (1 - odd) ** (tile.m - 1), dataflow)

    def cost(self, rate: float, tile: Tile, slack: float, wrong: float | None = None) -> LogicCost:
        """At an error rate of the MACs, those of the checksum included, and this slack of the clock. `wrong`: the share
        of tiles that do not add up, where it was counted and does not follow from the rate."""
        _check_rate("abft", rate)
        if not slack > 0:
            raise InputError("abft", "slack", slack, "more than 0")
        checks = (1 + math.log2(tile.n) / 8) / tile.n + 1 / tile.k + 1 / tile.m
        found = _any(rate * tile.macs) if wrong is None else wrong
        again = found + (1 - found) * _any(rate * tile.m * tile.k)  # the checksum's own errors
        return LogicCost((1 + checks) * (1 + again) - 1, again / min(1.0, slack), again)


def _any(expected: float) -> float:
    """The probability of one event or more, of so many expected."""
    return -math.expm1(-expected)


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise InputError(name, "rate", rate, "0 to 1, errors of a MAC")
