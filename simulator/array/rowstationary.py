"""Row stationary: what an array of elements with scratchpads computes when (Chen et al., ISCA 2016 and JSSC 2017).

An element holds a row of a filter, slides a row of the input past it, and adds up a row of outputs. A *set* of R x e
elements, for the R rows of a filter and e output rows, adds them up from element to element; one that is wider than the
array is folded onto more of its rows. A *pass* runs r x t sets side by side: each element has the rows of p filters and
q channels, r sets have other channels, t sets other filters. So a pass takes q x r channels and p x t filters, of n
samples and e output rows.

**Loops**, from outside to inside: products (groups); blocks of n samples; strips of e output rows; groups of m filters;
slices of q x r channels; passes of p x t filters. Sums of n x m x e rows wait in the output buffer until the last slice
of channels, and never go to DRAM. Inputs of a slice and strip are fetched when it begins; they stay for the next groups
of filters, and the rows that the next strip shares (the halo) with them, if those of all channels fit beside the sums,
or there is one slice. Filters are fetched pass by pass, each time anew, unless those of a product fit in their buffer;
where one pass has all, they stay in the scratchpads. Rows and columns outside the image are not moved.

**Limits**: p x q x kernel width words of weights, q x width of the sliding window of inputs, p sums in an element; a
pass's filters in the weight buffer; a slice's inputs and a block's sums in their buffers, or together in a shared one.

**Time** of a pass: the filters enter the scratchpads, a word of the weight buffer a cycle; then each element multiplies
once a cycle, unless the output buffer, a word read and one written a cycle, takes longer with the sums. DRAM brings as
many filters meanwhile. Inputs and results come and go meanwhile, too, if both buffers are double, and else while the
array waits; inputs of strips at the rim count with the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import rowstationary_kernels as kernels
from simulator.array.cycles_kernels import count_vector_layer
from simulator.array.memory import window_of
from simulator.array.memory_kernels import axis_touched
from simulator.array.schedule import Plan, RowStationary
from simulator.array.search import sizes, thinned
from simulator.array.shapes import COUNTS, machine_record, shapes_of
from simulator.workload import Layer, Workload
from sram.errors import InputError

# What the kernels know of a layer beside SHAPE: samples; kernel and outputs; width of the sliding window; input rows
# and columns that are touched; pairs of an output row and a kernel row inside the image.
WINDOW = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("samples", "kernel_h", "kernel_w", "span_w", "out_h", "out_w", "in_rows", "in_cols", "valid_rows"),
        )
    ],
    align=True,
)
# And of a machine beside MACHINE: words of a scratchpad, of a buffer's port, bytes of a shared buffer (0: separate).
PADS = np.dtype(
    [(name, np.int64) for name in ("ifmap_words", "weight_words", "psum_words", "double")]
    + [(name, np.float64) for name in ("weight_port", "psum_port", "pool")],
    align=True,
)
CHOICE = np.dtype([(name, np.int64) for name in ("n", "m", "e", "p", "q", "r", "t")], align=True)
MOST_STRIPS = 24


def pads_record(machine: Accelerator) -> np.void:
    """PADS of a machine with scratchpads."""
    pads, room = machine.scratchpads, machine_record(machine)[0]
    assert pads is not None
    record = np.zeros(1, PADS)
    record[0] = (
        *(pads.ifmap_words, pads.weight_words, pads.psum_words),
        machine.ifmap_buffer.double and machine.ofmap_buffer.double,
        machine.weight_buffer.word_bits / machine.weight_bits,
        machine.ofmap_buffer.word_bits / machine.accumulator_bits,
        room["ifmap_room"] + room["psum_room"] if machine.buffers == "shared" else 0,
    )
    return record[0]


def window_record(layer: Layer, batch: int) -> np.void:
    """WINDOW of a layer that `batch` samples run through together."""
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window_of(layer)
    rows, _ = axis_touched(out_h, out_h, in_h, kh, sh, top, dh)
    cols, _ = axis_touched(out_w, out_w, in_w, kw, sw, left, dw)
    valid = sum(0 <= y * sh - top + i * dh < in_h for y in range(out_h) for i in range(kh))
    record = np.zeros(1, WINDOW)
    samples = 1 if layer.kind == "matmul" else batch
    record[0] = (samples, kh, kw, (kw - 1) * dw + 1, out_h, out_w, rows, cols, valid)
    return record[0]


def strip_of(layer: Layer, rows: int) -> list[int]:
    """Columns ROWS to LARGEST of strips of `rows` output rows; with dilation, room for the rows between as well."""
    in_h, _, kh, _, sh, _, top, _, dh, _, out_h, _ = window_of(layer)
    touched, most = axis_touched(out_h, rows, in_h, kh, sh, top, dh)
    largest = min(in_h, (rows - 1) * sh + (kh - 1) * dh + 1) if dh > 1 else most
    return [rows, out_h // rows, out_h % rows, int(out_h % rows > 0), touched, largest]


def search(
    workload: Workload, machine: Accelerator, price: np.void, objective: int, plan: Plan | None = None
) -> tuple[np.ndarray, dict[str, RowStationary]]:
    """(COUNTS[layers], schedules by layer): those of the plan, or the cheapest.

    All sizes of an axis of at most 16 are tried, else the smallest for each number of parts; of strips at most
    MOST_STRIPS. What cannot be better by a lower bound (rowstationary_kernels.least_cost) is left out early.
    """
    shapes, room = shapes_of(workload, machine), machine_record(machine)[0]
    pads, counts = pads_record(machine), np.zeros(len(workload.layers), COUNTS)
    found: dict[str, RowStationary] = {}
    trial, choice = np.zeros(1, COUNTS), np.zeros(1, CHOICE)
    for i, layer in enumerate(workload.layers):
        if not layer.on_array:
            count_vector_layer(shapes[i], room, counts[i])
            continue
        window = window_record(layer, layer.batch * machine.batch)
        if plan is None:
            strips = np.array([strip_of(layer, e) for e in thinned(sizes(int(window["out_h"])), MOST_STRIPS)[::-1]])
            if not kernels.search_layer(
                shapes[i], room, window, pads, strips, price, objective, counts[i : i + 1], trial, choice
            ):
                raise InputError(workload.name, f"{layer.name}, kernel", _kernel(layer), _allowed(machine))
            found[layer.name] = RowStationary(*choice[0].tolist())
        else:
            by = found[layer.name] = plan.rows_of(layer)
            _check(layer, by, shapes[i], window, room, pads)
            strip = np.array(strip_of(layer, by.e))
            kernels.count(shapes[i], room, window, pads, strip, *_sizes(by), counts[i])
    return counts, found


def _sizes(by: RowStationary) -> Sequence[int]:
    return by.n, by.m, by.p, by.q, by.r, by.t


def _kernel(layer: Layer) -> str:
    return f"{layer.kernel_h} x {layer.kernel_w}, {layer.out_w} outputs a row"


def _allowed(machine: Accelerator) -> str:
    pads = machine.scratchpads
    assert pads is not None
    most = f"at most {machine.array_rows} x {min(pads.ifmap_words, pads.weight_words)} (array rows, scratchpads)"
    return f"{most}, and a row of inputs and of sums that fits in the buffers"


def _check(layer: Layer, by: RowStationary, shape: np.void, window: np.void, machine: np.void, pads: np.void) -> None:
    """InputError for a schedule that the layer or the machine cannot run."""
    limits = {"n": window["samples"], "m": layer.n, "e": window["out_h"], "p": layer.n, "q": shape["channels"]}
    for name, most in limits.items():
        if getattr(by, name) > most:
            raise InputError(layer.name, name, getattr(by, name), f"1 to {most}")
    if by.m % (by.p * by.t) and by.m != layer.n:
        raise InputError(layer.name, "m", by.m, f"a multiple of p x t = {by.p * by.t}, or all {layer.n}")
    if not kernels.fits_array(machine, window, pads, by.e, by.p, by.q, by.r, by.t):
        raise InputError(layer.name, "schedule", by, "sets that the array and its scratchpads can hold")
    largest, block = strip_of(layer, by.e)[kernels.LARGEST], min(by.q * by.r, int(shape["channels"]))
    if not kernels.fits_filters(machine, shape, window, by.p, by.q, by.r, by.t) or not kernels.fits_buffers(
        machine, shape, window, pads, largest, by.e, by.n, by.m, block
    ):
        raise InputError(layer.name, "schedule", by, "inputs, filters and sums that fit in the buffers")
