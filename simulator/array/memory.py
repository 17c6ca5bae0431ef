"""What the buffers keep, what DRAM moves, and when the array waits for it, without tiles (those: schedule.py).

**Schedule.** Folds run as in dataflow.py: products (groups) outside, then columns of folds, then rows. A batch is
more rows of the same product, so that weights are shared. Taps are in torch order (input channel, kernel row, kernel
column).

**Reuse.** Buffers are scratchpads: the schedule decides what stays. An operand is swept again and again; each tier of
room lowers what a sweep brings from DRAM, and room between two tiers pins a part of the upper one:

    ifmap    os      one tile of output pixels (im2col reuse); the rows under the kernel (halo reuse); everything
             ws      the rows under the kernel, of the channels of one slice of taps; everything
             is      one tile of pixels and taps; the rows under the kernel
    filters  os      one column of folds' filters, used by all its folds
             ws      nothing: each is loaded once
             is      everything
    psums    ws, is  one column of folds' partial sums; the rest is written to DRAM and read back for each slice of taps

So DRAM reads are at least the elements touched, equal to them when everything fits, and never rise with capacity.
Room is half of a double buffer; its other half is being filled.

**Between layers.** A vector layer takes its input as it leaves the layer before it, if nobody else reads that: it
passes no buffer. With `keep_on_chip` an output stays in the output buffer if all tensors alive at any time until its
last use fit half of it together. Everything else, and what leaves the network, is written to DRAM and read back. Each
layer starts with empty operand buffers.

**Time.** One DRAM channel of `dram_bytes_per_cycle` serves all operands in the order of their use, each transfer
`dram_latency_cycles` later. Operands are fetched in chunks of the stream, at most 16 transfers and at most a buffer
half ahead; with a single buffer a chunk's fetch begins when the one before it is used up. Results are written behind,
in order. When a chunk is late the whole array stands still. Every step only takes maxima and sums, in an order that
depends on neither bandwidth nor capacity, so less of either never makes a layer faster.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import memory_kernels as kernels
from simulator.workload import Layer, Workload, stored_name


@lru_cache(maxsize=4096)
def touched(window: tuple[int, ...], tile: int) -> tuple[int, int, int, int]:
    """(valid, pixels, tiled, largest) of one channel of one sample; `window` as made by `window_of`.

    Taps inside the image over all output pixels; input pixels touched; the sum and the largest of what tiles of `tile`
    consecutive output pixels touch.

    >>> touched((4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 4, 4), 4)  # 3x3 on 4x4, padding 1, tiles of one output row
    (100, 16, 40, 12)
    """
    valid, pixels, tiled, largest = kernels.touched(*window, tile)  # type: ignore[call-arg]
    return valid, pixels, tiled, largest


def window_of(layer: Layer) -> tuple[int, ...]:
    """How output pixels look at the input: in_h, in_w, kernel, stride, padding, dilation, out_h, out_w.

    In scatter form (transposed convolution) and in matrix products every row looks at its own pixel.
    """
    if layer.kind == "conv" and not layer.transposed:
        l = layer
        return (
            *(l.in_h, l.in_w, l.kernel_h, l.kernel_w, l.stride_h, l.stride_w),
            *(l.padding_top, l.padding_left, l.dilation_h, l.dilation_w, l.out_h, l.out_w),
        )
    return (layer.m, 1, 1, 1, 1, 1, 0, 0, 1, 1, layer.m, 1)


def rows_under(window: tuple[int, ...], tile: int) -> int:
    """Pixels of the input rows that `tile` consecutive output pixels can look at.

    >>> rows_under((4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 4, 4), 4)  # up to two output rows: four input rows
    16
    """
    in_h, in_w, kh, _, sh, _, _, _, dh, _, _, ow = window
    return min(in_h, (1 + -(-(tile - 1) // ow) - 1) * sh + (kh - 1) * dh + 1) * in_w


def outputs_of(layer: Layer) -> int:
    """Elements that one sample of a layer hands on."""
    return layer.ofmap_elements if layer.on_array else layer.elements_written


def readers_of(workload: Workload) -> list[list[int]]:
    """For each layer: which layers read its output."""
    readers: list[list[int]] = [[] for _ in workload.layers]
    for i, layer in enumerate(workload.layers):
        for source in layer.sources:
            if source >= 0:
                readers[source].append(i)
    return readers


def handed_on(workload: Workload) -> list[bool]:
    """For each layer whether the vector layer after it takes its output as it leaves, so that it is never stored."""
    readers = enumerate(readers_of(workload))
    return [r == [i + 1] and not workload.layers[i + 1].on_array and i not in workload.outputs for i, r in readers]


def operands_of(layer: Layer) -> tuple[tuple[tuple[int, ...], int], ...]:
    """(sources, elements a sample) of each activation operand."""
    return layer.operands or ((layer.sources, layer.ifmap_elements if layer.on_array else layer.elements_read),)


def share_from(workload: Workload, layer: Layer, operand: int, chosen: Callable[[int], bool]) -> float:
    """The share of an operand that comes from the chosen sources.

    What comes from several layers (a concatenation) is divided in proportion to their outputs; the network's input, -1,
    gives what they do not.
    """
    sources, elements = operands_of(layer)[operand]
    size: dict[int, float] = {}
    for source in sources:
        if source >= 0:
            other = workload.layers[source]
            size[source] = outputs_of(other) * other.batch / layer.batch
    if -1 in sources or not sources:
        size[-1] = max(elements - sum(size.values()), 0.0)
    total = sum(size.values())
    return sum(part for source, part in size.items() if chosen(source)) / total if total else float(chosen(-1))


def in_dram(workload: Workload, accelerator: Accelerator) -> list[bool]:
    """For each layer whether its output goes through DRAM.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import Layer, Workload, linear
    >>> relu = Layer("relu", "activation", operations=4, elements_read=4, elements_written=4, sources=(0,))
    >>> net = Workload("n", (linear("a", 1, 8, 4), relu, linear("b", 1, 4, 2, sources=(1,))))
    >>> in_dram(net, accelerator("paper"))
    [False, True, True]
    """
    layers = workload.layers
    passing = handed_on(workload)
    cached = [layer.cache == "write" and accelerator.cache_buffer is not None for layer in layers]
    result = [not p and not c for p, c in zip(passing, cached, strict=True)]
    if not accelerator.keep_on_chip:
        return result
    room = accelerator.ofmap_buffer.capacity_bytes // 2
    size = [
        0 if gone or kept else outputs_of(layer) * layer.batch * accelerator.batch * accelerator.ofmap_bits / 8
        for layer, gone, kept in zip(layers, passing, cached, strict=True)
    ]
    readers = readers_of(workload)
    change = np.zeros(len(layers) + 2)
    for i, r in enumerate(readers):
        change[i] += size[i]
        change[max(r, default=i) + 1] -= size[i]
    alive = np.cumsum(change)
    for i, r in enumerate(readers):
        if r and i not in workload.outputs and alive[i : max(r) + 1].max() <= room:
            result[i] = False
    return result


def weights_stay(workload: Workload, accelerator: Accelerator) -> list[bool]:
    """For each layer whether its weights (or constants) are in the weight buffer already when it begins.

    `weights: resident`: all are, from power-up on. Else, where schedules are searched, those that an earlier layer has
    used (a step of a recurrent network), if all that was used since then fits beside them.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import Workload, linear
    >>> steps = Workload("n", (linear("s1", 1, 8, 4, weight_name="w"), linear("s2", 1, 8, 4, weight_name="w")))
    >>> weights_stay(steps, accelerator("edge")), weights_stay(steps, accelerator("paper"))
    ([False, True], [False, False])
    """
    layers = workload.layers
    if accelerator.weights == "resident":
        return [layer.weights + layer.constants > 0 for layer in layers]
    stays = [False] * len(layers)
    if accelerator.schedule == "fixed":
        return stays
    last: dict[tuple[str, int, int], int] = {}
    for i, layer in enumerate(layers):
        if not (layer.weights and layer.on_array):
            continue
        tensor = stored_name(layer), layer.weight_offset, layer.weights
        if tensor in last:
            between = {
                (stored_name(other), other.weight_offset, other.weights, other.constants): other
                for other in layers[last[tensor] : i + 1]
                if other.weights or other.constants
            }
            need = sum(stored_bytes(other, accelerator) for other in between.values())
            stays[i] = need <= accelerator.weight_buffer.usable_bytes
        last[tensor] = i
    return stays


def network_bytes(workload: Workload, accelerator: Accelerator) -> float:
    """Bytes of all weights and constants of a network; what layers share counts once."""
    constants = sum(layer.constants for layer in workload.layers if not layer.weights)
    return (workload.weights + constants) * accelerator.weight_bits / 8


def stored_bytes(layer: Layer, accelerator: Accelerator) -> float:
    """Bytes of a layer's weights and constants; of a table, of the rows that are looked up."""
    return (layer.weights * layer.on_array + layer.constants) * accelerator.weight_bits / 8
