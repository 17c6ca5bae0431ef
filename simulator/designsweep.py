"""Thousands of accelerators on one workload: array shapes x buffers x dataflows, on all cores."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from simulator.accelerator import Accelerator, Dataflow
from simulator.area import area
from simulator.array import search
from simulator.array.cycles import Counts, check_resident, count_machines, dataflow_code, simulate
from simulator.array.memory import weights_stay
from simulator.array.schedule import Plan
from simulator.array.shapes import COUNTS, MACHINE, machine_record, shapes_of
from simulator.energy import energy
from simulator.figures import EnergyTable, energy_table
from simulator.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

POINTS_PER_TASK = 64  # bounds the memory of a task; layers x points rows of COUNTS are alive at a time


def sweep(
    workload: Workload,
    base: Accelerator,
    arrays: Sequence[tuple[int, int]],
    buffers: Sequence[tuple[int, int, int]],
    dataflows: Sequence[Dataflow] = ("os", "ws", "is"),
    table: EnergyTable | None = None,
    with_area: bool = False,
    progress: Callable[[int, int], object] = lambda done, points: None,
) -> pd.DataFrame:
    """Every combination of (rows, columns), (ifmap, weight, ofmap) capacities in bytes and dataflow; one row each.

    Everything else is as in `base`. Energies are of one inference with all rails nominal. `with_area`: a column
    `area_mm2`. `progress` is called with the points done and all points.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.workload import Workload, conv
    >>> net = Workload("stem", (conv("stem", 32, 32, 3, 64, kernel=3, padding=1),))
    >>> found = sweep(net, accelerator("paper"), [(8, 8), (32, 32)], [(65536, 65536, 65536)], ["os", "ws"])
    >>> found.sort_values("cycles")[["array_rows", "dataflow"]].values.tolist()[0]
    [32, 'ws']
    """
    import pandas as pd

    table = table or energy_table()
    tasks = list(_tasks(base, arrays, buffers, dataflows))
    points = sum(len(task) for task in tasks)
    rows: list[dict[str, object]] = []
    # Threads: the kernels leave the interpreter alone while they run, and share one compiled copy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda task: _run(workload, task, table), tasks):
            rows += found
            progress(len(rows), points)
    found = pd.DataFrame(rows)
    if with_area:
        found["area_mm2"] = [area(machine, table).mm2 for task in tasks for machine in task]
    return found


def _tasks(
    base: Accelerator,
    arrays: Sequence[tuple[int, int]],
    buffers: Sequence[tuple[int, int, int]],
    dataflows: Sequence[Dataflow],
) -> Iterator[list[Accelerator]]:
    """Machines that share what is derived from the array's shape and the output buffer."""
    by_output = sorted(buffers, key=lambda sizes: sizes[2])
    for rows, cols in arrays:
        for _, group in itertools.groupby(by_output, key=lambda sizes: sizes[2] if base.keep_on_chip else None):
            machines = [
                replace(
                    base,
                    array_rows=rows,
                    array_cols=cols,
                    dataflow=dataflow,
                    ifmap_buffer=replace(base.ifmap_buffer, capacity_bytes=ifmap),
                    weight_buffer=replace(base.weight_buffer, capacity_bytes=weight),
                    ofmap_buffer=replace(base.ofmap_buffer, capacity_bytes=ofmap),
                )
                for ifmap, weight, ofmap in group
                for dataflow in dataflows
            ]
            for first in range(0, len(machines), POINTS_PER_TASK):
                yield machines[first : first + POINTS_PER_TASK]


def _run(workload: Workload, machines: list[Accelerator], table: EnergyTable) -> list[dict[str, object]]:
    first = machines[0]
    batched = workload.batch * first.batch > 1  # together or sample by sample: simulate knows
    if first.cores > 1 or (first.schedule == "search" and (batched or first.dataflow == "rs")):
        return [_row(simulate(workload, machine, table=table), table) for machine in machines]
    for machine in machines:
        check_resident(workload, machine, Plan({}))
    if first.schedule == "search":
        return [_row(counts, table) for counts in _searched(workload, machines, table)]
    shapes = shapes_of(workload, first)
    records = np.concatenate([machine_record(machine) for machine in machines]).astype(MACHINE)
    codes = np.array([dataflow_code(machine) for machine in machines])
    counts = count_machines(workload, shapes, records, codes)
    return [_row(Counts(workload, m, layers), table) for m, layers in zip(machines, counts, strict=True)]


def _searched(workload: Workload, machines: list[Accelerator], table: EnergyTable) -> Iterator[Counts]:
    """In the order of the machines; those that keep the same weights are searched together."""
    stays = [tuple(weights_stay(workload, machine)) for machine in machines]
    found: dict[int, np.ndarray] = {}
    for kept in dict.fromkeys(stays):
        places = [i for i, one in enumerate(stays) if one == kept]
        alike = [machines[i] for i in places]
        prices = np.concatenate([search.prices_of(machine, table) for machine in alike])
        counts, _ = search.search(workload, alike, prices)
        found |= dict(zip(places, counts, strict=True))
    return (Counts(workload, machine, found[i]) for i, machine in enumerate(machines))


def _row(counts: Counts, table: EnergyTable) -> dict[str, object]:
    machine, rows = counts.accelerator, counts.layers
    spent = energy(counts, table=table)
    traffic = [name for name in COUNTS.names or () if "_dram_" in name]
    on_array = rows["macs"] > 0
    peak = machine.cores * machine.array_rows * machine.array_cols * rows["cycles"][on_array].sum()
    return {
        "array_rows": machine.array_rows,
        "array_cols": machine.array_cols,
        "dataflow": machine.dataflow,
        "ifmap_buffer_bytes": machine.ifmap_buffer.capacity_bytes,
        "weight_buffer_bytes": machine.weight_buffer.capacity_bytes,
        "ofmap_buffer_bytes": machine.ofmap_buffer.capacity_bytes,
        "cycles": counts.cycles,
        "stall_cycles": int(rows["stall_cycles"].sum()),
        "latency_s": counts.latency_s,
        "utilization_pct": 100 * float(rows["macs"].sum() / max(1, peak)),
        "dram_bytes": sum(int(rows[name].sum()) for name in traffic),
        "energy_weight_sram_pj": spent.weight_sram_pj,
        "energy_sram_pj": spent.sram_pj,
        "energy_system_pj": spent.system_pj,
    }
