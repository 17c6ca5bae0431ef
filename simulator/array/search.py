"""The cheapest schedule of each layer: which tiles and loop orders are tried (schedule.py, tiling_kernels.py).

Candidates do not depend on buffers or bandwidth, so more of either never costs more. They are all tile sizes of an
axis of at most FEW units, else the smallest size for each number of tiles (a larger one needs more room for as many
fetches); units are rows of the array for taps, its columns for filters, pixels of a row, rows, or samples. Where the
three axes have more than MOST combinations, sizes are thinned out, evenly in their logarithm. A candidate is left out
only if by a lower bound it costs more than another (tiling_kernels.least_tiled, least_untiled). Of a shared buffer
inputs get what the file gives them, or some eighths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from simulator.accelerator import Accelerator
from simulator.array import tiling_kernels as kernels
from simulator.array.dataflow import CODES, NAMES
from simulator.array.memory import window_of
from simulator.array.memory_kernels import axis_touched, channel_visits
from simulator.array.schedule import ORDER_NAMES, Flow, Order, Plan, Schedule
from simulator.array.shapes import COUNTS, SHAPE, machine_record, shapes_of
from simulator.figures import PRICES, EnergyTable, Figures, published
from simulator.operating_point import NOMINAL
from simulator.workload import Layer, Workload
from sram.errors import InputError

FEW, MOST, BLOCKS = 16, 20_000, 5
OBJECTIVES = {"energy": kernels.ENERGY, "cycles": kernels.CYCLES, "edp": kernels.EDP}
EIGHTHS = 8  # of a shared buffer: what the inputs of a layer may have, beside the split of the file
CHOICE = np.dtype([(name, np.int64) for name in ("dataflow", "blocks", "m", "k", "n", "order", "split")], align=True)
ALL_ORDERS = (2 << kernels.UNTILED) - 1  # and none
OF_SAMPLES = ("m", "outputs", "valid", "unique", "pixels", "row_tile_sum", "col_tile_sum")  # fields of SHAPE


class Tiles(NamedTuple):
    """Candidates of one layer: rows as tiling_kernels has them, and how many blocks the samples are cut into."""

    m: np.ndarray
    k: np.ndarray
    n: np.ndarray
    blocks: tuple[int, ...]


class Tables(NamedTuple):
    """Candidates of all layers, one after the other, as tiling_kernels.search_machines takes them."""

    shapes: np.ndarray
    blocks: np.ndarray
    m: np.ndarray
    k: np.ndarray
    n: np.ndarray
    first: np.ndarray
    same: np.ndarray
    orders: np.ndarray


def sizes(count: int, few: int = FEW) -> list[int]:
    """Tile sizes to try for an axis of `count` units.

    >>> sizes(3), sizes(100)[:4]
    ([1, 2, 3], [1, 2, 3, 4])
    """
    if count <= few:
        return list(range(1, count + 1))
    found, tiles = {count}, 1
    while tiles < count:
        size = -(-count // tiles)
        found.add(size)
        if size == 1:
            break
        tiles = -(-count // (size - 1))  # the fewest tiles of a smaller size
    return sorted(found | {1})


def thinned(values: Sequence[int], most: int) -> list[int]:
    """At most `most` of rising values, the first and the last among them, evenly in the logarithm of their place.

    >>> thinned([1, 2, 3, 4, 6, 12, 24], 4)
    [1, 3, 6, 24]
    """
    if len(values) <= most:
        return list(values)
    marks = np.geomspace(values[0], values[-1], most)
    logs = np.log(np.array(values, float))
    return [values[i] for i in sorted({int(np.argmin(np.abs(logs - np.log(mark)))) for mark in marks})]


def tiles_of(layer: Layer, batch: int, rows: int, cols: int) -> Tiles:
    """The candidates of a layer that `batch` samples run through together."""
    pairs = layer.kind == "matmul"
    return _tiles(window_of(layer), layer.k, layer.n, 1 if pairs else batch, rows, cols)


@lru_cache(maxsize=4096)
def _tiles(window: tuple[int, ...], k: int, n: int, samples: int, rows: int, cols: int) -> Tiles:
    blocks = tuple(thinned([b for b in range(1, samples + 1) if samples % b == 0], BLOCKS))
    of_block = [_m_sizes(window, samples // b) for b in blocks]
    k_sizes, n_sizes = sizes(-(-k // rows)), sizes(-(-n // cols))
    lengths = [max(map(len, of_block)), len(k_sizes), len(n_sizes)]
    while len(blocks) * math.prod(lengths) > MOST and max(lengths) > 3:
        longest = lengths.index(max(lengths))
        lengths[longest] = max(3, min(lengths[longest] - 1, lengths[longest] * 7 // 8))
    of_block = [thinned(m_sizes, lengths[0]) for m_sizes in of_block]
    k_sizes, n_sizes = thinned(k_sizes, lengths[1]), thinned(n_sizes, lengths[2])
    places = [(block, size) for block, m_sizes in enumerate(of_block) for size in m_sizes]
    m = np.array([m_tile(window, samples // blocks[block], size, block) for block, size in places])
    of_taps = k_tiles(k, window[2] * window[3], [size * rows for size in k_sizes])
    return Tiles(m, of_taps, n_tiles(n, [size * cols for size in n_sizes]), blocks)


def _m_sizes(window: tuple[int, ...], samples: int) -> list[int]:
    """Pixels of a tile: parts of a row, whole rows, whole samples."""
    out_h, out_w = window[10], window[11]
    parts = [size for size in sizes(out_w) if size < out_w]
    whole_rows = [out_w * size for size in sizes(out_h) if size < out_h]
    return [*parts, *whole_rows, *(out_w * out_h * size for size in sizes(samples))]


def m_tile(window: tuple[int, ...], samples: int, size: int, block: int = 0) -> list[int]:
    """Columns BLOCK to LARGEST of tiles of `size` output pixels in a block of `samples`; see `_m_sizes`."""
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window
    high, wide = min(out_h, max(1, size // out_w)), min(out_w, size)  # of a tile
    across, widest = axis_touched(out_w, wide, in_w, kw, sw, left, dw)
    down, highest = axis_touched(out_h, high, in_h, kh, sh, top, dh)
    touched, largest = samples * across * down, widest * highest
    if size < out_w:
        turns, last, times = out_w // size, out_w % size, samples * out_h
    elif size < out_w * out_h:
        turns, last, times = out_h // high, out_h % high * out_w, samples
    else:
        together = size // (out_w * out_h)
        turns, last, times = samples // together, samples % together * out_w * out_h, 1
        largest *= together
    return [block, size, times * turns, last, times * (last > 0), touched, largest]


def k_tiles(k: int, taps: int, tile_sizes: Sequence[int]) -> np.ndarray:
    """Rows TILE to VISITED for each size."""
    found = []
    for size in tile_sizes:
        size = min(size, k)
        found.append([size, k // size, k % size, int(k % size > 0), *channel_visits(k, taps, size)])
    return np.array(found)


def n_tiles(n: int, tile_sizes: Sequence[int]) -> np.ndarray:
    """Rows TILE to LASTS for each size."""
    return np.array([[min(s, n), n // min(s, n), n % min(s, n), int(n % min(s, n) > 0)] for s in tile_sizes])


def tables_of(workload: Workload, accelerator: Accelerator, plan: Plan | None = None) -> Tables:
    """The candidates of all layers; those of a plan alone if there is one."""
    base = shapes_of(workload, accelerator)
    parts: list[tuple[np.ndarray, ...]] = []
    first, same, orders = [np.zeros(4, np.int64)], [], []
    seen: dict[tuple[object, ...], int] = {}
    for i, layer in enumerate(workload.layers):
        batch = layer.batch * accelerator.batch
        order = ALL_ORDERS
        if not layer.on_array:
            tiles = Tiles(np.zeros((0, 7), np.int64), np.zeros((0, 6), np.int64), np.zeros((0, 4), np.int64), (1,))
        elif plan is None:
            tiles = tiles_of(layer, batch, accelerator.array_rows, accelerator.array_cols)
        else:
            tiles, order = _planned(layer, batch, plan.of(layer))
        key = (plan and layer.on_array and plan.of(layer), *(part.tobytes() for part in (base[i], *tiles[:3])), order)
        same.append(seen.setdefault(key, i))
        orders.append(order)
        shape = np.repeat(base[i : i + 1], len(tiles.blocks))
        for name in OF_SAMPLES:
            shape[name] //= np.array(tiles.blocks)
        parts.append((shape, np.array(tiles.blocks), tiles.m, tiles.k, tiles.n))
        first.append(first[-1] + np.array([len(part) for part in parts[-1][1:]]))
    shapes, blocks, m, k, n = (np.concatenate([part[j] for part in parts]) for j in range(5))
    return Tables(shapes.astype(SHAPE), blocks, m, k, n, np.array(first), np.array(same), np.array(orders))


def _planned(layer: Layer, batch: int, schedule: Schedule) -> tuple[Tiles, int]:
    """The one candidate that a schedule is; InputError for a tile that the layer cannot be cut into."""
    window = window_of(layer)
    samples = 1 if layer.kind == "matmul" else batch
    if samples % schedule.samples:
        raise InputError(layer.name, "samples", schedule.samples, f"a divisor of {samples}, the samples of the layer")
    out_h, out_w = window[10], window[11]
    limits = {"m": out_h * out_w * schedule.samples, "k": layer.k, "n": layer.n}
    for name, most in limits.items():
        if getattr(schedule, name) > most:
            raise InputError(layer.name, name, getattr(schedule, name), f"1 to {most}")
    unit = 1 if schedule.m < out_w else out_w if schedule.m < out_w * out_h else out_w * out_h
    if schedule.m % unit:
        raise InputError(layer.name, "m", schedule.m, f"less than {out_w}, or a multiple of {unit}")
    m = np.array([m_tile(window, schedule.samples, schedule.m)])
    k, n = k_tiles(layer.k, window[2] * window[3], [schedule.k]), n_tiles(layer.n, [schedule.n])
    turns = (int(m[0, kernels.M_WHOLE] + m[0, kernels.M_LASTS]), *(int(t[0, 1] + t[0, 3]) for t in (k, n)))
    order = [letter for letter in schedule.order if turns["mkn".index(letter)] > 1]
    order += [letter for letter in "mkn" if letter not in order]
    number = kernels.UNTILED if turns == (1, 1, 1) else ORDER_NAMES.index("".join(order))
    return Tiles(m, k, n, (samples // schedule.samples,)), 1 << number


def prices_of(accelerator: Accelerator, table: EnergyTable | None = None) -> np.ndarray:
    """PRICES[1] at nominal supplies; zeros where the objective asks for no energy."""
    if accelerator.objective == "cycles":
        return np.zeros(1, PRICES)
    return Figures(accelerator, table or published(), NOMINAL.volts(accelerator)).prices()


def flows_of(accelerator: Accelerator) -> int:
    """Bits of the dataflows that the accelerator can run."""
    return 7 if accelerator.dataflow == "best" else 1 << CODES[accelerator.dataflow]


def search(
    workload: Workload, machines: Sequence[Accelerator], prices: np.ndarray, plan: Plan | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(COUNTS[machines, layers], CHOICE[machines, layers]) of machines with the same array and the same objective, that
    keep the same outputs on chip and the same weights."""
    tables = tables_of(workload, machines[0], plan)
    rooms = [rooms_of(machine, plan) for machine in machines]
    records = np.array([[_split(m, room)[0] for room in parts] for m, parts in zip(machines, rooms, strict=True)])
    splits = np.full(len(workload.layers), kernels.ALL_SPLITS)
    flows = np.tile([[flows_of(machine)] for machine in machines], len(workload.layers))
    if plan is not None:
        splits[:] = [rooms[0].index(plan.of(x).ifmap_bytes) if x.on_array else 0 for x in workload.layers]
        flows[:] = [1 << CODES[plan.of(layer).dataflow] if layer.on_array else 0 for layer in workload.layers]
    counts = np.zeros((len(machines), len(workload.layers)), COUNTS)
    choices = np.zeros((len(machines), len(workload.layers)), CHOICE)
    objective = OBJECTIVES[machines[0].objective]
    refused = kernels.search_machines(
        tables.shapes, tables.blocks, tables.m, tables.k, tables.n, tables.first, tables.same, records, splits,
        flows, tables.orders, prices, objective, counts, choices, np.zeros(3, COUNTS),
    )  # fmt: skip
    if refused >= 0:
        layer = workload.layers[refused]
        if plan is not None:
            raise InputError(layer.name, "schedule", plan.of(layer), "tiles whose operands fit in the buffers")
        shape = tables.shapes[tables.first[refused, 0]]
        size = " x ".join(str(int(shape[name])) for name in ("products", "m", "k", "n"))
        allowed = "a layer with fewer transfers through DRAM: fewer samples, larger buffers, a larger array"
        raise InputError(workload.name, f"{layer.name}, products x m x k x n", size, allowed)
    return counts, choices


