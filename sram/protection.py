"""What architects do about weak cells: transforms of a fault map or of the words read, each with what it costs.

A study names a protection by a text, e.g. "secded72" or "spare_columns:1+boost:0.05", and uses it in three steps:

    shield = parse("secded72+spare_columns:1")
    protected, overhead = shield.apply(fault_map)     once for a chip: cells repaired, hardened, boosted, added; costs
    faults = word_faults(protected.geometry, protected.at(voltage))
    shield.read(stored, faults, row)                  words as read: corrected, masked; so read_weights

Where `shield.words_as_stored`, a word is read as it is stored but for its faulty cells: `protected.at(voltage)` then
says it all, in the cells of the map's own geometry. Maps stay nested in voltage through every transform.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sram import ecc, repair
from sram import protection_kernels as kernels
from sram.errors import InputError
from sram.faultmap import FaultMap, Faults
from sram.geometry import Geometry
from sram.repair import extra_cells, select


@dataclass(frozen=True)
class Overhead:
    """What a protection costs, as factors of the unprotected memory.

    storage: cells. energy: of a read or write at the same voltage. access_cycles: added to a read's latency, not to its
    rate. nominal_share: part of the bits of an access that stay at nominal voltage. voltage_offset, voltage_spread: the
    cells work at the supply plus this, mean and standard deviation over banks.
    """

    storage: float = 1.0
    energy: float = 1.0
    access_cycles: int = 0
    nominal_share: float = 0.0
    voltage_offset: float = 0.0
    voltage_spread: float = 0.0
    source: str = ""

    def dynamic_scale(self, v: ArrayLike, v_nominal: float) -> NDArray[np.float64]:
        """Energy of an access at supply v over that of the unprotected memory at v_nominal; CV^2 in every part.

        >>> round(float(Overhead(nominal_share=0.25).dynamic_scale(0.8, 1.0)), 4)
        0.73
        """
        lowered = ((np.asarray(v, dtype=np.float64) + self.voltage_offset) ** 2 + self.voltage_spread**2) / v_nominal**2
        return self.energy * ((1 - self.nominal_share) * lowered + self.nominal_share)

    def __mul__(self, other: "Overhead") -> "Overhead":
        """Both at once."""
        return Overhead(
            storage=self.storage * other.storage,
            energy=self.energy * other.energy,
            access_cycles=self.access_cycles + other.access_cycles,
            nominal_share=1 - (1 - self.nominal_share) * (1 - other.nominal_share),
            voltage_offset=self.voltage_offset + other.voltage_offset,
            voltage_spread=float(np.hypot(self.voltage_spread, other.voltage_spread)),
            source="; ".join(part for part in (self.source, other.source) if part),
        )


class WordFaults(NamedTuple):
    """Faults grouped by memory word: those of word[r] (int64[w], rising) are start[r] .. start[r + 1] (int64[w + 1]) of
    bit uint8[k] and kind uint8[k]."""

    word: np.ndarray
    start: np.ndarray
    bit: np.ndarray
    kind: np.ndarray

    @property
    def per_word(self) -> np.ndarray:
        """Faulty cells of each faulty word, int64[w]."""
        return np.diff(self.start)


def word_faults(geometry: Geometry, faults: Faults) -> WordFaults:
    """Group the faulty cells (any order) by the word that they lie in.

    >>> g = Geometry(banks=1, rows=4, columns=16, word_bits=8)
    >>> found = word_faults(g, Faults(np.array([27, 3, 25]), np.array([1, 0, 2], np.uint8)))
    >>> found.word, found.bit, found.kind
    (array([1, 3]), array([1, 4, 5], dtype=uint8), array([0, 2, 1], dtype=uint8))
    """
    word, bit = geometry.word_bit(faults.cell)
    order = np.lexsort((bit, word))
    word = word[order]
    first = np.flatnonzero(np.diff(word, prepend=-1))
    return WordFaults(word[first], np.append(first, len(word)), bit[order].astype(np.uint8), faults.kind[order])


def faulty_word_share(geometry: Geometry, faults: Faults, at_least: int = 1) -> float:
    """Share of all words with this many faulty cells or more. Two or more are what SECDED cannot promise to correct."""
    return float((word_faults(geometry, faults).per_word >= at_least).sum() / geometry.words)


@dataclass(frozen=True)
class Layout:
    """Where the bits of the weights of a memory word lie; names and order as in simulator.placement.

    "lsb_first", "msb_first": weight after weight; "interleaved": bits of one significance side by side.
    """

    weight_bits: int = 8
    bit_order: str = "lsb_first"

    def positions(self, word_bits: int) -> np.ndarray:
        """int64[weights, weight_bits]: place in the word of bit b (0 is the least significant) of weight s.

        >>> Layout(4, "interleaved").positions(8)
        array([[0, 2, 4, 6],
               [1, 3, 5, 7]])
        """
        if not 1 <= self.weight_bits <= word_bits:
            raise InputError("layout", "weight_bits", self.weight_bits, f"1 to {word_bits}, the bits of a word")
        slots = word_bits // self.weight_bits
        slot, bit = np.mgrid[:slots, : self.weight_bits]
        orders = {
            "lsb_first": slot * self.weight_bits + bit,
            "msb_first": slot * self.weight_bits + self.weight_bits - 1 - bit,
            "interleaved": bit * slots + slot,
        }
        if self.bit_order not in orders:
            raise InputError("layout", "bit_order", self.bit_order, ", ".join(orders))
        return orders[self.bit_order]

    def pack(self, weights: np.ndarray, word_bits: int) -> np.ndarray:
        """Stored words uint64[m] of weights int[m, slots]; bits above weight_bits are cut off."""
        place = self.positions(word_bits).astype(np.uint64)
        bits = weights.astype(np.uint64)[:, :, None] >> np.arange(self.weight_bits, dtype=np.uint64) & np.uint64(1)
        return np.bitwise_or.reduce((bits << place).reshape(len(weights), -1), axis=1)

    def unpack(self, words: np.ndarray, word_bits: int) -> np.ndarray:
        """Weights int64[m, slots] in two's complement; the inverse of `pack`."""
        place = self.positions(word_bits).astype(np.uint64)
        bits = (words[:, None, None] >> place & np.uint64(1)).astype(np.int64)
        worth = 1 << np.arange(self.weight_bits, dtype=np.int64)
        worth[-1] *= -1
        return bits @ worth


