"""Which SRAM cell holds each bit of each weight, from the schedule.

Weights are numbered layer after layer in network order and, within a layer, row-major as in the torch tensor
(out, in / groups, kh, kw), transposed convolutions (in, out / groups, kh, kw). A weight that several layers share has
one number and as many residencies as uses.

The *stream* is the order in which the dataflow fetches them (dataflow.py; folds of columns outside, of rows inside),
taps in torch order (input channel, kernel row, kernel column):

    os   C filters at a time: all taps, for each tap the C filters
    ws   C filters at a time, R taps at a time: rows of C weights, the last row of the fold first
    is   R taps at a time: all filters, for each filter its R taps

It is packed word_bits // bits weights to a word; a layer starts a new word. What fits is loaded once (`resident`).
Otherwise (`streamed`) the memory is a ping-pong buffer: fill f is the f-th stretch of half the memory's words and
goes to half f % 2, so that a cell serves every second fill. A weight that the schedule fetches again (a tile larger
than the buffer) comes back to the same cell.
"""

from dataclasses import dataclass

import numpy as np

from sram.errors import InputError
from sram.geometry import Geometry

from . import placement_kernels as kernels
from .accelerator import Accelerator
from .cycles import dataflow_codes
from .workload import Workload

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

    @property
    def weights(self) -> int:
        return sum(tensor.count for tensor in self.tensors)

    @property
    def word_bits_per_weight(self) -> int:
        return self.bits

    @property
    def weights_per_word(self) -> int:
        return self.geometry.word_bits // self.bits

    @property
    def residencies(self) -> int:
        """Fills that the memory sees in one inference."""
        return 1 if self.schedule == "paper" else -(-self.stream_words // self.fill_words)

    def hits(self, cell: np.ndarray) -> Hits:
        """Every stored bit that lies in one of these cells (int64[n]), ordered by cell as given.

        With cells sorted by critical voltage, the hits at a voltage are a prefix. Work grows with cells x residencies.
        """
        cell = np.ascontiguousarray(cell, dtype=np.int64)
        if cell.size and not (0 <= cell.min() and cell.max() < self.geometry.cells):
            raise InputError("cells", "cell", int(cell.max()), f"0 to {self.geometry.cells - 1}")
        if self.schedule == "paper":
            first = np.array([tensor.first for tensor in self.tensors], np.int64)
            count = np.array([tensor.count for tensor in self.tensors], np.int64)
            return Hits(*kernels.paper_hits(first, count, cell, self.bits))
        word, bit = self.geometry.word_bit(cell)
        return Hits(
            *kernels.stream_hits(
                self.uses,
                np.ascontiguousarray(self.uses[:, kernels.WORD]),
                word,
                bit,
                self.weights_per_word,
                self.bits,
                BIT_ORDERS[self.bit_order],
                self.geometry.banks,
                self.geometry.words_per_bank,
                self.bank_interleave,
                self.fill_words,
                self.stream_words,
            )
        )

    def locate(self, weight: int, bit: int) -> np.ndarray:
        """The cell that holds this bit in each residency of the weight, in order of time; int64[uses of the weight]."""
        if not 0 <= weight < self.weights:
            raise InputError("placement", "weight", weight, f"0 to {self.weights - 1}")
        if not 0 <= bit < self.bits:
            raise InputError("placement", "bit", bit, f"0 to {self.bits - 1}")
        if self.schedule == "paper":
            index = next(weight - t.first for t in self.tensors if t.first <= weight < t.first + t.count)
            return np.array([index // 256 % 8192 * 128 + 8 * (index % 16) + bit], np.int64)
        cells = []
        for use in self.uses:
            index = int(weight - use[kernels.WEIGHT])
            if not 0 <= index < use[kernels.COUNT]:
                continue
            position = int(kernels.position_of(use, index))
            stream_word, slot = divmod(position, self.weights_per_word)
            address = int(use[kernels.WORD] + stream_word) % (2 * self.fill_words)
            word = kernels.physical(address, self.geometry.banks, self.geometry.words_per_bank, self.bank_interleave)
            place = kernels.bit_in_word(slot, bit, self.bits, self.weights_per_word, BIT_ORDERS[self.bit_order])
            cells.append(self.geometry.cell(int(word), int(place)))
        return np.array(cells, np.int64)


def place(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    schedule: str = "streamed",
    bits: int | None = None,
    bit_order: str = "lsb_first",
    bank_interleave: int = 0,
) -> Placement:
    """Where the weights of `workload` lie while it runs on `accelerator`, whose weight memory is `geometry`.

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
    bits = accelerator.weight_bits if bits is None else bits
    if schedule not in SCHEDULES:
        raise InputError("placement", "schedule", schedule, ", ".join(SCHEDULES))
    if bit_order not in BIT_ORDERS:
        raise InputError("placement", "bit_order", bit_order, ", ".join(BIT_ORDERS))
    if not 1 <= bits <= geometry.word_bits:
        raise InputError("placement", "bits", bits, f"1 to {geometry.word_bits}, the bits of a word")
    if bank_interleave and not (0 < bank_interleave and geometry.words_per_bank % bank_interleave == 0):
        raise InputError("placement", "bank_interleave", bank_interleave, f"a divisor of {geometry.words_per_bank}")
    if schedule == "paper" and (geometry.banks * geometry.rows, geometry.columns) != (8192, 128):
        raise InputError("placement", "geometry", geometry, "8192 rows x 128 columns with schedule = paper")
    if schedule == "paper" and bits > 8:
        raise InputError("placement", "bits", bits, "at most 8 with schedule = paper")
    tensors, uses, stream_words = _stream(workload, accelerator, geometry.word_bits // bits)
    fits = stream_words <= geometry.words
    if schedule == "resident" and not fits:
        raise InputError(
            "placement",
            "geometry",
            f"{geometry.words} words",
            f"at least {stream_words} words with schedule = resident",
        )
    if not fits and geometry.words < 2 and schedule == "streamed":
        raise InputError("placement", "geometry", f"{geometry.words} words", "at least 2 words, one for each half")
    # "fits" as one fill: the two halves are then never used again
    fill_words = max(stream_words, 1) if fits else max(geometry.words // 2, 1)
    return Placement(geometry, schedule, bits, bit_order, bank_interleave, tensors, uses, stream_words, fill_words)


def _stream(workload: Workload, accelerator: Accelerator, slots: int) -> tuple[tuple[Tensor, ...], np.ndarray, int]:
    """The stored tensors, a row of fields for each use, and the words that the stream takes."""
    tensors: dict[tuple[str | None, int], Tensor] = {}
    rows, word, weight = [], 0, 0
    for layer, code in zip(workload.layers, dataflow_codes(workload, accelerator), strict=True):
        if not layer.weights:
            continue
        key = (layer.weight_name, layer.weight_offset)
        if key not in tensors:
            tensors[key] = Tensor(layer.weight_name or layer.name, layer.weight_offset, weight, layer.weights)
            weight += layer.weights
        rows.append(
            (
                word,
                tensors[key].first,
                layer.weights,
                code,
                layer.groups,
                layer.k,
                layer.n,
                layer.transposed,  # torch keeps input channels outermost there
                accelerator.array_rows,
                accelerator.array_cols,
            )
        )
        word += -(-layer.weights // slots)
    return tuple(tensors.values()), np.array(rows, np.int64).reshape(-1, kernels.FIELDS), word
