"""The protections, one class each; `sram.protection` makes them from texts."""

import fnmatch
from dataclasses import dataclass

import numpy as np

from sram.errors import InputError
from sram.protection import ecc, kernels, repair
from sram.protection.base import Overhead, Protection, Stage
from sram.protection.words import EIGHT_BIT, Layout, WordFaults
from sram.weakcells import FaultMap


@dataclass(frozen=True)
class Secded(Protection):
    """Hsiao's code over blocks of 64 or 32 data bits; check bits lie in cells of their own, as weak as any other.

    Single errors of a block are corrected wherever they lie, double errors are detected and passed on as read, more may
    be miscorrected: all of it happens to the data in hand, a stuck cell that agrees with its bit is no error.
    """

    block_bits: int = 64
    stage = Stage.WORDS

    @property
    def spec(self) -> str:
        return f"secded{self.block_bits + ecc.CHECK_BITS[self.block_bits]}"

    def _checks(self, word_bits: int) -> int:
        if word_bits % self.block_bits:
            raise InputError(self.spec, "word_bits", word_bits, f"a multiple of {self.block_bits}")
        return word_bits // self.block_bits * ecc.CHECK_BITS[self.block_bits]

    def map(self, fault_map: FaultMap) -> FaultMap:
        """The same words widened by their check bits: bits word_bits, word_bits + 1, ... of the new geometry."""
        return repair.widened(fault_map, self._checks(fault_map.geometry.word_bits))

    def correct(
        self, stored: np.ndarray, seen: np.ndarray, faults: WordFaults, row: np.ndarray, data_bits: int
    ) -> None:
        code = ecc.secded(self.block_bits)
        detected = np.zeros(len(stored), np.bool_)
        kernels.secded(
            stored,
            row,
            faults.start,
            faults.bit,
            faults.kind,
            code.masks,
            code.position,
            self.block_bits,
            data_bits,
            seen,
            detected,
        )

    def overhead(self, fault_map: FaultMap) -> Overhead:
        word = fault_map.geometry.word_bits
        factor = 1 + self._checks(word) / word
        source = (
            f"{self.spec}: {factor - 1:.2%} more cells, all of them accessed; decoder logic not counted;"
            " one pipeline stage assumed for it"
        )
        return Overhead(storage=factor, energy=factor, access_width=factor, access_cycles=1, source=source)


@dataclass(frozen=True)
class Spares(Protection):
    """Spare rows and columns of every bank, put in at test for the lines with most faults at the map's lowest voltage.

    Spares are weak as any other cells, and are used only where they are better than the line they replace. Rows alone
    or columns alone: greedy is optimal. Both: `optimal` finds the choice that covers most faults (integer programme,
    HiGHS), else a greedy one.
    """

    rows: int = 0
    columns: int = 0
    optimal: bool = False
    stage = Stage.LINES

    def __post_init__(self) -> None:
        if not (self.rows >= 0 and self.columns >= 0 and self.rows + self.columns > 0):
            raise InputError("spares", "rows and columns", (self.rows, self.columns), "not negative, one at least")

    @property
    def spec(self) -> str:
        if self.rows and self.columns:
            return f"spares:{self.rows}x{self.columns}" + (":optimal" if self.optimal else "")
        return f"spare_rows:{self.rows}" if self.rows else f"spare_columns:{self.columns}"

    def map(self, fault_map: FaultMap) -> FaultMap:
        return repair.repaired(fault_map, self.rows, self.columns, self.optimal)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        g = fault_map.geometry
        columns = 1 + self.columns / g.columns
        source = f"{self.spec}: spare lines of {g.rows} x {g.columns} cells, spare columns accessed with every word"
        storage = columns * (1 + self.rows / g.rows)
        return Overhead(storage=storage, energy=columns, access_width=columns, source=source)


