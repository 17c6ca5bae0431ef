"""What the kernels know of a layer and of a machine, as records, and what they count."""

from __future__ import annotations

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array.memory import (
    handed_on,
    in_dram,
    operands_of,
    outputs_of,
    rows_under,
    share_from,
    touched,
    weights_stay,
    window_of,
)
from simulator.workload import Workload
from sram.errors import InputError

# What the kernels know of a layer. Elements and pixels; unique, valid, tiles: of one product (memory.touched);
# ifmap_dram, filter_dram: shares. Of a vector layer elements_read are those in buffers, without what is handed to it.
SHAPE = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("on_array", "products", "m", "k", "n", "channels", "taps", "outputs"),
            *("valid", "unique", "pixels", "row_tile_sum", "row_tile_largest", "row_window"),
            *("col_tile_sum", "col_tile_largest", "col_window"),
            *("operations", "elements_read", "elements_dram", "constants", "constant_reads"),
            *("stored", "ofmap_dram"),
        )
    ]
    + [("ifmap_dram", np.float64), ("filter_dram", np.float64)],
    align=True,
)

# What the kernels know of the accelerator. depth: 1 without prefetch.
MACHINE = np.dtype(
    [(name, np.int64) for name in ("rows", "cols", "overlap", "skip_idle", "depth", "latency", "lanes")]
    + [
        (name, np.float64)
        for name in (
            *("ifmap_bytes", "filter_bytes", "ofmap_bytes", "psum_bytes", "bandwidth"),
            *("ifmap_room", "filter_room", "psum_room", "stage_bytes"),
        )
    ],
    align=True,
)

# One row a layer. SRAM counts are elements at the port of a buffer, of ifmap_bits, weight_bits, ofmap_bits,
# accumulator_bits. With rs each MAC also reads a word of each scratchpad and writes one of partial sums; psum_hops are
# partial sums handed from element to element.
COUNTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("dataflow", "folds", "macs", "vector_operations", "cycles", "array_cycles", "stall_cycles"),
            *("ifmap_sram_reads", "ifmap_sram_writes", "filter_sram_reads", "filter_sram_writes"),
            *("psum_sram_reads", "psum_sram_writes", "ofmap_sram_reads", "ofmap_sram_writes"),
            *("ifmap_dram_read_bytes", "filter_dram_read_bytes", "psum_dram_read_bytes"),
            *("psum_dram_write_bytes", "ofmap_dram_write_bytes"),
            *("ifmap_scratchpad_writes", "filter_scratchpad_writes", "psum_hops"),
        )
    ]
    + [("utilization", np.float64), ("mapping_efficiency", np.float64)],
    align=True,
)


MOST_OPERATIONS = 2**53  # of a layer: its counts are whole numbers in float64, too


def machine_record(accelerator: Accelerator) -> np.ndarray:
    """MACHINE[1]."""
    a = accelerator
    # With keep_on_chip one half of the output buffer holds tensors, whether it is double or not.
    psum_room = a.ofmap_buffer.capacity_bytes // 2 if a.keep_on_chip else a.ofmap_buffer.usable_bytes
    machine = np.zeros(1, MACHINE)
    machine[0] = (
        *(a.array_rows, a.array_cols, a.double_buffered_registers, a.skip_idle_rows),
        *(2 if a.ifmap_buffer.double and a.weight_buffer.double else 1, a.dram_latency_cycles, a.vector_lanes),
        *(a.ifmap_bits / 8, a.weight_bits / 8, a.ofmap_bits / 8, a.accumulator_bits / 8, a.dram_bytes_per_cycle),
        *(a.ifmap_buffer.usable_bytes, a.weight_buffer.usable_bytes, psum_room),
        min(a.ifmap_buffer.usable_bytes, a.weight_buffer.usable_bytes),
    )
    return machine


def shapes_of(workload: Workload, accelerator: Accelerator) -> np.ndarray:
    """SHAPE[layers]; InputError for a layer of MOST_OPERATIONS."""
    through_dram, passing = in_dram(workload, accelerator), handed_on(workload)
    stays = weights_stay(workload, accelerator)
    shapes = np.zeros(len(workload.layers), SHAPE)
    for i, layer in enumerate(workload.layers):
        batch = layer.batch * accelerator.batch
        macs = layer.groups * layer.m * layer.k * layer.n
        work = max(macs, layer.operations, layer.elements_read, outputs_of(layer)) * batch
        if work >= MOST_OPERATIONS:
            raise InputError(workload.name, f"{layer.name}, operations of {batch} samples", work, "fewer than 2^53")
        shape = shapes[i]
        shape["on_array"] = layer.on_array
        shape["outputs"] = outputs_of(layer) * batch
        shape["stored"], shape["ofmap_dram"] = not passing[i], through_dram[i]
        operands = operands_of(layer)
        from_dram = [share_from(workload, layer, o, lambda s: s < 0 or through_dram[s]) for o in range(len(operands))]
        if not layer.on_array:
            handed = [share_from(workload, layer, o, lambda s: s >= 0 and passing[s]) for o in range(len(operands))]
            size = np.array([elements for _, elements in operands])
            per_element = layer.elements_read * batch / max(1, size.sum())  # a move reads less than it has at hand
            shape["operations"] = layer.operations * batch
            shape["elements_read"] = layer.elements_read * batch - round(per_element * (size @ handed))
            loads = layer.constants * (batch if layer.weights else 1)  # each sample looks up rows of its own
            shape["constants"] = 0 if stays[i] else loads
            shape["constant_reads"] = layer.constants * batch
            shape["elements_dram"] = round(per_element * (size @ from_dram))
            continue
        pairs = layer.kind == "matmul"  # samples share no operand: each is a product of its own
        samples = 1 if pairs else batch
        window = window_of(layer)
        taps = window[2] * window[3]
        channels = layer.k // taps
        valid, pixels, row_sum, row_largest = touched(window, accelerator.array_rows)
        _, _, col_sum, col_largest = touched(window, accelerator.array_cols)
        shape["products"] = layer.groups * (batch if pairs else 1)
        shape["m"], shape["k"], shape["n"] = layer.m * samples, layer.k, layer.n
        shape["channels"], shape["taps"] = channels, taps
        shape["valid"] = valid * channels * samples
        shape["unique"] = pixels * channels * samples
        shape["pixels"] = pixels * samples
        shape["row_tile_sum"], shape["row_tile_largest"] = row_sum * samples, row_largest
        shape["col_tile_sum"], shape["col_tile_largest"] = col_sum * samples, col_largest
        shape["row_window"] = rows_under(window, accelerator.array_rows)
        shape["col_window"] = rows_under(window, accelerator.array_cols)
        shape["ifmap_dram"] = from_dram[0]
        cached = layer.cache == "read" and accelerator.cache_buffer is not None
        shape["filter_dram"] = float(not stays[i]) if layer.weights else 0.0 if cached else from_dram[-1]
    return shapes
