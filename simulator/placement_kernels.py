"""Where a stored bit lies: stream position <-> weight, address <-> word, in plain integers.

A tensor (one layer's weights) is a row of `tensors`, int64[layers, FIELDS]:
first word in the stream, first weight, weights, order, groups, k, n, k_major, fold rows, fold columns, taps and filters
of a tile, whether the loop over tiles of filters is outside that of taps, the first of these n, all n of the tensor,
number of the layer.

Each core has a memory and a stream of its own, a row of `streams`, int64[cores, STREAM_FIELDS]: its rows of `tensors`,
from the first to before the last; words; words loaded at a time; words after which addresses repeat.
"""

import numpy as np

from sram import paper
from sram.jit import jit, jit_inline

WORD, WEIGHT, COUNT, ORDER, GROUPS, K, N, K_MAJOR, ROWS, COLS, K_TILE, N_TILE, N_OUTSIDE, N_FIRST, N_ALL, LAYER = range(
    16
)
FIELDS = 16
FIRST, END, WORDS, FILL, PERIOD = range(5)
STREAM_FIELDS = 5
OS, WS, IS, PLAIN = 0, 1, 2, 3  # the first three as in dataflow_kernels
LSB_FIRST, MSB_FIRST, INTERLEAVED = 0, 1, 2
PAPER_ROWS, PAPER_COLUMNS = paper.GEOMETRY.rows, paper.GEOMETRY.columns
PAPER_ROW_BYTES = PAPER_COLUMNS // 8
PAPER_CELL_WEIGHTS = 16  # of a layer, that the paper's code lays over one byte of a row