@dataclass(frozen=True)
class HardenedMsb(Protection):
    """The `bits` most significant bits of every weight stay at nominal voltage, on a rail of their own.

    layers: (bits, patterns of layer names) for layers of which more bits stay there, e.g. ((8, ("stem.*", "head")),);
    the most of all that apply. Needs a layout with regions: layers that share no words.
    """

    bits: int
    layout: Layout = EIGHT_BIT
    layers: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        most = self.layout.weight_bits
        for bits in (self.bits, *(bits for bits, _ in self.layers)):
            if not 0 <= bits <= most or (bits == 0 and not self.layers):
                raise InputError("hardened_msb", "bits", bits, f"1 to {most}, the bits of a weight")
        names = [region.name for region in self.layout.regions]
        for pattern in (pattern for _, patterns in self.layers for pattern in patterns):
            if names and not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise InputError("hardened_msb", "layer", pattern, ", ".join(names))

    @property
    def spec(self) -> str:
        rules = [f"{bits}@{','.join(patterns)}" for bits, patterns in self.layers]
        return "hardened_msb:" + ";".join([str(self.bits), *rules] if self.bits else rules)

    @property
    def needs_regions(self) -> bool:
        return bool(self.layers)

    def _hard_bits(self) -> np.ndarray:
        """int64[regions + 1]: of the weights of each region, and last of those that lie in none."""
        if self.layers and not self.layout.regions:
            raise InputError("hardened_msb", "layers", self.spec, "bits alone, where layers share memory words")
        found = [self.bits] * (len(self.layout.regions) + 1)
        for i, region in enumerate(self.layout.regions):
            rules = (n for n, patterns in self.layers if any(fnmatch.fnmatchcase(region.name, p) for p in patterns))
            found[i] = max(self.bits, *rules, 0)
        return np.array(found, np.int64)

    def map(self, fault_map: FaultMap) -> FaultMap:
        """Cells of these bits fail only if they fail at nominal voltage, and then at every supply."""
        word, bit = fault_map.geometry.word_bit(fault_map.cell)
        hard = self._hard_bits()[self.layout.region_of(word)]
        significance = self.layout.significance(fault_map.geometry.word_bits)[bit]
        soft = significance < self.layout.weight_bits - hard
        return repair.select(fault_map, soft | (fault_map.critical_voltage > fault_map.curve.nominal))

    def overhead(self, fault_map: FaultMap) -> Overhead:
        share, regions = self._hard_bits() / self.layout.weight_bits, self.layout.regions
        words = [region.words / fault_map.geometry.words for region in regions]

        def of(parts: list[float]) -> float:
            return float(share @ [*parts, 1 - sum(parts)])

        reads = of([region.reads for region in regions])
        source = f"{self.spec}: {reads:.1%} of the bits read at nominal voltage; wiring of the second rail not counted"
        return Overhead(
            nominal_reads=reads, nominal_writes=of([region.writes for region in regions]), nominal_cells=of(words),
            source=source,
        )  # fmt: skip


