"""Cycles, accesses and traffic of each layer: `simulate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from simulator.accelerator import Accelerator, with_resident_weights
from simulator.array import cores, rowstationary, search
from simulator.array import cycles_kernels as kernels
from simulator.array.dataflow import CODES, NAMES
from simulator.array.dataflow_kernels import RS
from simulator.array.memory import network_bytes
from simulator.array.schedule import Plan, check_names, text_of
from simulator.array.shapes import COUNTS, machine_record, shapes_of
from simulator.figures import PRICES, EnergyTable
from simulator.workload import Layer, Workload
from sram.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Counts:
    """What a run of `workload` on `accelerator` takes; `layers` is a structured array (COUNTS), one row a layer.

    `plan` is how it was run: the schedule of each layer on the array.
    cycles = array_cycles + stall_cycles; for vector layers array_cycles are those of the vector unit.
    """

    workload: Workload
    accelerator: Accelerator
    layers: np.ndarray
    plan: Plan = field(default_factory=lambda: Plan({}))

    @property
    def cycles(self) -> int:
        """Cycles of all layers, one after the other, stalls included."""
        return int(self.layers["cycles"].sum())

    @property
    def latency_s(self) -> float:
        """Those cycles in seconds, for the whole batch."""
        return self.cycles / self.accelerator.clock_hz

    def weight_word_reads(self) -> np.ndarray:
        """Reads of weight-buffer words (float64[layers]): elements x weight_bits / word_bits.

        Output-stationary: k x n x ceil(m / rows) x bits / 64, the weight-memory accesses of the NeuralFuse paper.
        """
        words = self.accelerator.weight_bits / self.accelerator.weight_buffer.word_bits
        has = np.array([layer.weights + layer.constants > 0 for layer in self.workload.layers])
        return np.where(has, self.layers["filter_sram_reads"] * words, 0.0)

    def _schedule_text(self, layer: Layer) -> str:
        cut = self.plan.splits.get(layer.name)
        return text_of(self.plan.layers.get(layer.name)) + (f", cut by {cut}" if cut else "")

    def frame(self) -> pd.DataFrame:
        """One row a layer and a row of totals; units in the column names."""
        import pandas as pd

        row, machine = self.layers, self.accelerator
        columns: dict[str, object] = {
            "layer": [layer.name for layer in self.workload.layers],
            "kind": [layer.kind for layer in self.workload.layers],
            "dataflow": [NAMES.get(int(code), "vector") for code in row["dataflow"]],
            "schedule": [self._schedule_text(layer) for layer in self.workload.layers],
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
        if machine.scratchpads is not None:
            in_macs = np.where(row["dataflow"] == RS, row["macs"], 0)
            delivered = {name: row[f"{name}_scratchpad_writes"] for name in ("ifmap", "filter")}
            for operand, written in (delivered | {"psum": in_macs}).items():
                columns[f"{operand}_scratchpad_reads_elements"] = in_macs
                columns[f"{operand}_scratchpad_writes_elements"] = written
            columns["psum_hops_elements"] = row["psum_hops"]
        frame = pd.DataFrame(columns)
        total = frame.select_dtypes("number").sum()
        array = row["macs"] > 0
        peak = machine.array_rows * machine.array_cols * machine.cores
        total["utilization_pct"] = 100 * row["macs"].sum() / max(1, row["cycles"][array].sum() * peak)
        weight = row["cycles"][array] / max(1, row["cycles"][array].sum())
        total["mapping_efficiency_pct"] = 100 * (row["mapping_efficiency"][array] * weight).sum()
        last = {"layer": self.workload.total, "kind": "", "dataflow": "", "schedule": ""} | total.to_dict()
        types = {name: kind for name, kind in frame.dtypes.items() if kind == np.int64}
        return pd.concat([frame, pd.DataFrame([last])], ignore_index=True).astype(types)


def simulate(
    workload: Workload, accelerator: Accelerator, plan: Plan | None = None, table: EnergyTable | None = None
) -> Counts:
    """Run `workload` on `accelerator`, layer after layer, and count.

    By `plan`, or where there is none as the accelerator's `schedule` says: untiled, or each layer by the tiles and loop
    order of least objective, with energies of `table` (else the published ones). A batch runs through the layers
    together, or sample after sample where that costs less: it never costs more than its samples alone, by `edp` neither
    in cycles nor in energy (with several cores: in cycles). Several cores are never slower than one but by `energy`.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import conv
    >>> net = Workload("stem", (conv("stem", 32, 32, 3, 64, kernel=3, padding=1),))
    >>> counts = simulate(net, accelerator("paper"))
    >>> int(counts.layers["macs"][0]), int(counts.layers["array_cycles"][0])  # 32 x 2 folds of 2R + C + 27 - 2 cycles
    (1769472, 7744)
    >>> counts.weight_word_reads()[0] == 27 * 64 * 32 * 8 / 64
    np.True_
    """
    counts = _run(workload, accelerator, plan, table)
    check_resident(workload, accelerator, counts.plan)
    return counts


def _run(workload: Workload, accelerator: Accelerator, plan: Plan | None, table: EnergyTable | None) -> Counts:
    if plan is not None:
        check_names(plan, workload)
        return _in_passes(workload, accelerator, plan.samples, lambda w, m: _searched(w, m, np.zeros(1, PRICES), plan))
    if accelerator.schedule == "fixed" and accelerator.cores == 1:
        return _fixed(workload, accelerator)
    prices = search.prices_of(accelerator, table)
    together = _searched(workload, accelerator, prices)
    batch = workload.batch * accelerator.batch
    if accelerator.schedule == "fixed" or batch == 1 or any(x.batch % workload.batch for x in workload.layers):
        return together
    alone = _in_passes(workload, accelerator, 1, lambda w, m: _searched(w, m, prices))
    cycles = together.cycles <= alone.cycles
    pj = [search.energy_of(counts.layers, prices[0]) for counts in (together, alone)]
    edp = cycles and pj[0] <= pj[1]
    if accelerator.cores > 1:  # the faster: samples that run alone cannot be cut over cores
        edp = (together.cycles, pj[0]) <= (alone.cycles, pj[1])
    less = {"cycles": cycles, "energy": pj[0] <= pj[1], "edp": edp}
    return together if less[accelerator.objective] else alone


def plan_of(workload: Workload, accelerator: Accelerator) -> Plan:
    """How `simulate` runs it, without the counts where they are not needed for that."""
    if accelerator.schedule == "fixed" and accelerator.dataflow != "best" and accelerator.cores == 1:
        return Plan(search.untiled_of(workload, accelerator), workload.batch * accelerator.batch)
    return simulate(workload, accelerator).plan


def check_resident(workload: Workload, accelerator: Accelerator, plan: Plan) -> None:
    """InputError for resident weights that do not fit in the buffer of the core that uses them."""
    need, room = max(cores.core_bytes(workload, accelerator, plan)), accelerator.weight_buffer.capacity_bytes
    if accelerator.weights == "resident" and need > room:
        allowed = f"streamed; resident takes {need:,.0f} of the {room:,} bytes of weight_buffer"
        raise InputError(accelerator.name, f"weights, for {workload.name}", "resident", allowed)


def with_all_weights(workload: Workload, accelerator: Accelerator) -> Accelerator:
    """The machine with all weights resident; where they do not fit, each core with more macros of the weight buffer.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import linear
    >>> net, edge = Workload("fc", (linear("fc", 1, 1024, 1024),)), replace(accelerator("edge"), keep_on_chip=False)
    >>> [with_all_weights(net, replace(edge, cores=n)).weight_buffer.capacity_bytes for n in (1, 2, 4)]
    [1048576, 524288, 262144]
    """
    found = with_resident_weights(accelerator, network_bytes(workload, accelerator) / accelerator.cores)
    while accelerator.cores > 1:
        need = max(cores.core_bytes(workload, found, _run(workload, found, None, None).plan))
        if need <= found.weight_buffer.capacity_bytes:
            break
        found = with_resident_weights(accelerator, need)
    return found


def _fixed(workload: Workload, accelerator: Accelerator) -> Counts:
    shapes = shapes_of(workload, accelerator)
    codes = np.array([dataflow_code(accelerator)])
    counts = count_machines(workload, shapes, machine_record(accelerator), codes)[0]
    batch = workload.batch * accelerator.batch
    return Counts(workload, accelerator, counts, Plan(search.untiled_of(workload, accelerator, counts), batch))


def _searched(workload: Workload, accelerator: Accelerator, prices: np.ndarray, plan: Plan | None = None) -> Counts:
    objective = search.OBJECTIVES[accelerator.objective]

    def on_one(net: Workload, machine: Accelerator, by: Plan | None) -> cores.Rows:
        if by is None and machine.schedule == "fixed":
            fixed = _fixed(net, machine)
            return fixed.layers, fixed.plan.layers
        if machine.dataflow == "rs":
            return rowstationary.search(net, machine, prices[0], objective, by)
        counts, choices = search.search(net, [machine], prices, by)
        return counts[0], search.schedules_of(net, machine, choices[0], by)

    if accelerator.cores > 1:
        rows, found = cores.run_on_cores(workload, accelerator, on_one, prices[0], objective, plan)
        return Counts(workload, accelerator, rows, found)
    if plan is not None and plan.splits:
        raise InputError("schedule", "splits", ", ".join(plan.splits), "none on one core")
    rows, schedules = on_one(workload, accelerator, plan)
    return Counts(workload, accelerator, rows, Plan(schedules, workload.batch * accelerator.batch))


def _in_passes(
    workload: Workload, accelerator: Accelerator, samples: int, run: Callable[[Workload, Accelerator], Counts]
) -> Counts:
    """`samples` of the batch at a time, one pass through the network after the other.

    Weights stay in their buffer from pass to pass if those of the whole network fit.
    """
    batch = workload.batch * accelerator.batch
    if batch % samples or any(layer.batch % workload.batch for layer in workload.layers):
        raise InputError("schedule", "samples", samples, f"a divisor of {batch}, the samples of the batch")
    passes = batch // samples
    if passes == 1:
        return run(workload, accelerator)
    layers = tuple(replace(layer, batch=layer.batch // workload.batch * samples) for layer in workload.layers)
    one = run(replace(workload, layers=layers, batch=samples), replace(accelerator, batch=1))
    counts = one.layers.copy()
    for name in set(COUNTS.names or ()) - {"dataflow", "utilization", "mapping_efficiency"}:
        counts[name] *= passes
    if max(cores.core_bytes(workload, accelerator, one.plan)) <= accelerator.weight_buffer.usable_bytes:
        has_weights = np.array([layer.weights + layer.constants > 0 for layer in layers])
        for name in ("filter_sram_writes", "filter_dram_read_bytes"):
            counts[name] = np.where(has_weights, one.layers[name], counts[name])
    return Counts(workload, accelerator, counts, replace(one.plan, samples=samples))


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


def dataflow_code(accelerator: Accelerator) -> int:
    """The kernels' number of the accelerator's dataflow; 3 is best."""
    return CODES.get(accelerator.dataflow, 3)