@jit_inline
def parted(whole, part):
    """divmod of numbers from 0 to 2^32, which a processor divides several times faster than any others."""
    times = np.int64(np.uint32(whole) // np.uint32(part))
    return times, whole - times * part


@jit_inline
def weight_at(tensor, position):
    """The weight (within its tensor) that is the `position`-th to be fetched."""
    order = tensor[ORDER]
    if order == PLAIN:
        return position
    k_all, n_all, rows, cols = tensor[K], tensor[N], tensor[ROWS], tensor[COLS]
    group, rest = 0, position
    if tensor[GROUPS] > 1:
        group, rest = parted(position, k_all * n_all)
    k0, n0, taps, filters = 0, 0, k_all, n_all  # of the tile
    if tensor[N_TILE] < n_all or tensor[K_TILE] < k_all:
        if tensor[N_OUTSIDE]:
            tile, rest = parted(rest, k_all * tensor[N_TILE])
            n0 = tile * tensor[N_TILE]
            filters = min(tensor[N_TILE], n_all - n0)
        tile, rest = parted(rest, tensor[K_TILE] * filters)
        k0 = tile * tensor[K_TILE]
        taps = min(tensor[K_TILE], k_all - k0)
        if not tensor[N_OUTSIDE]:
            tile, rest = parted(rest, taps * tensor[N_TILE])
            n0 = tile * tensor[N_TILE]
            filters = min(tensor[N_TILE], n_all - n0)
    if order == IS:  # a fold streams u taps of every filter
        fold, rest = parted(rest, rows * filters)
        used = min(rows, taps - fold * rows)
        n, row = parted(rest, used)
        k = fold * rows + row
    else:
        column, rest = parted(rest, taps * cols)
        width = min(cols, filters - column * cols)
        line, j = parted(rest, width)
        n = column * cols + j
        k = line  # os: a line of v filters each cycle
        if order == WS:  # the last row of a fold enters first
            fold, _ = parted(line, rows)
            used = min(rows, taps - fold * rows)
            k = fold * rows + used - 1 - (line - fold * rows)
    k, n = k0 + k, n0 + n + tensor[N_FIRST]
    if tensor[K_MAJOR]:
        return (group * k_all + k) * tensor[N_ALL] + n
    return (group * tensor[N_ALL] + n) * k_all + k


@jit
def position_of(tensor, weight):
    """The inverse of weight_at; -1 for a weight of a filter that is not meant."""
    order = tensor[ORDER]
    if order == PLAIN:
        return weight
    k_all, n_all, rows, cols = tensor[K], tensor[N], tensor[ROWS], tensor[COLS]
    group, rest = divmod(weight, k_all * tensor[N_ALL])
    if tensor[K_MAJOR]:
        k, n = divmod(rest, tensor[N_ALL])
    else:
        n, k = divmod(rest, k_all)
    n -= tensor[N_FIRST]
    if not 0 <= n < n_all:
        return -1
    k0, n0 = k // tensor[K_TILE] * tensor[K_TILE], n // tensor[N_TILE] * tensor[N_TILE]
    taps, filters = min(tensor[K_TILE], k_all - k0), min(tensor[N_TILE], n_all - n0)
    before = group * k_all * n_all
    before += n0 * k_all + k0 * filters if tensor[N_OUTSIDE] else k0 * n_all + n0 * taps
    k, n = k - k0, n - n0
    fold = k // rows
    used = min(rows, taps - fold * rows)
    if order == IS:
        return before + fold * rows * filters + n * used + (k - fold * rows)
    column = n // cols
    width = min(cols, filters - column * cols)
    line = k
    if order == WS:
        line = fold * rows + used - 1 - (k - fold * rows)
    return before + column * taps * cols + line * width + (n - column * cols)


@jit
def physical(address, banks, words_per_bank, interleave):
    """Word of the memory behind an address: banks one after the other (0), or in turn every `interleave` words."""
    if interleave == 0:
        return address
    block = address // interleave
    return (block % banks) * words_per_bank + (block // banks) * interleave + address % interleave


@jit_inline
def address_of(word, banks, words_per_bank, interleave):
    """The inverse of `physical`."""
    if interleave == 0:
        return word
    bank, inner = divmod(word, words_per_bank)
    return ((inner // interleave) * banks + bank) * interleave + inner % interleave


@jit_inline
def core_and_address(streams, word, banks, words_per_bank, interleave):
    """(core whose banks a word of the chip lies in, address there)."""
    if streams.shape[0] == 1:
        return 0, address_of(word, banks, words_per_bank, interleave)
    core, inner = divmod(word, banks * words_per_bank)
    return core, address_of(inner, banks, words_per_bank, interleave)


@jit_inline
def slot_and_bit(bit, bits, slots, order):
    """(weight within the word, its bit) at bit `bit` of a word; slot -1 where the word is padding."""
    if bit >= bits * slots:
        return -1, 0
    if order == INTERLEAVED:
        return bit % slots, bit // slots
    if order == MSB_FIRST:
        return bit // bits, bits - 1 - bit % bits
    return bit // bits, bit % bits


@jit
def bit_in_word(slot, bit, bits, slots, order):
    """The inverse of `slot_and_bit`."""
    if order == INTERLEAVED:
        return bit * slots + slot
    if order == MSB_FIRST:
        return slot * bits + bits - 1 - bit
    return slot * bits + bit


@jit
def stream_hits(
    tensors,
    first_word,
    streams,
    word,
    bit,
    tag,
    slots,
    bits,
    bit_order,
    banks,
    words_per_bank,
    interleave,
):
    """(tag, weight, bit) of every stored bit in the cells (word[i], bit[i]), ordered by i, then by time.

    `banks`: of a core. tag[i], of any type, goes with every bit in cell i. Word w of a stream has address w % PERIOD.
    """
    n = word.shape[0]
    count = 0
    for i in range(n):
        core, address = core_and_address(streams, word[i], banks, words_per_bank, interleave)
        if address < min(streams[core, PERIOD], streams[core, WORDS]):
            count += (streams[core, WORDS] - address - 1) // streams[core, PERIOD] + 1
    tags = np.empty(count, tag.dtype)
    weight = np.empty(count, np.int64)
    weight_bit = np.empty(count, np.uint8)
    at = 0
    for i in range(n):
        slot, b = slot_and_bit(bit[i], bits, slots, bit_order)
        core, address = core_and_address(streams, word[i], banks, words_per_bank, interleave)
        if slot < 0 or address >= streams[core, PERIOD]:
            continue
        t, end = streams[core, FIRST], streams[core, END]  # the tensor of a word of the stream rises with the word
        for stream_word in range(address, streams[core, WORDS], streams[core, PERIOD]):
            while t + 1 < end and first_word[t + 1] <= stream_word:
                t += 1
            tensor = tensors[t]
            position = (stream_word - tensor[WORD]) * slots + slot
            if position < tensor[COUNT]:
                tags[at] = tag[i]
                weight[at] = tensor[WEIGHT] + weight_at(tensor, position)
                weight_bit[at] = b
                at += 1
    return tags[:at], weight[:at], weight_bit[:at]


@jit
def paper_hits(first_weight, count, cell, tag, bits, cell_weights):
    """(tag, weight, bit), ordered by i: the bits in cell[i] by the NeuralFuse reference code's mapping.

    Weight i of every layer lies in row (i // (16 cell_weights)) % 8192, byte i % 16. tag[i], of any type, goes with
    each bit.
    """
    row_weights = PAPER_ROW_BYTES * cell_weights
    n, layers = cell.shape[0], count.shape[0]
    total = 0  # counted first: arrays of just this size stay in the cache
    for i in range(n):
        first = cell[i] // PAPER_COLUMNS * row_weights + cell[i] % PAPER_COLUMNS // 8
        for layer in range(layers):
            for start in range(first, count[layer], row_weights * PAPER_ROWS):
                total += (min(start + row_weights, count[layer]) - start + 15) // 16
    tags = np.empty(total, tag.dtype)
    weight = np.empty(total, np.int64)
    weight_bit = np.empty(total, np.uint8)
    at = 0
    for i in range(n):
        row, column = divmod(cell[i], PAPER_COLUMNS)
        byte, b = divmod(column, 8)
        if b >= bits:
            continue
        for layer in range(layers):
            for start in range(row * row_weights + byte, count[layer], row_weights * PAPER_ROWS):
                end = at + (min(start + row_weights, count[layer]) - start + 15) // 16
                for j in range(at, end):
                    weight[j] = first_weight[layer] + start + 16 * (j - at)
                tags[at:end] = tag[i]
                weight_bit[at:end] = b
                at = end
    return tags[:at], weight[:at], weight_bit[:at]


@jit
def word_contents(tensors, first_word, streams, word, slots, banks, words_per_bank, interleave):
    """(row, weight[m, slots]): all that passes through the words word[i], ordered by i, then by time; -1: an empty
    slot."""
    n = word.shape[0]
    count = 0
    for i in range(n):
        core, address = core_and_address(streams, word[i], banks, words_per_bank, interleave)
        if address < min(streams[core, PERIOD], streams[core, WORDS]):
            count += (streams[core, WORDS] - address - 1) // streams[core, PERIOD] + 1
    row = np.empty(count, np.int64)
    weight = np.full((count, slots), -1, np.int64)
    at = 0
    for i in range(n):
        core, address = core_and_address(streams, word[i], banks, words_per_bank, interleave)
        if address >= streams[core, PERIOD]:
            continue
        first, end = streams[core, FIRST], streams[core, END]
        for stream_word in range(address, streams[core, WORDS], streams[core, PERIOD]):
            tensor = tensors[first + np.searchsorted(first_word[first:end], stream_word, side="right") - 1]
            row[at] = i
            for slot in range(slots):
                position = (stream_word - tensor[WORD]) * slots + slot
                if position < tensor[COUNT]:
                    weight[at, slot] = tensor[WEIGHT] + weight_at(tensor, position)
            at += 1
    return row, weight