def rooms_of(machine: Accelerator, plan: Plan | None = None) -> list[int]:
    """Bytes that inputs may fill of a shared buffer, the file's own part (0) first; those of a plan if there is one.

    >>> from dataclasses import replace
    >>> from simulator.accelerator import accelerator
    >>> machine = accelerator("paper")
    >>> rooms_of(machine), rooms_of(replace(machine, buffers="shared"))[:3]
    ([0], [0, 32768, 65536])
    """
    record = machine_record(machine)[0]
    pool = int(record["ifmap_room"] + record["psum_room"])
    if plan is not None:
        most = pool if machine.buffers == "shared" else 0
        for name, one in plan.layers.items():
            if isinstance(one, Schedule) and one.ifmap_bytes > most:
                raise InputError(name, "ifmap_bytes", one.ifmap_bytes, f"at most {most}, what tiles may fill if shared")
        return sorted({0} | {one.ifmap_bytes for one in plan.layers.values() if isinstance(one, Schedule)})
    return [0] + [pool * i // EIGHTHS for i in range(1, EIGHTHS)] if machine.buffers == "shared" else [0]


def _split(machine: Accelerator, room: int) -> np.ndarray:
    """MACHINE[1] with so many bytes of the shared buffer for inputs; 0: as the file has it."""
    record = machine_record(machine)
    if room:
        record["psum_room"] += record["ifmap_room"] - room
        record["ifmap_room"] = room
        record["stage_bytes"] = np.minimum(room, record["filter_room"])
    return record


def schedules_of(
    workload: Workload, accelerator: Accelerator, choices: np.ndarray, plan: Plan | None = None
) -> dict[str, Schedule]:
    """Schedules by layer from CHOICE[layers]; rooms of inputs as of `rooms_of`."""
    found, rooms = {}, rooms_of(accelerator, plan)
    for layer, c in zip(workload.layers, choices, strict=True):
        if layer.on_array:
            flow, order = cast(Flow, NAMES[int(c["dataflow"])]), cast(Order, ORDER_NAMES[int(c["order"])])
            samples = samples_of(layer, accelerator) // int(c["blocks"])
            room = rooms[int(c["split"])]
            found[layer.name] = Schedule(flow, samples, int(c["m"]), int(c["k"]), int(c["n"]), order, room)
    return found


def untiled_of(workload: Workload, accelerator: Accelerator, counts: np.ndarray | None = None) -> dict[str, Schedule]:
    """The untiled schedule of each layer; where the accelerator can run several dataflows, with that of its counts."""
    found = {}
    for i, layer in enumerate(workload.layers):
        if layer.on_array:
            samples = samples_of(layer, accelerator)
            flow = cast(Flow, accelerator.dataflow if counts is None else NAMES[int(counts["dataflow"][i])])
            found[layer.name] = Schedule(flow, samples, samples * layer.m, layer.k, layer.n)
    return found


def samples_of(layer: Layer, accelerator: Accelerator) -> int:
    """Samples that share the operands of a product."""
    return 1 if layer.kind == "matmul" else layer.batch * accelerator.batch


def energy_of(counts: np.ndarray, price: np.void) -> float:
    """pJ of COUNTS[layers] by PRICES, but for MACs and registers, which no order of samples changes."""
    parts = [("ifmap_sram_reads", "ifmap_read"), ("ifmap_sram_writes", "ifmap_write")]
    parts += [("filter_sram_reads", "filter_read"), ("filter_sram_writes", "filter_write"), ("cycles", "cycle")]
    for operand in ("psum", "ofmap"):
        parts += [(f"{operand}_sram_{way}s", f"{operand}_{way}") for way in ("read", "write")]
    parts += [("ifmap_scratchpad_writes", "ifmap_delivery"), ("filter_scratchpad_writes", "filter_delivery")]
    parts += [("psum_hops", "hop")]
    parts += [(name, "dram_byte") for name in COUNTS.names or () if "_dram_" in name]
    return float(sum(counts[name].sum() * price[cost] for name, cost in parts))
