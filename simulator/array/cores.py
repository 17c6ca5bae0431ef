"""Layers on several equal cores, each with its own buffers, on one DRAM channel: who runs what, and what all take.

A layer runs on one core, or is cut by `samples`, or by `outputs` (the filters of each group, as evenly as they go); the
cores that have a part share the bandwidth evenly, and the layer ends with the slowest. Each part fetches its own
operands: what parts have in common (weights; inputs) is fetched by each of them. All parts of a layer run by one
schedule, that of the larger part. Vector layers are cut over all cores. Nothing stays in a core from layer to layer,
but resident weights, of which each has those that it uses. Every core leaks all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from simulator.accelerator import MOST_ELEMENTS, Accelerator
from simulator.array.memory import network_bytes
from simulator.array.schedule import Plan, RowStationary, Schedule, Split
from simulator.array.shapes import COUNTS
from simulator.array.tiling_kernels import cost_of
from simulator.workload import Layer, Workload, linear, stored_name

Rows = tuple[np.ndarray, Mapping[str, Schedule | RowStationary]]  # COUNTS[layers], schedules by layer
Run = Callable[[Workload, Accelerator, "Plan | None"], Rows]  # on one core
NOT_ADDED = {"dataflow", "cycles", "array_cycles", "stall_cycles", "utilization", "mapping_efficiency"}
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Parts:
    """Of a layer: the larger part and how many cores have it; a smaller one, and how many have that."""

    larger: Layer
    larger_cores: int
    smaller: Layer | None = None
    smaller_cores: int = 0

    @property
    def cores(self) -> int:
        """That have a part."""
        return self.larger_cores + self.smaller_cores


def parts_of(layer: Layer, cores: int, split: Split) -> Parts:
    """How a layer is cut.

    >>> cut = parts_of(linear("fc", 1, 64, 10), 4, "outputs")
    >>> (cut.larger_cores, cut.larger.n), (cut.smaller_cores, cut.smaller.n)
    ((2, 3), (2, 2))
    >>> parts_of(linear("fc", 1, 64, 10, batch=6), 4, "samples").cores  # evenly
    3
    """
    if split == "samples":
        used = next(c for c in range(min(cores, layer.batch), 0, -1) if layer.batch % c == 0)
        return Parts(replace(layer, batch=layer.batch // used), used)
    filters = layer.out_channels // layer.groups
    used = min(cores, filters)
    least, more = divmod(filters, used)
    if more == 0:
        return Parts(_filters(layer, least), used)
    return Parts(_filters(layer, least + 1), more, _filters(layer, least), used - more)


def _filters(layer: Layer, number: int) -> Layer:
    """So many filters of each group of a layer."""
    filters = layer.out_channels // layer.groups
    n, weights = layer.n // filters * number, layer.weights // filters * number
    return replace(layer, out_channels=layer.groups * number, n=n, weights=weights)


def shares(workload: Workload, layer: Layer, cores: int, plan: Plan) -> Iterator[tuple[int, int, Layer]]:
    """(core, first of the layer's n, part) of each core that has a part; the first core has what is not cut.

    >>> net = Workload("n", (linear("fc", 1, 64, 10),))
    >>> [(core, first, part.n) for core, first, part in shares(net, net.layers[0], 4, Plan({}, 1, {"fc": "outputs"}))]
    [(0, 0, 3), (1, 3, 3), (2, 6, 2), (3, 8, 2)]
    """
    split = plan.splits.get(layer.name)
    if split is None:
        yield 0, 0, layer
        return
    cut, first = parts_of(replace(layer, batch=layer.batch * plan.samples // workload.batch), cores, split), 0
    for core in range(cut.cores):
        part = cut.larger if core < cut.larger_cores or cut.smaller is None else cut.smaller
        yield core, first, part
        first += part.n if split == "outputs" else 0


def core_bytes(workload: Workload, machine: Accelerator, plan: Plan) -> list[float]:
    """Bytes of the weights that each core uses, and of all constants that are not looked up in them."""
    if machine.cores == 1:
        return [network_bytes(workload, machine)]
    constants = sum(layer.constants for layer in workload.layers if not layer.weights)
    held: list[dict[tuple[str, int, int, int], int]] = [{} for _ in range(machine.cores)]
    for layer in workload.layers:
        for core, first, part in shares(workload, layer, machine.cores, plan) if layer.weights else ():
            held[core][stored_name(layer), layer.weight_offset, first, part.weights] = part.weights
    return [(sum(each.values()) + constants) * machine.weight_bits / 8 for each in held]


def run_on_cores(
    workload: Workload, machine: Accelerator, run: Run, price: np.void, objective: int, plan: Plan | None = None
) -> tuple[np.ndarray, Plan]:
    """(COUNTS[layers] of all cores together, how each layer ran): as the plan says, or where it costs least.

    What would take longer than on one core is not chosen.
    """
    batch = workload.batch * machine.batch
    layers = [replace(x, batch=x.batch * machine.batch, weight_name=x.name, weight_offset=0) for x in workload.layers]
    lanes = min(MOST_ELEMENTS, machine.vector_lanes * machine.cores)
    one = replace(machine, cores=1, batch=1, vector_lanes=lanes)
    alone = {i for i, x in enumerate(layers) if x.on_array and (plan is None or x.name not in plan.splits)}
    whole = replace(workload, layers=_others_small(layers, {i: layers[i] for i in alone}))
    rows, schedules = run(whole, one, None if plan is None else _only(plan, layers, alone))
    found = {layers[i].name: schedules[layers[i].name] for i in alone}
    for name in ("utilization", "mapping_efficiency"):
        rows[name] /= machine.cores
    splits: dict[str, Split] = {}
    for split, cores, cuts in _cuts(layers, machine.cores, plan):
        shared = replace(one, dram_bytes_per_cycle=machine.dram_bytes_per_cycle / cores)
        net = replace(workload, layers=_others_small(layers, {i: cut.larger for i, cut in cuts.items()}))
        large, by = run(net, shared, None if plan is None else _only(plan, layers, set(cuts)))
        rest = {i: cut.smaller for i, cut in cuts.items() if cut.smaller is not None}
        small = np.zeros_like(large)
        if rest:
            smaller = {layers[i].name: fitted(by[layers[i].name], part) for i, part in rest.items()}
            net = replace(workload, layers=_others_small(layers, rest))
            small, _ = run(net, shared, _only(Plan(smaller, batch), layers, set(rest)))
        for i, cut in cuts.items():
            row, name = _together(large[i : i + 1], small[i : i + 1], cut, machine), layers[i].name
            if plan is None:
                results = layers[i].batch * layers[i].groups * layers[i].m * layers[i].n
                before, after = (cost_of(x[0], price, objective, results) for x in (rows[i : i + 1], row))
                if row["cycles"][0] > rows["cycles"][i] or after >= before:
                    continue
            rows[i], found[name], splits[name] = row[0], by[name], split
    ordered = {x.name: found[x.name] for x in layers if x.on_array}
    return rows, Plan(ordered, batch, splits)


def _cuts(layers: list[Layer], cores: int, plan: Plan | None) -> Iterator[tuple[Split, int, dict[int, Parts]]]:
    """(split, cores, layers that are cut so) of all that the plan asks for, or that may be tried."""
    for split in SPLITS:
        by_cores: dict[int, dict[int, Parts]] = {}
        for i, layer in enumerate(layers):
            if layer.on_array and (plan is None or plan.splits.get(layer.name) == split):
                cut = parts_of(layer, cores, split)
                if cut.cores > 1 or plan is not None:
                    by_cores.setdefault(cut.cores, {})[i] = cut
        for used, cuts in by_cores.items():
            yield split, used, cuts


def _others_small(layers: list[Layer], kept: Mapping[int, Layer]) -> tuple[Layer, ...]:
    """The layers that are kept among others that take next to nothing, in the same graph."""
    return tuple(
        kept.get(i) or (linear(x.name, 1, 1, 1, sources=x.sources) if x.on_array else x) for i, x in enumerate(layers)
    )


def _only(plan: Plan, layers: list[Layer], kept: set[int]) -> Plan:
    """The plan for the kept layers, with something that fits for the others."""
    by: dict[str, Schedule | RowStationary] = {}
    rows = any(isinstance(s, RowStationary) for s in plan.layers.values())
    for i, layer in enumerate(layers):
        if layer.on_array:
            small = RowStationary(1, 1, 1, 1, 1, 1, 1) if rows else Schedule("ws", 1, 1, 1, 1)
            by[layer.name] = plan.get(layer) if i in kept else small
    return Plan(by, plan.samples)


def fitted(by: Schedule | RowStationary, part: Layer) -> Schedule | RowStationary:
    """The schedule of the larger part for a smaller one."""
    if isinstance(by, RowStationary):
        return replace(by, m=min(by.m, part.n), p=min(by.p, part.n))
    return replace(by, n=min(by.n, part.n))


def _together(large: np.ndarray, small: np.ndarray, cut: Parts, machine: Accelerator) -> np.ndarray:
    """COUNTS[1] of all cores that have a part of a layer."""
    row = large.copy()
    for name in set(COUNTS.names or ()) - NOT_ADDED:
        row[name] = cut.larger_cores * large[name] + cut.smaller_cores * small[name]
    slowest = large if large["cycles"][0] >= small["cycles"][0] else small
    for name in ("cycles", "array_cycles", "stall_cycles"):
        row[name] = slowest[name]
    row["utilization"] = row["macs"] / (row["cycles"] * machine.array_rows * machine.array_cols * machine.cores)
    row["mapping_efficiency"] *= cut.cores / machine.cores
    return row