@dataclass(frozen=True)
class Canary(Protection):
    """Every bank has a regulator that keeps its canary, the `cells`-th weakest cell, as safe as the best bank's.

    The supply that a study names is that of the bank that runs lowest; the others are raised by what their own canary
    needs more (after MATIC, Kim et al., DATE 2018, whose canaries are cells of the array itself).

    A bank with fewer weak cells in the map than that has the map's floor for its canary (in a study the lowest of its
    voltages): it then counts as weaker than it is, and a map that goes further down gives other supplies. Only where
    every bank has `cells` weak ones at the floor does depth not matter; `source` says how many have not.
    """

    cells: int = 8
    stage = Stage.BANKS

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise InputError("canary", "cells", self.cells, "at least 1")

    @property
    def spec(self) -> str:
        return f"canary:{self.cells}"

    def offsets(self, fault_map: FaultMap) -> np.ndarray:
        """float64[banks]: supply of each bank above that of the lowest; banks with fewer weak cells: the floor."""
        g = fault_map.geometry
        bank = fault_map.cell // g.cells_per_bank
        order = np.argsort(bank, kind="stable")  # within a bank still the weakest first
        first = np.searchsorted(bank[order], np.arange(g.banks))
        canary = np.full(g.banks, fault_map.voltage_floor)
        known = self._known(fault_map)
        canary[known] = fault_map.critical_voltage[order[first[known] + self.cells - 1]]
        return canary - canary.min()

    def _known(self, fault_map: FaultMap) -> np.ndarray:
        """bool[banks]: the map goes down to the bank's canary."""
        g = fault_map.geometry
        return np.bincount(fault_map.cell // g.cells_per_bank, minlength=g.banks) >= self.cells

    def map(self, fault_map: FaultMap) -> FaultMap:
        offset = self.offsets(fault_map)[fault_map.cell // fault_map.geometry.cells_per_bank]
        return repair.shifted(fault_map, fault_map.critical_voltage - offset, fault_map.voltage_floor)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        offset = self.offsets(fault_map)
        source = f"{self.spec}: supply of each bank follows its {self.cells}th weakest cell; regulators not counted"
        if unknown := int((~self._known(fault_map)).sum()):
            source += (
                f"; {unknown} of {len(offset)} banks have fewer weak cells at the map's floor,"
                f" {fault_map.voltage_floor:g}, and follow the floor: a lower one would change them"
            )
        return Overhead(voltage_offset=float(offset.mean()), voltage_spread=float(offset.std()), source=source)


@dataclass(frozen=True)
class Boost(Protection):
    """The array works at the supply plus `offset` (in the unit of the curve) during each access."""

    offset: float
    stage = Stage.ARRAY

    def __post_init__(self) -> None:
        if not 0 < self.offset < np.inf:
            raise InputError("boost", "offset", self.offset, "a positive voltage in the unit of the curve")

    @property
    def spec(self) -> str:
        return f"boost:{self.offset:g}"

    def map(self, fault_map: FaultMap) -> FaultMap:
        floor = fault_map.voltage_floor - self.offset
        return repair.shifted(fault_map, fault_map.critical_voltage - self.offset, floor)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        source = f"{self.spec}: the array swings to the boosted voltage; the booster's own losses not counted"
        return Overhead(voltage_offset=self.offset, source=source)


@dataclass(frozen=True)
class Interleave(Protection):
    """Each word is spread over `ways` banks: its bit b lies in the bank (b mod ways) further on, same row and column.

    A weak bank or row then costs each of many words a few bits instead of a few words all of theirs.
    """

    ways: int
    stage = Stage.ADDRESSES

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise InputError("interleave", "ways", self.ways, "at least 2")

    @property
    def spec(self) -> str:
        return f"interleave:{self.ways}"

    def map(self, fault_map: FaultMap) -> FaultMap:
        """The same weak cells under the addresses of the words that they now belong to."""
        g = fault_map.geometry
        if g.banks % self.ways:
            raise InputError(self.spec, "banks", g.banks, f"a multiple of {self.ways}")
        bank, within = fault_map.cell // g.cells_per_bank, fault_map.cell % g.cells_per_bank
        bit = within % g.columns // g.column_mux
        way = (bank - bit) % self.ways  # of the word: its bit b lies in bank way + b
        cell = (bank // self.ways * self.ways + way) * g.cells_per_bank + within
        return repair.renumbered(fault_map, cell)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        source = (
            f"{self.spec}: a row in each of {self.ways} banks opens for a word; upper bound, all of each row counted"
        )
        return Overhead(energy=float(self.ways), source=source)


@dataclass(frozen=True)
class Masking(Protection):
    """Minerva (Reagen et al., ISCA 2016): bits that were read wrong are noticed by double sampling (Razor) and masked.

    By word: a weight with a wrong bit becomes 0. By bit: wrong bits take the value of the sign bit; where the sign
    itself is wrong, the weight becomes 0.
    """

    by_bit: bool
    layout: Layout = EIGHT_BIT
    stage = Stage.READ

    @property
    def spec(self) -> str:
        return "bit_masking" if self.by_bit else "word_masking"

    def correct(
        self, stored: np.ndarray, seen: np.ndarray, faults: WordFaults, row: np.ndarray, data_bits: int
    ) -> None:
        place = self.layout.positions(data_bits).astype(np.uint64)
        fields = np.bitwise_or.reduce(np.uint64(1) << place, axis=1)
        kernels.mask_wrong(stored, fields, place[:, -1].astype(np.int64), self.by_bit, seen)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        source = f"{self.spec}: Razor double sampling 12.8% power, 0.3% area (Minerva, ISCA 2016, 40 nm)"
        return Overhead(storage=1.003, energy=1.128, source=source)
