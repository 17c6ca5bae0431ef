"""What every protection is: a transform of the map, a correction of the words read, and a cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sram.errors import InputError
from sram.protection import kernels
from sram.protection.words import Layout, WordFaults
from sram.weakcells import FaultMap


@dataclass(frozen=True)
class Overhead:
    """What a protection costs, as factors of the unprotected memory.

    storage: cells. energy: of a read or write at the same voltage. access_width: cells of an access, with those that a
    protection adds to every one. access_cycles: added to a read's latency, not to its rate. nominal_reads,
    nominal_writes, nominal_cells: part of the bits read, of those written and of the cells (which leak) that stay at
    nominal voltage. voltage_offset, voltage_spread: the cells work at the supply plus this, mean and standard deviation
    over banks.
    """

    storage: float = 1.0
    energy: float = 1.0
    access_width: float = 1.0
    access_cycles: int = 0
    nominal_reads: float = 0.0
    nominal_writes: float = 0.0
    nominal_cells: float = 0.0
    voltage_offset: float = 0.0
    voltage_spread: float = 0.0
    source: str = ""

    def read_scale(self, v: ArrayLike, v_nominal: float) -> NDArray[np.float64]:
        """Energy of all reads at supply v over that of the unprotected memory at v_nominal; CV^2 in every part.

        >>> round(float(Overhead(nominal_reads=0.25).read_scale(0.8, 1.0)), 4)
        0.73
        """
        return self._scale(v, v_nominal, self.nominal_reads)

    def write_scale(self, v: ArrayLike, v_nominal: float) -> NDArray[np.float64]:
        """The same for all writes."""
        return self._scale(v, v_nominal, self.nominal_writes)

    def _scale(self, v: ArrayLike, v_nominal: float, kept: float) -> NDArray[np.float64]:
        lowered = ((np.asarray(v, dtype=np.float64) + self.voltage_offset) ** 2 + self.voltage_spread**2) / v_nominal**2
        return self.energy * ((1 - kept) * lowered + kept)

    def __mul__(self, other: "Overhead") -> "Overhead":
        """Both at once. The cells that one adds to an access are not among those that the other keeps at nominal."""

        def kept(mine: float, others: float) -> float:
            return 1 - (1 - mine / other.access_width) * (1 - others / self.access_width)

        return Overhead(
            storage=self.storage * other.storage,
            energy=self.energy * other.energy,
            access_width=self.access_width * other.access_width,
            access_cycles=self.access_cycles + other.access_cycles,
            nominal_reads=kept(self.nominal_reads, other.nominal_reads),
            nominal_writes=kept(self.nominal_writes, other.nominal_writes),
            nominal_cells=kept(self.nominal_cells, other.nominal_cells),
            voltage_offset=self.voltage_offset + other.voltage_offset,
            voltage_spread=float(np.hypot(self.voltage_spread, other.voltage_spread)),
            source="; ".join(part for part in (self.source, other.source) if part),
        )


class Stage(IntEnum):
    """Where in the memory a protection acts. Those of a chain act in this order, whatever the order of their names."""

    CELLS = 0  # of the words as they are stored, before others join them: hardened bits
    WORDS = 1  # get check bits
    LINES = 2  # rows and columns, those of check bits too, have spares
    BANKS = 3  # have supplies of their own
    ARRAY = 4  # has another supply during an access
    ADDRESSES = 5  # of words are spread over banks
    READ = 6  # words are corrected as they leave


class Protection:
    """Does nothing; every protection overrides what it is about."""

    stage = Stage.CELLS

    @property
    def spec(self) -> str:
        """The text that `parse` makes this protection from."""
        return "none"

    @property
    def words_as_stored(self) -> bool:
        """True if a word read is the word stored with its faulty bits, and nothing else."""
        return type(self).correct is Protection.correct

    @property
    def needs_regions(self) -> bool:
        """True if it treats layers differently, and so has to be told where they lie."""
        return False

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

        >>> from sram.protection import parse
        >>> faults = WordFaults(np.array([7]), np.array([0, 1]), np.array([63], np.uint8), np.array([1], np.uint8))
        >>> stored = np.array([5], np.uint64)
        >>> int(parse("none").read(stored, faults)[0]) == 5 + 2**63, int(parse("secded72").read(stored, faults)[0])
        (True, 5)
        """
        stored = np.ascontiguousarray(stored, dtype=np.uint64)
        row = np.arange(len(faults.word)) if row is None else np.ascontiguousarray(row, dtype=np.int64)
        if data_bits > 64:
            raise InputError("protection", "data_bits", data_bits, "words of at most 64 bits")
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
        """Which of the weights `words` int8[n] are read wrong, rising, and as what: (weight int64[k], value int64[k]).

        weight int64[m, slots]: what memory word faults.word[row[i]] holds at one time, -1 where a slot holds no weight
        (its bits are 0). A row for each content that passes through a faulty word.
        """
        held = np.where(weight >= 0, words[weight], 0).astype(np.int64)
        seen = layout.unpack(self.read(layout.pack(held, data_bits), faults, row, data_bits), data_bits)
        wrong = (seen != held) & (weight >= 0)
        # A weight that is fetched again is read again: once is enough, and the last reading counts.
        unique, last = np.unique(weight[wrong][::-1], return_index=True)
        return unique, seen[wrong][::-1][last]


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

    @property
    def needs_regions(self) -> bool:
        return any(part.needs_regions for part in self.parts)

    def map(self, fault_map: FaultMap) -> FaultMap:
        return self.apply(fault_map)[0]

    def correct(
        self, stored: np.ndarray, seen: np.ndarray, faults: WordFaults, row: np.ndarray, data_bits: int
    ) -> None:
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
    ordered = tuple(sorted((p for p in parts if type(p) is not Protection), key=lambda p: (p.stage, p.spec)))
    if len({type(part) for part in ordered}) < len(ordered):
        raise InputError("protection", "chain", "+".join(p.spec for p in ordered), "each kind of protection once")
    return ordered[0] if len(ordered) == 1 else Chain(ordered) if ordered else Protection()
