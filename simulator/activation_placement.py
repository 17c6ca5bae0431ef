"""Which SRAM cell holds each bit of the activations and partial sums that pass a buffer, from the schedule.

Elements are those of one sample: all samples pass through the same cells. They are numbered tensor after tensor, as
these are made, and within a tensor in torch order (channel, row, column). The *stream* is the order in which they come:

    outputs   as they leave the array: tile after tile of pixels and filters (array/schedule.py), and in a tile, C
              filters at a time, as the dataflow does it (dataflow.py)
                  os   R pixels at a time, the last one first, for each the C filters
                  ws   for each pixel the C filters
                  is   C pixels at a time, for each filter those pixels
                  rs   filter after filter; a tile is a block of filters and a strip of rows
    sums      that wait for the next tile of taps: the same
    inputs    as the first layer that reads a tensor fetches it: tile after tile of pixels and taps; of a tile what no
              tile before it has brought, in torch order, as DRAM has it

What a vector layer makes comes in the order of the array layer whose outputs it takes one by one as they leave, else in
torch order, as does the input of layers that read several tensors. An element that is fetched again, by the next tile
(its halo), for other filters or by another layer, comes back to the same cell. The stream passes the memory as that of
weights does (placement.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from simulator import placement_kernels as kernels
from simulator.accelerator import Accelerator, Buffer
from simulator.array.cycles import plan_of
from simulator.array.memory import handed_on, operands_of, outputs_of, readers_of, window_of
from simulator.array.schedule import Plan, RowStationary, Schedule
from simulator.placement import Placement, Stream, Tensor, placed_in, row_major, slots_of
from simulator.workload import Layer, Workload
from sram.errors import InputError
from sram.geometry import Geometry


def place_activations(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    bits: int | None = None,
    buffer: Literal["ifmap_buffer", "ofmap_buffer"] = "ifmap_buffer",
    plan: Plan | None = None,
) -> Placement:
    """Where activations lie in a buffer that they pass, as `placement.place` has it of weights.

    The output buffer has the outputs of the layers, the input buffer those and the network's input. Tensors carry the
    name of their layer, or "input", which is the first. What a vector layer takes as it leaves the layer before it
    (memory.py) is not stored. `bits`: if not the accelerator's ofmap_bits.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net = Workload("n", (conv("a", 4, 4, 1, 2, 3), conv("b", 2, 2, 2, 1, 2, sources=(0,))))
    >>> p = place_activations(net, accelerator("paper"), Geometry(banks=1))
    >>> [(t.name, t.first, t.count) for t in p.tensors]
    [('input', 0, 16), ('a', 16, 8), ('b', 24, 1)]
    """
    _check_one_core(accelerator)
    bits = accelerator.ofmap_bits if bits is None else bits
    slots, plan = slots_of(geometry, bits), plan or plan_of(workload, accelerator)
    passing, sizes = handed_on(workload), [outputs_of(layer) for layer in workload.layers]
    stored = [i for i, size in enumerate(sizes) if size and not passing[i]]
    made = [(workload.layers[i].name, sizes[i]) for i in stored]
    through: Buffer = getattr(accelerator, buffer)
    if buffer == "ofmap_buffer":
        orders = [_order_made(_maker(workload, i), sizes[i], accelerator, plan) for i in stored]
        tensors, stream = _after_one_another(made, slots, orders)
        return _in_turn(tensors, stream, geometry, bits, through)
    taking_images = _readers_of_input(workload)
    made.insert(0, ("input", max(elements for _, elements in taking_images)))
    readers_of_each = readers_of(workload)
    readers = [taking_images[0][0], *(min(readers_of_each[i], default=len(sizes)) for i in stored)]
    tensors, stream = _after_one_another(made, slots, come=np.argsort(readers, kind="stable").tolist())
    reading = [(*workload.layers, None)[reader] for reader in readers]
    own = [t.first + _order_read(layer, t.count, plan) for layer, t in zip(reading, tensors, strict=True)]
    return replace(_in_turn(tensors, stream, geometry, bits, through), elements=np.concatenate(own))


def _check_one_core(accelerator: Accelerator) -> None:
    if accelerator.cores > 1:  # each reads copies of what the others have made
        raise InputError(accelerator.name, "cores", accelerator.cores, "1 where activations or sums are placed")


def taps_between_spills(workload: Workload, accelerator: Accelerator, plan: Plan | None = None) -> list[int]:
    """Of each layer on the array, after how many taps its partial sums leave for the output buffer and come back; all
    its taps where they never do.

    Weight- and input-stationary arrays hold as many taps as they have rows; an output-stationary one adds up all taps
    of a tile, a row-stationary one those of the channels of a pass.

    >>> from dataclasses import replace
    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net, machine = Workload("n", (conv("a", 4, 4, 8, 2, 3),)), accelerator("paper")
    >>> taps_between_spills(net, machine), taps_between_spills(net, replace(machine, dataflow="ws"))
    ([72], [32])
    """
    schedules = plan or plan_of(workload, accelerator)
    return [min(layer.k, _taps_of(schedules.get(layer), layer, accelerator)) for layer in workload.array_layers]


def _taps_of(by: Schedule | RowStationary, layer: Layer, accelerator: Accelerator) -> int:
    """Taps that the array adds up before sums leave it."""
    if isinstance(by, RowStationary):
        return by.q * by.r * layer.kernel_h * layer.kernel_w
    return by.k if by.dataflow == "os" else accelerator.array_rows


def place_partial_sums(
    workload: Workload,
    accelerator: Accelerator,
    geometry: Geometry,
    bits: int | None = None,
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
    _check_one_core(accelerator)
    bits, plan = accelerator.accumulator_bits if bits is None else bits, plan or plan_of(workload, accelerator)
    waiting = zip(workload.array_layers, taps_between_spills(workload, accelerator, plan), strict=True)
    spilled = [layer for layer, taps in waiting if taps < layer.k]
    orders = [_order_made(layer, outputs_of(layer), accelerator, plan) for layer in spilled]
    made = [(layer.name, outputs_of(layer)) for layer in spilled]
    tensors, stream = _after_one_another(made, slots_of(geometry, bits), orders)
    return _in_turn(tensors, stream, geometry, bits, accelerator.ofmap_buffer)


def place_kept(tensors: Sequence[tuple[str, int]], geometry: Geometry, bits: int) -> Placement:
    """The same for tensors (name, elements) that stay in a memory of their own, such as a decoder's keys and values:
    each in a cell of its own, in their order. InputError for a memory that they do not fit.

    >>> [(t.name, t.first) for t in place_kept([("keys", 10), ("values", 10)], Geometry(banks=1), bits=8).tensors]
    [('keys', 0), ('values', 10)]
    """
    placed, stream = _after_one_another(tensors, slots_of(geometry, bits))
    return placed_in(placed, [stream], geometry, "resident", bits, "lsb_first", 0, Buffer(geometry.capacity_bytes))


def _in_turn(tensors: Sequence[Tensor], stream: Stream, geometry: Geometry, bits: int, through: Buffer) -> Placement:
    return placed_in(tensors, [stream], geometry, "streamed", bits, "lsb_first", 0, through)


def _after_one_another(
    made: Sequence[tuple[str, int]],
    slots: int,
    orders: Sequence[tuple[int, ...]] | None = None,
    come: Sequence[int] | None = None,
) -> tuple[list[Tensor], Stream]:
    """Tensors (name, elements), and the stream in which they `come` (None: in their order), each from a new word on,
    its elements in an order of `uses` (None: their own)."""
    first = np.cumsum([0, *(count for _, count in made)]).tolist()
    tensors = [Tensor(name, 0, at, count) for (name, count), at in zip(made, first, strict=False)]
    rows, word = [], 0
    for i in range(len(made)) if come is None else come:
        count = tensors[i].count
        order = orders[i] if orders else (*row_major(count), 0, count)
        rows.append((word, first[i], count, *order, i))
        word += -(-count // slots)
    return tensors, Stream(rows, word)


def _order_made(layer: Layer | None, count: int, accelerator: Accelerator, plan: Plan) -> tuple[int, ...]:
    """The order in which a layer's outputs leave the array, as fields ORDER to N_ALL of `uses`: that of weights with a
    tap for each pixel. Torch order of what no layer on the array makes, or one that adds outputs up outside it."""
    if layer is None or count != layer.groups * layer.m * layer.n:
        return (*row_major(count), 0, count)
    sizes, by = (layer.groups, layer.m, layer.n, layer.kind != "conv"), plan.get(layer)
    if isinstance(by, RowStationary):
        strip = min(by.e * window_of(layer)[-1], layer.m)
        return (kernels.OS, *sizes, 1, 1, strip, by.m, False, 0, layer.n)
    rows, cols = accelerator.array_rows, accelerator.array_cols
    within = {"os": (kernels.WS, rows, cols), "ws": (kernels.OS, rows, cols), "is": (kernels.IS, cols, cols)}
    filters_outside = by.order.index("n") < by.order.index("m")
    code, *fold = within[by.dataflow]
    return (code, *sizes, *fold, min(by.m, layer.m), by.n, filters_outside, 0, layer.n)


def _maker(workload: Workload, stored: int) -> Layer | None:
    """The array layer whose outputs leave it to be stored, one by one, as the output of this layer."""
    passing = handed_on(workload)
    while not workload.layers[stored].on_array:
        before = stored - 1
        if (
            before < 0
            or not passing[before]
            or outputs_of(workload.layers[before]) != outputs_of(workload.layers[stored])
        ):
            return None
        stored = before
    return workload.layers[stored]


def _order_read(layer: Layer | None, count: int, plan: Plan) -> np.ndarray:
    """The elements int32[count] of a tensor in the order in which a layer fetches them."""
    if layer is None or layer.kind not in ("conv", "linear") or layer.transposed or not _alone(layer, count):
        return np.arange(count, dtype=np.int32)
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window_of(layer)
    by = plan.get(layer)
    if isinstance(by, RowStationary):
        pixels, taps, pixels_outside = by.e * out_w, by.q * by.r * kh * kw, True
    else:
        pixels, taps, pixels_outside = by.m, by.k, by.order.index("m") < by.order.index("k")
    rows, cols = _first_output(out_h, in_h, kh, sh, top, dh), _first_output(out_w, in_w, kw, sw, left, dw)
    first = np.where((rows[:, None] < out_h) & (cols < out_w), rows[:, None] * out_w + cols, out_h * out_w)
    tile = first.ravel() // pixels
    slice_of = np.arange(count // tile.size // layer.groups) * kh * kw // taps
    turn = (
        np.add.outer(slice_of, tile * slice_of.size)
        if pixels_outside
        else np.add.outer(slice_of * (tile.max() + 1), tile)
    )
    come = np.argsort((turn if layer.kind == "conv" else turn.T).ravel(), kind="stable").astype(np.int32)
    return np.add.outer(np.arange(layer.groups, dtype=np.int32) * come.size, come).ravel()


def _alone(layer: Layer, count: int) -> bool:
    """Whether a tensor of so many elements is all that a layer reads."""
    ((sources, elements), *others) = operands_of(layer)
    return not others and len(sources) < 2 and elements == count


def _first_output(outputs: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Along one axis, the first output that reads each of `size` inputs; `outputs` where none does."""
    first = np.full(size, outputs)
    for output in reversed(range(outputs)):
        read = output * stride - padding + dilation * np.arange(kernel)
        first[read[(read >= 0) & (read < size)]] = output
    return first


def _readers_of_input(workload: Workload) -> list[tuple[int, int]]:
    """(layer, elements that it reads) of each layer that reads the network's input."""
    operands = ((i, *operand) for i, layer in enumerate(workload.layers) for operand in operands_of(layer))
    return [(i, elements) for i, sources, elements in operands if sources in ((), (-1,))]
