"""Cycles, accesses and traffic of each layer: `simulate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import cycles_kernels as kernels
from simulator.array.dataflow import CODES, NAMES
from simulator.array.memory import (
    handed_on,
    in_dram,
    operands_of,
    outputs_of,
    rows_under,
    share_from,
    touched,
    window_of,
)
from simulator.workload import Workload
from sram.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

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
# accumulator_bits.
COUNTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("dataflow", "folds", "macs", "vector_operations", "cycles", "array_cycles", "stall_cycles"),
            *("ifmap_sram_reads", "ifmap_sram_writes", "filter_sram_reads", "filter_sram_writes"),
            *("psum_sram_reads", "psum_sram_writes", "ofmap_sram_reads", "ofmap_sram_writes"),
            *("ifmap_dram_read_bytes", "filter_dram_read_bytes", "psum_dram_read_bytes"),
            *("psum_dram_write_bytes", "ofmap_dram_write_bytes"),
        )
    ]
    + [("utilization", np.float64), ("mapping_efficiency", np.float64)],
    align=True,
)


MOST_OPERATIONS = 2**53  # of a layer: its counts are whole numbers in float64, too


@dataclass(frozen=True, eq=False)
class Counts:
    """What a run of `workload` on `accelerator` takes; `layers` is a structured array (COUNTS), one row a layer.

    cycles = array_cycles + stall_cycles; for vector layers array_cycles are those of the vector unit.
    """

    workload: Workload
    accelerator: Accelerator
    layers: np.ndarray

    @property
    def cycles(self) -> int:
        return int(self.layers["cycles"].sum())

    @property
    def latency_s(self) -> float:
        return self.cycles / self.accelerator.clock_hz

    def weight_word_reads(self) -> np.ndarray:
        """Reads of weight-buffer words (float64[layers]): elements x weight_bits / word_bits.

        Output-stationary: k x n x ceil(m / rows) x bits / 64, the weight-memory accesses of the NeuralFuse paper.
        """
        words = self.accelerator.weight_bits / self.accelerator.weight_buffer.word_bits
        has = np.array([layer.weights + layer.constants > 0 for layer in self.workload.layers])
        return np.where(has, self.layers["filter_sram_reads"] * words, 0.0)

    def frame(self) -> pd.DataFrame:
        """One row a layer and a row of totals; units in the column names."""
        import pandas as pd

        row, machine = self.layers, self.accelerator
        columns: dict[str, object] = {
            "layer": [layer.name for layer in self.workload.layers],
            "kind": [layer.kind for layer in self.workload.layers],
            "dataflow": [NAMES.get(int(code), "vector") for code in row["dataflow"]],
            "macs": row["macs"],
            "vector_operations": row["vector_operations"],
            "cycles": row["cycles"],
            "stall_cycles": row["stall_cycles"],
            "utilization_pct": 100 * row["utilization"],
            "mapping_efficiency_pct": 100 * row["mapping_efficiency"],
        }
        for operand in ("ifmap", "filter", "psum", "ofmap"):
            for way in ("reads", "writes"):
                columns[f"{operand}_sram_{way}_elements"] = row[f"{operand}_sram_{way}"]
        columns[f"weight_sram_reads_{machine.weight_buffer.word_bits}bit_words"] = self.weight_word_reads()
        for name in COUNTS.names or ():
            if "_dram_" in name:
                columns[name] = row[name]
        frame = pd.DataFrame(columns)
        total = frame.select_dtypes("number").sum()
        array = row["macs"] > 0
        peak = machine.array_rows * machine.array_cols
        total["utilization_pct"] = 100 * row["macs"].sum() / max(1, row["cycles"][array].sum() * peak)
        weight = row["cycles"][array] / max(1, row["cycles"][array].sum())
        total["mapping_efficiency_pct"] = 100 * (row["mapping_efficiency"][array] * weight).sum()
        last = {"layer": "total", "kind": "", "dataflow": ""} | total.to_dict()
        types = {name: kind for name, kind in frame.dtypes.items() if kind == np.int64}
        return pd.concat([frame, pd.DataFrame([last])], ignore_index=True).astype(types)


def simulate(workload: Workload, accelerator: Accelerator) -> Counts:
    """Run `workload` on `accelerator`, layer after layer, and count.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net = Workload("stem", (conv("stem", 32, 32, 3, 64, kernel=3, padding=1),))
    >>> counts = simulate(net, accelerator("paper"))
    >>> int(counts.layers["macs"][0]), int(counts.layers["array_cycles"][0])  # 32 x 2 folds of 2R + C + 27 - 2 cycles
    (1769472, 7744)
    >>> counts.weight_word_reads()[0] == 27 * 64 * 32 * 8 / 64
    np.True_
    """
    shapes = shapes_of(workload, accelerator)
    codes = np.array([dataflow_code(accelerator)])
    return Counts(workload, accelerator, count_machines(workload, shapes, machine_record(accelerator), codes)[0])


def count_machines(workload: Workload, shapes: np.ndarray, machines: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """COUNTS[machines, layers] of the same SHAPE[layers]; InputError for a layer of too many transfers through DRAM."""
    counts = np.zeros((len(machines), len(shapes)), COUNTS)
    refused = kernels.count_machines(shapes, machines, codes, counts, np.zeros(1, COUNTS))
    if refused >= 0:
        layer = workload.layers[refused]
        size = " x ".join(str(int(shapes[name][refused])) for name in ("products", "m", "k", "n"))
        allowed = f"at most {kernels.MOST_CHUNKS} transfers with DRAM: fewer samples, a larger array or no DRAM limit"
        raise InputError(workload.name, f"{layer.name}, products x m x k x n", size, allowed)
    return counts


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
            shape["constants"], shape["constant_reads"] = layer.constants, layer.constants * batch
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
        shape["filter_dram"] = 1.0 if layer.weights else from_dram[-1]
    return shapes


def dataflow_code(accelerator: Accelerator) -> int:
    """The kernels' number of the accelerator's dataflow; 3 is best."""
    return CODES.get(accelerator.dataflow, 3)


def dataflow_codes(workload: Workload, accelerator: Accelerator) -> list[int]:
    """The dataflow of each layer (dataflow.CODES; -1 on the vector unit); `best` takes the fastest, stalls included."""
    if accelerator.dataflow != "best":
        return [CODES[accelerator.dataflow] if layer.on_array else -1 for layer in workload.layers]
    return [int(code) for code in simulate(workload, accelerator).layers["dataflow"]]
