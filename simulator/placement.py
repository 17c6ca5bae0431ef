"""Which SRAM cell holds each bit of each weight, from the schedule.

Weights are numbered layer after layer in network order and, within a layer, row-major as in the torch tensor
(out, in / groups, kh, kw), transposed convolutions (in, out / groups, kh, kw), x @ W (in, out). A weight that several
layers share has one number. Whoever fetches it in the same order (a step of a recurrent network) fetches it to the same
cells; in another order (an embedding that is also the output layer) it has a residency for each.

The *stream* is the order in which the schedule first fetches them: tile after tile (array/schedule.py), and in a tile
as the dataflow does (dataflow.py; folds of columns outside, of rows inside), taps in torch order (input channel, kernel
row, kernel column):

    os   C filters at a time: all taps, for each tap the C filters
    ws   C filters at a time, R taps at a time: rows of C weights, the last row of the fold first
    is   R taps at a time: all filters, for each filter its R taps
         a table that is looked up: row after row, so that a row has one address whichever sample reads it
    rs   pass after pass (rowstationary.py): all taps of its channels, for each tap the p x t filters of the pass

With rs this is the buffer through which filters reach the elements; no study asks for faults in their scratchpads.
It is packed word_bits // bits weights to a word; a layer starts a new word. What fits is loaded once (`resident`).
Otherwise (`streamed`) the memory is a ping-pong buffer: fill f is the f-th stretch of half the memory's words and
goes to half f % 2, so that a cell serves every second fill. A weight that the schedule fetches again comes back to the
same cell.

With several cores each has as many banks, the first core the first ones, and a stream of its own: of layers cut by
outputs its filters, of those cut by samples all of them, as the other cores (array/cores.py). What is not cut lies in
the first core. The memory that `place` is given has the banks of all cores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator import placement_kernels as kernels
from simulator.accelerator import Accelerator, Buffer
from simulator.array.cores import fitted, shares
from simulator.array.cycles import plan_of, with_all_weights
from simulator.array.dataflow import CODES
from simulator.array.memory import window_of
from simulator.array.schedule import Plan, RowStationary
from simulator.workload import Layer, Workload, stored_name
from sram import paper
from sram.errors import InputError
from sram.geometry import Geometry

SCHEDULES = ("streamed", "resident", "paper")
BIT_ORDERS = {
    "lsb_first": kernels.LSB_FIRST,
    "msb_first": kernels.MSB_FIRST,
    "interleaved": kernels.INTERLEAVED,
}


@dataclass(frozen=True)
class Tensor:
    """Weights `first` to `first + count` of the network are the elements from `offset` on of parameter `name`."""

    name: str
    offset: int
    first: int
    count: int


@dataclass(frozen=True, eq=False)
class Hits:
    """Stored bits in given cells: fault int64[h] (index of the cell), weight int64[h], bit uint8[h] (0: least)."""

    fault: np.ndarray
    weight: np.ndarray
    bit: np.ndarray


@dataclass(frozen=True, eq=False)
class Placement:
    """The map between stored bits and cells; made by `place`.

    `uses`: int64[uses, FIELDS], a row for each use of a tensor, core after core, in the order of fetching;
    `streams`: int64[cores, STREAM_FIELDS], of each core (placement_kernels). The first core has the first banks.
    `elements`: int32[weights], what each number in `uses` stands for; None: itself.
    `weights_per_cell`: of a layer, with `paper`.
    """

    geometry: Geometry
    schedule: str
    bits: int
    bit_order: str
    bank_interleave: int
    tensors: tuple[Tensor, ...]
    uses: np.ndarray
    streams: np.ndarray
    elements: np.ndarray | None = None
    weights_per_cell: int = kernels.PAPER_CELL_WEIGHTS

    @property
    def weights(self) -> int:
        """Stored weights of the network."""
        return sum(tensor.count for tensor in self.tensors)

    @property
    def weights_per_word(self) -> int:
        """Weights that share a memory word."""
        return self.geometry.word_bits // self.bits

    @property
    def stream_words(self) -> int:
        """Words that pass through the memories of all cores."""
        return int(self.streams[:, kernels.WORDS].sum())

    @property
    def residencies(self) -> int:
        """Fills of the memory in one inference, of the core that has most."""
        return int((-(-self.streams[:, kernels.WORDS] // self.streams[:, kernels.FILL])).max())

    @property
    def core_banks(self) -> int:
        """Banks of each core."""
        return self.geometry.banks // len(self.streams)

    @property
    def banks(self) -> int:
        """Banks from the first on that anything lies in."""
        if self.schedule == "paper" or self.residencies > 1 or self.bank_interleave:
            return self.geometry.banks
        used = -(-self.streams[:, kernels.WORDS] // self.geometry.words_per_bank)
        return int(np.where(used > 0, np.arange(len(used)) * self.core_banks + used, 0).max())

    @property
    def copied(self) -> bool:
        """Whether a layer is cut by samples: its weights lie in several cores, each of which reads its own."""
        parts = self.uses[:, [kernels.LAYER, kernels.N_FIRST]]
        return len(np.unique(parts, axis=0)) < len(parts)

    def stretches(self) -> list[tuple[int, int, int]]:
        """(layer, first word, words) of each use of a tensor where every one has words of its own."""
        core = np.repeat(np.arange(len(self.streams)), self.streams[:, kernels.END] - self.streams[:, kernels.FIRST])
        first = self.uses[:, kernels.WORD] + core * self.core_banks * self.geometry.words_per_bank
        words = -(-self.uses[:, kernels.COUNT] // self.weights_per_word)
        return list(zip(self.uses[:, kernels.LAYER].tolist(), first.tolist(), words.tolist(), strict=True))

    def hits(self, cell: np.ndarray) -> Hits:
        """Every stored bit that lies in one of these cells (int64[n]), ordered by cell as given.

        With cells sorted by critical voltage, the hits at a voltage are a prefix. Work grows with cells x residencies.
        """
        return Hits(*self._hits(cell, np.arange(len(cell))))

    def faults(self, cell: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same for faulty cells of kind uint8[n]: weight int64[h], bit uint8[h], kind uint8[h], as injected."""
        kind, weight, bit = self._hits(cell, np.ascontiguousarray(kind, np.uint8))
        return weight, bit, kind

    def _hits(self, cell: np.ndarray, tag: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cell = np.ascontiguousarray(cell, dtype=np.int64)
        outside = cell[(cell < 0) | (cell >= self.geometry.cells)]
        if outside.size:
            raise InputError("cells", "cell", int(outside[0]), f"0 to {self.geometry.cells - 1}")
        if self.schedule == "paper":
            first = np.array([tensor.first for tensor in self.tensors], np.int64)
            count = np.array([tensor.count for tensor in self.tensors], np.int64)
            return kernels.paper_hits(first, count, cell, tag, self.bits, self.weights_per_cell)
        word, bit = self.geometry.word_bit(cell)
        tags, number, bits = kernels.stream_hits(
            self.uses,
            np.ascontiguousarray(self.uses[:, kernels.WORD]),
            self.streams,
            word,
            bit,
            tag,
            self.weights_per_word,
            self.bits,
            BIT_ORDERS[self.bit_order],
            self.core_banks,
            self.geometry.words_per_bank,
            self.bank_interleave,
        )
        return tags, number if self.elements is None else self.elements[number].astype(np.int64), bits

    def contents(self, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All that passes through these memory words (int64[w]): what a protection of whole words has to see.

        Returns row int64[m], the index into `word`, and weight int64[m, weights_per_word], -1 where a slot is empty;
        ordered by word as given, then by time. The `paper` schedule has no words: InputError.
        """
        if self.schedule == "paper":
            raise InputError("placement", "schedule", "paper", "streamed or resident, where words are read as a whole")
        word = np.ascontiguousarray(word, dtype=np.int64)
        row, number = kernels.word_contents(
            self.uses,
            np.ascontiguousarray(self.uses[:, kernels.WORD]),
            self.streams,
            word,
            self.weights_per_word,
            self.core_banks,
            self.geometry.words_per_bank,
            self.bank_interleave,
        )
        if self.elements is None:
            return row, number
        return row, np.where(number < 0, -1, self.elements[number]).astype(np.int64)

    def locate(self, weight: int, bit: int) -> np.ndarray:
        """The cell that holds this bit in each residency of the weight, core after core, by time; int64[uses of it]."""
        if not 0 <= weight < self.weights:
            raise InputError("placement", "weight", weight, f"0 to {self.weights - 1}")
        if not 0 <= bit < self.bits:
            raise InputError("placement", "bit", bit, f"0 to {self.bits - 1}")
        if self.schedule == "paper":
            index = next(weight - t.first for t in self.tensors if t.first <= weight < t.first + t.count)
            row = index // (kernels.PAPER_ROW_BYTES * self.weights_per_cell) % kernels.PAPER_ROWS
            return np.array([row * kernels.PAPER_COLUMNS + 8 * (index % 16) + bit], np.int64)
        cells, cut = [], (self.core_banks, self.geometry.words_per_bank, self.bank_interleave)
        number = weight if self.elements is None else int(np.flatnonzero(self.elements == weight)[0])
        for core, stream in enumerate(self.streams):
            for use in self.uses[stream[kernels.FIRST] : stream[kernels.END]]:
                index = int(number - use[kernels.WEIGHT])
                if not 0 <= index < use[kernels.GROUPS] * use[kernels.K] * use[kernels.N_ALL]:
                    continue
                position = int(kernels.position_of(use, index))
                if position < 0:
                    continue
                stream_word, slot = divmod(position, self.weights_per_word)
                address = int(use[kernels.WORD] + stream_word) % int(stream[kernels.PERIOD])
                word = core * self.core_banks * self.geometry.words_per_bank + int(kernels.physical(address, *cut))
                place = kernels.bit_in_word(slot, bit, self.bits, self.weights_per_word, BIT_ORDERS[self.bit_order])
                cells.append(self.geometry.cell(word, int(place)))
        return np.array(cells, np.int64)


class Stream(NamedTuple):
    """What passes through the memory of a core: a row of `uses` for each use, and how many words it takes."""

    rows: list[tuple[int, ...]]
    words: int


def place(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    schedule: str = "streamed",
    bits: int | None = None,
    bit_order: str = "lsb_first",
    bank_interleave: int = 0,
    plan: Plan | None = None,
) -> Placement:
    """Where the weights of `workload` lie while it runs on `accelerator`, whose weight memory is `geometry`.

    In the order of `plan`, or of the one that array.cycles.simulate runs by.

    `bits`: of a weight, if not the accelerator's. `bit_order` within a word: a weight's bits side by side, least or
    most significant first, or bits of one significance side by side (interleaved). `bank_interleave`: consecutive words
    a bank takes before the next bank's turn; 0 fills bank by bank. `paper`: the mapping of the NeuralFuse reference
    code, one array of 8192 x 128 cells (bit order and interleaving do not apply), in which a cell holds a bit of 16
    weights of a layer; a `Placement` with `weights_per_cell` replaced by 1: of one, and one more for each 131,072
    weights of the layer that fill the array again.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import linear
    >>> net = Workload("two", (linear("a", 1, 8, 4), linear("b", 1, 4, 2)))
    >>> p = place(net, accelerator("paper"), Geometry(banks=1, rows=2, columns=64, word_bits=64))
    >>> p.weights, p.stream_words, p.residencies  # 5 words pass through halves of one word
    (40, 5, 5)
    >>> p.locate(weight=0, bit=0), p.locate(weight=39, bit=7)  # word 0; the last byte of word 4, in half 0
    (array([0]), array([63]))
    >>> p.hits(np.array([63])).weight  # output-stationary: all filters of tap 1, then of tap 3, ...
    array([25, 29, 39])
    """
    bits = accelerator.weight_bits if bits is None else bits
    slots = slots_of(geometry, bits)
    if schedule == "paper" and accelerator.cores > 1:
        raise InputError(accelerator.name, "cores", accelerator.cores, "1 with schedule = paper, which has one array")
    if geometry.banks % accelerator.cores:
        allowed = f"a multiple of {accelerator.cores}, the cores of {accelerator.name}"
        raise InputError("placement", "banks", geometry.banks, allowed)
    tensors, weight = [], 0
    for name, offset, count in workload.tensors():
        tensors.append(Tensor(name, offset, weight, count))
        weight += count
    if schedule == "resident":
        accelerator = with_all_weights(workload, accelerator)
    streams = _weight_streams(workload, accelerator, plan or plan_of(workload, accelerator), tensors, slots)
    return placed_in(tensors, streams, geometry, schedule, bits, bit_order, bank_interleave, accelerator.weight_buffer)


def _weight_streams(
    workload: Workload, accelerator: Accelerator, plan: Plan, tensors: Sequence[Tensor], slots: int
) -> list[Stream]:
    """What passes through the weight buffer of each core."""
    rows: list[list[tuple[int, ...]]] = [[] for _ in range(accelerator.cores)]
    words = [0] * accelerator.cores
    placed: set[tuple[int, ...]] = set()
    for i, layer in enumerate(workload.layers):
        if not layer.weights:
            continue
        for core, first, part in shares(workload, layer, accelerator.cores, plan):
            which = (first_weight(tensors, layer), part.weights)
            order = (*_order(layer, part, accelerator, plan), first, layer.n if layer.on_array else part.weights)
            once = (core, *which, first) if accelerator.weights == "resident" else (core, *which, *order)
            if once in placed:
                continue
            placed.add(once)
            rows[core].append((words[core], *which, *order, i))
            words[core] += -(-part.weights // slots)
    return [Stream(*stream) for stream in zip(rows, words, strict=True)]


def _order(layer: Layer, part: Layer, accelerator: Accelerator, plan: Plan) -> tuple[int, ...]:
    """The order in which a core fetches its part of a layer's weights: fields ORDER to N_OUTSIDE of `uses`."""
    if not layer.on_array:
        return row_major(part.weights)
    # torch keeps the input channels of a transposed convolution outermost
    sizes = (part.groups, part.k, part.n, layer.transposed or layer.k_major)
    by = fitted(plan.rows_of(layer) if accelerator.dataflow == "rs" else plan.of(layer), part)
    if isinstance(by, RowStationary):
        taps = min(layer.k, by.q * by.r * window_of(layer)[2] * window_of(layer)[3])
        return (kernels.OS, *sizes, 1, by.p * by.t, taps, by.m, True)
    fold = (accelerator.array_rows, accelerator.array_cols)
    return (CODES[by.dataflow], *sizes, *fold, by.k, by.n, by.order.index("n") < by.order.index("k"))


def row_major(count: int) -> tuple[int, ...]:
    """The order of what is fetched as it is numbered: fields ORDER to N_OUTSIDE of `uses`."""
    return (kernels.PLAIN, 1, 1, count, 0, 1, 1, 1, 1, 0)


def resident_words(workload: Workload, accelerator: Accelerator, slots: int) -> int:
    """Words of `slots` weights that the memory of each core has where every weight has a cell of its own."""
    if accelerator.cores == 1 or not workload.layers:
        stored = {(stored_name(layer), layer.weight_offset, layer.weights) for layer in workload.layers}
        return sum(-(-count // slots) for _, _, count in stored)
    tensors = [Tensor(name, offset, 0, count) for name, offset, count in workload.tensors()]
    machine = with_all_weights(workload, accelerator)
    return max(
        stream.words for stream in _weight_streams(workload, machine, plan_of(workload, machine), tensors, slots)
    )


def first_weight(tensors: Sequence[Tensor], layer: Layer) -> int:
    """Number of a layer's first weight in the network."""
    name, at = stored_name(layer), layer.weight_offset
    tensor = next(t for t in tensors if t.name == name and t.offset <= at < t.offset + t.count)
    return tensor.first + at - tensor.offset


def slots_of(geometry: Geometry, bits: int) -> int:
    """How many numbers of so many bits a memory word holds; InputError where it holds none."""
    if not 1 <= bits <= geometry.word_bits:
        raise InputError("placement", "bits", bits, f"1 to {geometry.word_bits}, the bits of a word")
    return geometry.word_bits // bits


def placed_in(
    tensors: Sequence[Tensor], streams: Sequence[Stream], geometry: Geometry, schedule: str, bits: int, bit_order: str,
    bank_interleave: int, buffer: Buffer,
) -> Placement:  # fmt: skip
    """Check what the user chose, and cut the stream of each core into fills of the buffer that it passes."""
    if schedule not in SCHEDULES:
        raise InputError("placement", "schedule", schedule, ", ".join(SCHEDULES))
    if bit_order not in BIT_ORDERS:
        raise InputError("placement", "bit_order", bit_order, ", ".join(BIT_ORDERS))
    if bank_interleave and not (0 < bank_interleave and geometry.words_per_bank % bank_interleave == 0):
        raise InputError("placement", "bank_interleave", bank_interleave, f"a divisor of {geometry.words_per_bank}")
    if schedule == "paper":
        array = paper.GEOMETRY
        if (geometry.banks * geometry.rows, geometry.columns) != (array.rows, array.columns):
            allowed = f"{array.rows} rows x {array.columns} columns with schedule = paper"
            raise InputError("placement", "geometry", geometry, allowed)
        if bits > 8:
            raise InputError("placement", "bits", bits, "at most 8 with schedule = paper")
    ends, room = np.cumsum([len(stream.rows) for stream in streams]), geometry.words // len(streams)
    cut = [
        (end - len(stream.rows), end, stream.words, *_fills(stream.words, room, schedule, buffer.double))
        for end, stream in zip(ends, streams, strict=True)
    ]
    uses = np.array([row for stream in streams for row in stream.rows], np.int64).reshape(-1, kernels.FIELDS)
    found = (tuple(tensors), uses, np.array(cut, np.int64))
    return Placement(geometry, schedule, bits, bit_order, bank_interleave, *found)


def _fills(words: int, room: int, schedule: str, double: bool) -> tuple[int, int]:
    """(words loaded at a time, words of the stream after which addresses repeat) in a memory of `room` words."""
    if schedule == "paper" or words <= room:
        return max(words, 1), max(words, 1)
    if schedule == "resident":
        raise InputError("placement", "words of the memory", room, f"at least {words} with schedule = resident")
    fill = room // 2 if double else room
    if fill == 0:
        raise InputError("placement", "words of the memory", room, "at least 2, one for each half")
    return fill, 2 * fill if double else fill
