"""Which SRAM cell holds each bit of each weight, from the schedule.

Weights are numbered layer after layer in network order and, within a layer, row-major as in the torch tensor
(out, in / groups, kh, kw), transposed convolutions (in, out / groups, kh, kw), x @ W (in, out). A weight that several
layers share has one number and as many residencies as uses.

The *stream* is the order in which the schedule first fetches them: tile after tile (array/schedule.py), and in a tile
as the dataflow does (dataflow.py; folds of columns outside, of rows inside), taps in torch order (input channel, kernel
row, kernel column):

    os   C filters at a time: all taps, for each tap the C filters
    ws   C filters at a time, R taps at a time: rows of C weights, the last row of the fold first
    is   R taps at a time: all filters, for each filter its R taps
    rs   pass after pass (rowstationary.py): all taps of its channels, for each tap the p x t filters of the pass

With rs this is the buffer through which filters reach the elements; no study asks for faults in their scratchpads.
It is packed word_bits // bits weights to a word; a layer starts a new word. What fits is loaded once (`resident`).
Otherwise (`streamed`) the memory is a ping-pong buffer: fill f is the f-th stretch of half the memory's words and
goes to half f % 2, so that a cell serves every second fill. A weight that the schedule fetches again comes back to the
same cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from simulator import placement_kernels as kernels
from simulator.accelerator import Accelerator, with_resident_weights
from simulator.array.cycles import plan_of
from simulator.array.dataflow import CODES
from simulator.array.memory import handed_on, network_bytes, operands_of, outputs_of, window_of
from simulator.array.schedule import Plan
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

    `uses`: int64[layers, FIELDS], a row for each use of a tensor in the order of fetching (placement_kernels).
    `fill_words`: what is loaded at a time; `period_words`: after so many words of the stream the addresses repeat.
    """

    geometry: Geometry
    schedule: str
    bits: int
    bit_order: str
    bank_interleave: int
    tensors: tuple[Tensor, ...]
    uses: np.ndarray
    stream_words: int
    fill_words: int
    period_words: int

    @property
    def weights(self) -> int:
        """Stored weights of the network."""
        return sum(tensor.count for tensor in self.tensors)

    @property
    def weights_per_word(self) -> int:
        """Weights that share a memory word."""
        return self.geometry.word_bits // self.bits

    @property
    def residencies(self) -> int:
        """Fills of the memory in one inference."""
        return -(-self.stream_words // self.fill_words)

    @property
    def banks(self) -> int:
        """Banks from the first on that anything lies in."""
        if self.schedule == "paper" or self.residencies > 1 or self.bank_interleave:
            return self.geometry.banks
        return -(-self.stream_words // self.geometry.words_per_bank)

    def stretches(self) -> list[tuple[int, int]]:
        """(first word, words) of each use of a tensor in the stream, in the order of fetching."""
        words = -(-self.uses[:, kernels.COUNT] // self.weights_per_word)
        return list(zip(self.uses[:, kernels.WORD].tolist(), words.tolist(), strict=True))

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
            return kernels.paper_hits(first, count, cell, tag, self.bits)
        word, bit = self.geometry.word_bit(cell)
        return kernels.stream_hits(
            self.uses,
            np.ascontiguousarray(self.uses[:, kernels.WORD]),
            word,
            bit,
            tag,
            self.weights_per_word,
            self.bits,
            BIT_ORDERS[self.bit_order],
            self.geometry.banks,
            self.geometry.words_per_bank,
            self.bank_interleave,
            self.period_words,
            self.stream_words,
        )

    def contents(self, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All that passes through these memory words (int64[w]): what a protection of whole words has to see.

        Returns row int64[m], the index into `word`, and weight int64[m, weights_per_word], -1 where a slot is empty;
        ordered by word as given, then by time. The `paper` schedule has no words: InputError.
        """
        if self.schedule == "paper":
            raise InputError("placement", "schedule", "paper", "streamed or resident, where words are read as a whole")
        word = np.ascontiguousarray(word, dtype=np.int64)
        return kernels.word_contents(
            self.uses,
            np.ascontiguousarray(self.uses[:, kernels.WORD]),
            word,
            self.weights_per_word,
            self.geometry.banks,
            self.geometry.words_per_bank,
            self.bank_interleave,
            self.period_words,
            self.stream_words,
        )

    def locate(self, weight: int, bit: int) -> np.ndarray:
        """The cell that holds this bit in each residency of the weight, in order of time; int64[uses of the weight]."""
        if not 0 <= weight < self.weights:
            raise InputError("placement", "weight", weight, f"0 to {self.weights - 1}")
        if not 0 <= bit < self.bits:
            raise InputError("placement", "bit", bit, f"0 to {self.bits - 1}")
        if self.schedule == "paper":
            index = next(weight - t.first for t in self.tensors if t.first <= weight < t.first + t.count)
            row = index // kernels.PAPER_ROW_WEIGHTS % kernels.PAPER_ROWS
            return np.array([row * kernels.PAPER_COLUMNS + 8 * (index % 16) + bit], np.int64)
        cells = []
        for use in self.uses:
            index = int(weight - use[kernels.WEIGHT])
            if not 0 <= index < use[kernels.COUNT]:
                continue
            position = int(kernels.position_of(use, index))
            stream_word, slot = divmod(position, self.weights_per_word)
            address = int(use[kernels.WORD] + stream_word) % self.period_words
            word = kernels.physical(address, self.geometry.banks, self.geometry.words_per_bank, self.bank_interleave)
            place = kernels.bit_in_word(slot, bit, self.bits, self.weights_per_word, BIT_ORDERS[self.bit_order])
            cells.append(self.geometry.cell(int(word), int(place)))
        return np.array(cells, np.int64)


class _Stream(NamedTuple):
    """What passes through the memory: its tensors, a row of `uses` for each use, and how many words it takes."""

    tensors: list[Tensor]
    rows: list[tuple[int, ...]]
    words: int
    double: bool  # the buffer that it passes through


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
    code, one array of 8192 x 128 cells (bit order and interleaving do not apply).

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
    if accelerator.cores > 1:
        raise InputError(accelerator.name, "cores", accelerator.cores, "1 where the place of each weight is asked for")
    bits = accelerator.weight_bits if bits is None else bits
    slots = _slots(geometry, bits)
    tensors, weight = [], 0
    for name, offset, count in workload.tensors():
        tensors.append(Tensor(name, offset, weight, count))
        weight += count
    if schedule == "resident":
        accelerator = with_resident_weights(accelerator, network_bytes(workload, accelerator))
    schedules = plan or plan_of(workload, accelerator)
    rows: list[tuple[int, ...]] = []
    word = 0
    for layer in workload.layers:
        if not layer.weights:
            continue
        # torch keeps the input channels of a transposed convolution outermost
        k_major = layer.transposed or layer.k_major
        sizes = (layer.groups, layer.k, layer.n, k_major)
        if accelerator.dataflow == "rs":
            pass_of = schedules.rows_of(layer)
            taps = min(layer.k, pass_of.q * pass_of.r * window_of(layer)[2] * window_of(layer)[3])
            order = (kernels.OS, *sizes, 1, pass_of.p * pass_of.t, taps, pass_of.m, True)
        else:
            by = schedules.of(layer)
            fold = (accelerator.array_rows, accelerator.array_cols)
            order = (CODES[by.dataflow], *sizes, *fold, by.k, by.n, by.order.index("n") < by.order.index("k"))
        rows.append((word, first_weight(tensors, layer), layer.weights, *order))
        word += -(-layer.weights // slots)
    stream = _Stream(tensors, rows, word, accelerator.weight_buffer.double)
    return _placed(stream, geometry, schedule, bits, bit_order, bank_interleave)


def first_weight(tensors: Sequence[Tensor], layer: Layer) -> int:
    """Number of a layer's first weight in the network."""
    name, at = stored_name(layer), layer.weight_offset
    tensor = next(t for t in tensors if t.name == name and t.offset <= at < t.offset + t.count)
    return tensor.first + at - tensor.offset


def place_activations(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    schedule: str = "streamed",
    bits: int | None = None,
    bit_order: str = "lsb_first",
    bank_interleave: int = 0,
    buffer: Literal["ifmap_buffer", "ofmap_buffer"] = "ifmap_buffer",
) -> Placement:
    """The same for activations in the buffer that they pass: "weights" are elements of one sample.

    The output buffer has the outputs of the layers as they are made, the input buffer those and the network's input as
    they are read. Tensors carry the name of their layer, or "input", which is the first; elements are in torch order
    (channel, row, column) and are written in that order. What a vector layer takes as it leaves the layer before it
    (memory.py) is not stored. `bits`: if not the accelerator's ofmap_bits.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net = Workload("n", (conv("a", 4, 4, 1, 2, 3), conv("b", 2, 2, 2, 1, 2, sources=(0,))))
    >>> p = place_activations(net, accelerator("paper"), Geometry(banks=1))
    >>> [(t.name, t.first, t.count) for t in p.tensors]
    [('input', 0, 16), ('a', 16, 8), ('b', 24, 1)]
    """
    bits = accelerator.ofmap_bits if bits is None else bits
    stored = zip(workload.layers, handed_on(workload), strict=True)
    made = [(layer.name, outputs_of(layer)) for layer, passing in stored if not passing and outputs_of(layer)]
    given = [("input", _input_elements(workload))] if buffer == "ifmap_buffer" else []
    stream = _written_in_order([*given, *made], _slots(geometry, bits), getattr(accelerator, buffer).double)
    return _placed(stream, geometry, schedule, bits, bit_order, bank_interleave)


def taps_between_spills(workload: Workload, accelerator: Accelerator, plan: Plan | None = None) -> list[int]:
    """Of each layer on the array, after how many taps its partial sums leave for the output buffer and come back; all
    its taps where they never do.

    Weight- and input-stationary arrays hold as many taps as they have rows; an output-stationary one adds up all taps
    of a tile.

    >>> from dataclasses import replace
    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net, machine = Workload("n", (conv("a", 4, 4, 8, 2, 3),)), accelerator("paper")
    >>> taps_between_spills(net, machine), taps_between_spills(net, replace(machine, dataflow="ws"))
    ([72], [32])
    """
    schedules = plan or plan_of(workload, accelerator)
    layers = [(layer, schedules.of(layer)) for layer in workload.array_layers]
    return [min(layer.k, by.k if by.dataflow == "os" else accelerator.array_rows) for layer, by in layers]


def place_partial_sums(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    schedule: str = "streamed",
    bits: int | None = None,
    bit_order: str = "lsb_first",
    bank_interleave: int = 0,
    plan: Plan | None = None,
) -> Placement:
    """The same for the partial sums that wait in the output buffer: "weights" are the sums of one sample.

    Of the layers whose sums leave the array before their last tap (`taps_between_spills`), one word for each output in
    torch order (channel, row, column): a sum that leaves again comes back to its cell. `bits`: if not the
    accelerator's accumulator_bits.

    >>> from dataclasses import replace
    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net, machine = Workload("n", (conv("a", 4, 4, 8, 2, 3),)), replace(accelerator("paper"), dataflow="ws")
    >>> p = place_partial_sums(net, machine, Geometry(banks=1))
    >>> [(t.name, t.count) for t in p.tensors], p.stream_words
    ([('a', 8)], 4)
    """
    bits = accelerator.accumulator_bits if bits is None else bits
    spilled = zip(workload.array_layers, taps_between_spills(workload, accelerator, plan), strict=True)
    made = [(layer.name, outputs_of(layer)) for layer, taps in spilled if taps < layer.k]
    stream = _written_in_order(made, _slots(geometry, bits), accelerator.ofmap_buffer.double)
    return _placed(stream, geometry, schedule, bits, bit_order, bank_interleave)


def _written_in_order(made: Sequence[tuple[str, int]], slots: int, double: bool) -> _Stream:
    """Tensors (name, elements) one after the other, each from a new word on."""
    rows: list[tuple[int, ...]] = []
    tensors, word, element = [], 0, 0
    for name, count in made:
        tensors.append(Tensor(name, 0, element, count))
        rows.append((word, element, count, kernels.PLAIN, 1, 1, 1, 0, 1, 1, 1, 1, 0))
        word += -(-count // slots)
        element += count
    return _Stream(tensors, rows, word, double)


def _input_elements(workload: Workload) -> int:
    """Elements of one sample of the network's input, by the layer that reads most of it."""
    read = (operand for layer in workload.layers for operand in operands_of(layer))
    return max(elements for sources, elements in read if sources in ((), (-1,)))


def _slots(geometry: Geometry, bits: int) -> int:
    if not 1 <= bits <= geometry.word_bits:
        raise InputError("placement", "bits", bits, f"1 to {geometry.word_bits}, the bits of a word")
    return geometry.word_bits // bits


def _placed(
    stream: _Stream, geometry: Geometry, schedule: str, bits: int, bit_order: str, bank_interleave: int
) -> Placement:
    """Check what the user chose, and cut the stream into fills."""
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
    fill, period = _fills(stream, geometry, schedule)
    tensors, uses = tuple(stream.tensors), np.array(stream.rows, np.int64).reshape(-1, kernels.FIELDS)
    return Placement(geometry, schedule, bits, bit_order, bank_interleave, tensors, uses, stream.words, fill, period)


def _fills(stream: _Stream, geometry: Geometry, schedule: str) -> tuple[int, int]:
    """(words loaded at a time, words of the stream after which addresses repeat)."""
    if schedule == "paper" or stream.words <= geometry.words:
        whole = max(stream.words, 1)
        return whole, whole
    if schedule == "resident":
        allowed = f"at least {stream.words} with schedule = resident"
        raise InputError("placement", "words of the memory", geometry.words, allowed)
    fill = geometry.words // 2 if stream.double else geometry.words
    if fill == 0:
        raise InputError("placement", "words of the memory", geometry.words, "at least 2, one for each half")
    return fill, 2 * fill if stream.double else fill