class Protection:
    """Does nothing; every protection overrides what it is about."""

    rank = 0  # protections act in the order of their hardware, whatever the order of their names

    @property
    def spec(self) -> str:
        """The text that `parse` makes this protection from."""
        return "none"

    @property
    def words_as_stored(self) -> bool:
        """True if a word read is the word stored with its faulty bits, and nothing else."""
        return type(self).correct is Protection.correct

    def map(self, fault_map: FaultMap) -> FaultMap:
        """The chip's weak cells as the protected memory has them."""
        return fault_map

    def correct(
        self, stored: np.ndarray, seen: np.ndarray, faults: WordFaults, row: np.ndarray, data_bits: int
    ) -> None:
        """Change `seen` uint64[m], the words read, in place."""

    def overhead(self, fault_map: FaultMap) -> Overhead:
        """What it costs on this chip (before `map`)."""
        return Overhead()

    def apply(self, fault_map: FaultMap) -> tuple[FaultMap, Overhead]:
        """`map` and `overhead` in one."""
        return self.map(fault_map), self.overhead(fault_map)

    def read(
        self, stored: np.ndarray, faults: WordFaults, row: np.ndarray | None = None, data_bits: int = 64
    ) -> np.ndarray:
        """What is read, uint64[m], where uint64[m] `stored` was written.

        row int64[m]: index into `faults` of the word that each content lies in; left out, content i lies in
        faults.word[i]. Fault-free words are read as stored and need not be here.

        >>> faults = WordFaults(np.array([7]), np.array([0, 1]), np.array([63], np.uint8), np.array([1], np.uint8))
        >>> stored = np.array([5], np.uint64)
        >>> int(parse("none").read(stored, faults)[0]) == 5 + 2**63, int(parse("secded72").read(stored, faults)[0])
        (True, 5)
        """
        stored = np.ascontiguousarray(stored, dtype=np.uint64)
        row = np.arange(len(faults.word)) if row is None else np.ascontiguousarray(row, dtype=np.int64)
        if len(row) != len(stored):
            raise InputError(
                "protection", "row", len(row), f"one faulty word for each of the {len(stored)} stored words"
            )
        seen = np.empty_like(stored)
        kernels.apply_faults(stored, row, faults.start, faults.bit, faults.kind, data_bits, seen)
        self.correct(stored, seen, faults, row, data_bits)
        return seen

    def read_weights(
        self,
        words: np.ndarray,
        weight: np.ndarray,
        faults: WordFaults,
        row: np.ndarray,
        layout: Layout,
        data_bits: int = 64,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which weights are read wrong, and as what: (weight int64[k], value int64[k]); words int8[n] holds them all.

        weight int64[m, slots]: what memory word faults.word[row[i]] holds at one time, -1 where a slot holds no weight
        (its bits are 0). A row for each content that passes through a faulty word.
        """
        held = np.where(weight >= 0, words[weight], 0).astype(np.int64)
        seen = layout.unpack(self.read(layout.pack(held, data_bits), faults, row, data_bits), data_bits)
        wrong = (seen != held) & (weight >= 0)
        return weight[wrong], seen[wrong]


@dataclass(frozen=True)
class Chain(Protection):
    """Several protections at once, in the order of their hardware."""

    parts: tuple[Protection, ...]

    @property
    def spec(self) -> str:
        return "+".join(part.spec for part in self.parts) or "none"

    @property
    def words_as_stored(self) -> bool:
        return all(part.words_as_stored for part in self.parts)

    def map(self, fault_map: FaultMap) -> FaultMap:
        return self.apply(fault_map)[0]

    def correct(self, stored, seen, faults, row, data_bits) -> None:
        for part in self.parts:
            part.correct(stored, seen, faults, row, data_bits)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        return self.apply(fault_map)[1]

    def apply(self, fault_map: FaultMap) -> tuple[FaultMap, Overhead]:
        total = Overhead()
        for part in self.parts:
            fault_map, cost = part.apply(fault_map)
            total = total * cost
        return fault_map, total


def compose(parts: Iterable[Protection]) -> Protection:
    """All of them at once; the order given does not matter."""
    ordered = tuple(sorted((p for p in parts if type(p) is not Protection), key=lambda p: (p.rank, p.spec)))
    if len({type(part) for part in ordered}) < len(ordered):
        raise InputError("protection", "chain", "+".join(p.spec for p in ordered), "each kind of protection once")
    return ordered[0] if len(ordered) == 1 else Chain(ordered) if ordered else Protection()


@dataclass(frozen=True)
class Secded(Protection):
    """Hsiao's code over blocks of 64 or 32 data bits; check bits lie in cells of their own, as weak as any other.

    Single errors of a block are corrected wherever they lie, double errors are detected and passed on as read, more may
    be miscorrected: all of it happens to the data in hand, a stuck cell that agrees with its bit is no error.
    """

    block_bits: int = 64
    rank = 10

    @property
    def spec(self) -> str:
        return f"secded{self.block_bits + ecc.CHECK_BITS[self.block_bits]}"

    def _checks(self, word_bits: int) -> int:
        if word_bits % self.block_bits:
            raise InputError(self.spec, "word_bits", word_bits, f"a multiple of {self.block_bits}")
        return word_bits // self.block_bits * ecc.CHECK_BITS[self.block_bits]

    def map(self, fault_map: FaultMap) -> FaultMap:
        """The same words widened by their check bits: bits word_bits, word_bits + 1, ... of the new geometry."""
        old = fault_map.geometry
        checks = self._checks(old.word_bits)
        mux = old.column_mux
        wide = Geometry(old.banks, old.rows, mux * (old.word_bits + checks), old.word_bits + checks)
        added = extra_cells(fault_map, old.rows, mux * checks, block=1)
        # A column is bit * mux + slot, so that check columns simply follow the data columns of their row.
        cell = np.concatenate(
            [
                fault_map.cell // old.columns * wide.columns + fault_map.cell % old.columns,
                added.line * wide.columns + old.columns + added.column,
            ]
        )
        return repair.merge(replace(fault_map, geometry=wide), cell, added)

    def correct(self, stored, seen, faults, row, data_bits) -> None:
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
        return Overhead(storage=factor, energy=factor, access_cycles=1, source=source)


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
    rank = 20

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
        return Overhead(storage=columns * (1 + self.rows / g.rows), energy=columns, source=source)


@dataclass(frozen=True)
class HardenedMsb(Protection):
    """The `bits` most significant bits of every weight stay at nominal voltage, on a rail of their own."""

    bits: int
    layout: Layout = Layout()

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= self.layout.weight_bits:
            raise InputError("hardened_msb", "bits", self.bits, f"1 to {self.layout.weight_bits}, the bits of a weight")

    @property
    def spec(self) -> str:
        return f"hardened_msb:{self.bits}"

    def map(self, fault_map: FaultMap) -> FaultMap:
        """Cells of these bits fail only if they fail at nominal voltage, and then at every supply."""
        word_bits = fault_map.geometry.word_bits
        hard = np.zeros(word_bits, np.bool_)
        hard[self.layout.positions(word_bits)[:, self.layout.weight_bits - self.bits :]] = True
        _, bit = fault_map.geometry.word_bit(fault_map.cell)
        return select(fault_map, ~hard[bit] | (fault_map.critical_voltage > fault_map.curve.nominal))

    def overhead(self, fault_map: FaultMap) -> Overhead:
        share = self.bits / self.layout.weight_bits
        source = f"{self.spec}: {share:.1%} of the bits at nominal voltage; wiring of the second rail not counted"
        return Overhead(nominal_share=share, source=source)


@dataclass(frozen=True)
class Canary(Protection):
    """Every bank has a regulator that keeps its canary, the `cells`-th weakest cell, as safe as the best bank's.

    The supply that a study names is that of the bank that runs lowest; the others are raised by what their own canary
    needs more (after MATIC, Kim et al., DATE 2018, whose canaries are cells of the array itself).
    """

    cells: int = 8
    rank = 40

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
        known = np.bincount(bank, minlength=g.banks) >= self.cells
        canary[known] = fault_map.critical_voltage[order[first[known] + self.cells - 1]]
        return canary - canary.min()

    def map(self, fault_map: FaultMap) -> FaultMap:
        offset = self.offsets(fault_map)[fault_map.cell // fault_map.geometry.cells_per_bank]
        return repair.shifted(fault_map, fault_map.critical_voltage - offset, fault_map.voltage_floor)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        offset = self.offsets(fault_map)
        source = f"{self.spec}: supply of each bank follows its {self.cells}th weakest cell; regulators not counted"
        return Overhead(voltage_offset=float(offset.mean()), voltage_spread=float(offset.std()), source=source)


@dataclass(frozen=True)
class Boost(Protection):
    """The array works at the supply plus `offset` (in the unit of the curve) during each access."""

    offset: float
    rank = 50

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
    rank = 60

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
    layout: Layout = Layout()
    rank = 70

    @property
    def spec(self) -> str:
        return "bit_masking" if self.by_bit else "word_masking"

    def correct(self, stored, seen, faults, row, data_bits) -> None:
        place = self.layout.positions(data_bits).astype(np.uint64)
        fields = np.bitwise_or.reduce(np.uint64(1) << place, axis=1)
        kernels.mask_wrong(stored, fields, place[:, -1].astype(np.int64), self.by_bit, seen)

    def overhead(self, fault_map: FaultMap) -> Overhead:
        source = f"{self.spec}: Razor double sampling 12.8% power, 0.3% area (Minerva, ISCA 2016, 40 nm)"
        return Overhead(storage=1.003, energy=1.128, source=source)


def _whole(name: str, argument: str) -> int:
    if not argument.isdecimal():
        raise InputError("protection", name, argument, "a whole number")
    return int(argument)


def _spares(argument: str) -> Spares:
    lines, _, method = argument.partition(":")
    rows, cross, columns = lines.partition("x")
    if not cross or method not in ("", "optimal"):
        raise InputError("protection", "spares", argument, "ROWSxCOLUMNS or ROWSxCOLUMNS:optimal")
    return Spares(_whole("spares", rows), _whole("spares", columns), bool(method))


def _boost(argument: str) -> Boost:
    try:
        return Boost(float(argument))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("protection", "boost", argument, "a number, in the unit of the curve") from None


# name -> (how it is written, maker from the text behind the colon and the layout of weights in a word)
KINDS: dict[str, tuple[str, Callable[[str, Layout], Protection]]] = {
    "none": ("none", lambda _, layout: Protection()),
    "secded72": ("secded72", lambda _, layout: Secded(64)),
    "secded39": ("secded39", lambda _, layout: Secded(32)),
    "spare_columns": ("spare_columns:N", lambda n, layout: Spares(columns=_whole("spare_columns", n))),
    "spare_rows": ("spare_rows:N", lambda n, layout: Spares(rows=_whole("spare_rows", n))),
    "spares": ("spares:ROWSxCOLUMNS[:optimal]", lambda text, layout: _spares(text)),
    "hardened_msb": ("hardened_msb:BITS", lambda n, layout: HardenedMsb(_whole("hardened_msb", n), layout)),
    "canary": ("canary:CELLS", lambda n, layout: Canary(_whole("canary", n))),
    "boost": ("boost:VOLTAGE", lambda v, layout: _boost(v)),
    "interleave": ("interleave:BANKS", lambda n, layout: Interleave(_whole("interleave", n))),
    "bit_masking": ("bit_masking", lambda _, layout: Masking(True, layout)),
    "word_masking": ("word_masking", lambda _, layout: Masking(False, layout)),
}


def parse(text: str | Iterable[str], layout: Layout | None = None) -> Protection:
    """The protection that a text names: `secded72`, `boost:0.05`, several joined with + (or several texts).

    `layout` says where the bits of a weight lie in a memory word, for those that treat bits by significance. Raises
    InputError on unknown names and wrong numbers.

    >>> parse("boost:0.05+secded72").spec
    'secded72+boost:0.05'
    >>> parse(["spare_columns:1", "bit_masking"]).words_as_stored
    False
    """
    texts = [text] if isinstance(text, str) else list(text)
    parts = []
    for item in (piece.strip() for each in texts for piece in each.split("+")):
        name, colon, argument = item.partition(":")
        if name not in KINDS:
            raise InputError("protection", "name", item, ", ".join(form for form, _ in KINDS.values()))
        form, make = KINDS[name]
        if bool(colon) != (":" in form):
            raise InputError("protection", "name", item, form)
        parts.append(make(argument, layout or Layout()))
    return compose(parts)
