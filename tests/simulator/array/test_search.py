"""Does a tiled schedule move and take what a walk through its loops does, and is the one that is found the best?"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, accelerator
from simulator.array import memory_kernels, search, tiling_kernels
from simulator.array.cycles import simulate
from simulator.array.dataflow_kernels import gemm_cycles
from simulator.array.memory import window_of
from simulator.array.schedule import ORDER_NAMES, Plan, Schedule
from simulator.energy import energy
from simulator.figures import EnergyTable, Entry, energy_table
from simulator.workload import Workload, conv, linear, matmul
from sram.errors import InputError

PAPER = replace(accelerator("paper"), schedule="search")
TRAFFIC = ("ifmap_dram_read_bytes", "filter_dram_read_bytes", "psum_dram_read_bytes")
ALL_TRAFFIC = (*TRAFFIC, "psum_dram_write_bytes", "ofmap_dram_write_bytes")
# An access costs the same whatever the capacity, so that more of it can only help.
FLAT = EnergyTable(
    "flat",
    energy_table().entries
    | {
        f"{buffer}_buffer_{what}": Entry(value, unit, "any", "none", 22, 0.8)
        for buffer in ("ifmap", "weight", "ofmap")
        for what, value, unit in (("read", 3.0, "pJ"), ("write", 4.0, "pJ"), ("leakage", 0.01, "mW"))
    },
)


def only(layer, machine, schedule=None):
    plan = None if schedule is None else Plan({layer.name: schedule}, layer.batch)
    return simulate(Workload("one", (layer,), batch=layer.batch), machine, plan, FLAT).layers[0]


def spent(layer, machine, schedule=None):
    plan = None if schedule is None else Plan({layer.name: schedule}, layer.batch)
    counts = simulate(Workload("one", (layer,), batch=layer.batch), machine, plan, FLAT)
    pj = energy(counts, table=FLAT).system_pj * layer.batch
    return {"cycles": counts.cycles, "energy": pj, "edp": pj * counts.cycles}[machine.objective]


@st.composite
def layers(draw, most_batch=3):
    kind = draw(st.sampled_from(["conv", "conv", "conv", "linear", "matmul"]))
    batch = draw(st.integers(1, most_batch))
    if kind == "linear":
        return linear("l", draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 40)), batch=batch)
    if kind == "matmul":
        return matmul("l", *(draw(st.integers(1, 20)) for _ in range(3)), groups=draw(st.integers(1, 3)), batch=batch)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return conv(
        "l",
        draw(st.integers(6, 12)),
        draw(st.integers(6, 12)),
        groups * draw(st.integers(1, 6)),
        groups * draw(st.integers(1, 12)),
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        transposed=draw(st.sampled_from([False, False, True])),
        batch=batch,
    )


@st.composite
def machines(draw, flows=("os", "ws", "is", "best")):
    buffers = [Buffer(draw(st.integers(40, 6_000)), double=draw(st.booleans())) for _ in range(3)]
    return replace(
        PAPER,
        array_rows=draw(st.integers(1, 9)),
        array_cols=draw(st.integers(1, 9)),
        dataflow=draw(st.sampled_from(flows)),
        ifmap_buffer=buffers[0],
        weight_buffer=buffers[1],
        ofmap_buffer=buffers[2],
        dram_bytes_per_cycle=draw(st.sampled_from([0.3, 1.0, 4.0, 1000.0])),
        dram_latency_cycles=draw(st.sampled_from([0, 10])),
        double_buffered_registers=draw(st.booleans()),
        skip_idle_rows=draw(st.booleans()),
        objective=draw(st.sampled_from(["edp", "energy", "cycles"])),
    )


def every_schedule(layer, machine):
    """All schedules of a layer that the record can name with tiles of whole folds."""
    window = window_of(layer)
    out_h, out_w = window[10], window[11]
    pairs = layer.kind == "matmul"
    samples = 1 if pairs else layer.batch
    flows = ("os", "ws", "is") if machine.dataflow == "best" else (machine.dataflow,)
    for block in (b for b in range(1, samples + 1) if samples % b == 0):
        m_sizes = {
            *range(1, out_w),
            *(out_w * y for y in range(1, out_h)),
            *(out_w * out_h * s for s in range(1, block + 1)),
        }
        k_sizes = {min(layer.k, machine.array_rows * i) for i in range(1, -(-layer.k // machine.array_rows) + 1)}
        n_sizes = {min(layer.n, machine.array_cols * i) for i in range(1, -(-layer.n // machine.array_cols) + 1)}
        for flow, m, k, n in itertools.product(flows, m_sizes, k_sizes, n_sizes):
            orders = ORDER_NAMES if (m, k, n) != (block * out_h * out_w, layer.k, layer.n) else ("mkn",)
            for order in orders:
                yield Schedule(flow, block, m, k, n, order)


# --- one schedule -----------------------------------------------------------------------------------------------------


def walk(layer, machine, s):
    """What a patient controller brings: for each tile the words of inputs and filters that are not there yet."""
    window = window_of(layer)
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window
    taps = kh * kw
    pairs = layer.kind == "matmul"
    samples = 1 if pairs else layer.batch
    products = layer.groups * (layer.batch if pairs else 1)
    blocks = samples // s.samples
    unit = out_h * out_w

    def pixels(first, last):
        found = set()
        for p in range(first, last):
            sample, at = divmod(p, unit)
            y0, x0 = at // out_w * sh - top, at % out_w * sw - left
            for y in range(y0, y0 + kh * dh, dh):
                found |= {(sample, y, x) for x in range(x0, x0 + kw * dw, dw) if 0 <= y < in_h and 0 <= x < in_w}
        return found

    def cuts(total, size, within=0):
        edges, at = [], 0
        while at < total:
            end = min(at + size, total)
            if within:
                end = min(end, (at // within + 1) * within)
            edges.append((at, end))
            at = end
        return edges

    m_all = s.samples * unit
    within = out_w if s.m < out_w else unit if s.m < unit else 0
    tiles = {"m": cuts(m_all, s.m, within), "k": cuts(layer.k, s.k), "n": cuts(layer.n, s.n)}
    loops = ["p", "b", *s.order]
    turns = [products, blocks, *(len(tiles[x]) for x in s.order)]
    cached = {edge: pixels(*edge) for edge in tiles["m"]}
    channels = {e: set(range(e[0] // taps, (e[1] - 1) // taps + 1)) for e in tiles["k"]}
    room_i, room_f = machine.ifmap_buffer.usable_bytes, machine.weight_buffer.usable_bytes

    def words_of(x, index):
        at = dict(zip(loops, index, strict=True))
        m, k, n = (tiles[y][at[y]] for y in "mkn")
        if x == "i":
            return {(at["p"], at["b"], c, q) for c in channels[k] for q in cached[m]}
        return {(at["p"], i, j) for i in range(*k) for j in range(*n)}

    def inside(x, loop):
        """Most bytes of the operand that the loops inside `loop` bring."""
        free = loops[loops.index(loop) + 1 :]
        if x == "i":
            most_m = len(set().union(*cached.values())) if "m" in free else max(map(len, cached.values()))
            return most_m * (layer.k // taps if "k" in free else max(map(len, channels.values())))
        return (layer.k if "k" in free else max(b - a for a, b in tiles["k"])) * (
            layer.n if "n" in free else max(b - a for a, b in tiles["n"])
        )

    all_taps = max(map(len, cached.values())) * (layer.k // taps)

    def one_tile_of_m(outside):
        return "m" in outside or len(tiles["m"]) == 1

    relevant = {"i": "pbmk", "f": "pkn"}
    room = {"i": room_i, "f": room_f}
    held: dict[str, set] = {"i": set(), "f": set()}
    steps, before = [], None
    for index in itertools.product(*(range(t) for t in turns)):
        moved = {}
        for x in "if":
            new = words_of(x, index)
            if before is not None:
                j = next(a for a in range(5) if index[a] != before[a])
                lasting = [
                    a
                    for a in range(5)
                    if loops[a] not in relevant[x] and turns[a] > 1 and inside(x, loops[a]) <= room[x]
                ]
                if loops[j] in relevant[x]:
                    if lasting and j > min(lasting):
                        pass  # all that this loop brings stays
                    elif (
                        x == "i"
                        and loops[j] == "m"
                        and (turns[loops.index("k")] == 1 or "k" in loops[:j] or inside(x, "m") <= room[x])
                    ):
                        pass  # the halo of the tile before
                    elif x == "i" and loops[j] == "k" and one_tile_of_m(loops[:j]) and all_taps <= room_i:
                        pass  # all taps of these pixels
                    else:
                        held[x] = set()
                elif j not in lasting and any(loops[a] in relevant[x] and turns[a] > 1 for a in range(j + 1, 5)):
                    held[x] = set()
            moved[x] = len(new - held[x])
            held[x] |= new
        steps.append((moved["i"], moved["f"], index))
        before = index
    return steps


def one_of(data, layer, machine):
    found = list(every_schedule(layer, machine))
    return found[data.draw(st.integers(0, len(found) - 1))]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(most_batch=2), machines(("os", "ws", "is")), st.data())
def test_traffic_is_that_of_a_walk_through_the_loops(layer, machine, data):
    schedule = one_of(data, layer, machine)
    untiled = (schedule.m, schedule.k, schedule.n) == (schedule.samples * layer.m, layer.k, layer.n)
    assume(not untiled)
    try:
        got = only(layer, machine, schedule)
    except InputError:
        return  # a tile that does not fit
    steps = walk(layer, machine, schedule)
    assert got["ifmap_dram_read_bytes"] == sum(step[0] for step in steps)
    assert got["filter_dram_read_bytes"] == sum(step[1] for step in steps)
    assert got["ofmap_dram_write_bytes"] == layer.batch * layer.ofmap_elements
    assert got["macs"] == layer.macs


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data(), machines(("os", "ws", "is")), st.sampled_from(ORDER_NAMES))
def test_time_is_that_of_halves_swapped_when_array_and_channel_are_done(data, machine, order):
    """Whole tiles alone, so that all are alike: step by step, and by memory_kernels.run where nothing is written."""
    turns = [data.draw(st.integers(1, 4)) for _ in range(3)]
    m, k, n = data.draw(st.integers(1, 5)), machine.array_rows * data.draw(st.integers(1, 3)), machine.array_cols
    layer = matmul("l", m * turns[0], k * turns[1], n * turns[2], groups=data.draw(st.integers(1, 3)))
    assume(max(turns) > 1)
    big = replace(machine, ofmap_buffer=Buffer(1 << 30))  # no sums are lost
    try:
        got = only(layer, big, Schedule(machine.dataflow, 1, m, k, n, order))
    except InputError:
        return
    flow = {"os": 0, "ws": 1, "is": 2}[machine.dataflow]
    args = machine.array_rows, machine.array_cols, machine.double_buffered_registers, machine.skip_idle_rows
    compute = gemm_cycles(flow, 1, m, k, n, *args)
    steps = [(i + f) for i, f, _ in walk(layer, big, Schedule(machine.dataflow, 1, m, k, n, order))]
    tiles = len(steps)
    assert got["array_cycles"] == tiles * compute
    out = layer.ofmap_elements
    bandwidth, latency = machine.dram_bytes_per_cycle, machine.dram_latency_cycles
    load = [s / bandwidth + latency if s else 0.0 for s in [*steps, 0]]
    write = out / tiles / bandwidth
    double = machine.ifmap_buffer.double and machine.weight_buffer.double
    now = load[0]
    for i in range(tiles):
        now += max(compute, load[i + 1] + write) if double else compute + load[i + 1] + write
    now += out / (layer.groups * turns[0] * turns[2]) / bandwidth
    assert got["cycles"] == pytest.approx(max(now, tiles * compute), abs=1.001)
    if double and latency == 0:
        start, length = np.arange(tiles) * compute, np.full(tiles, compute)
        nothing = np.zeros(1)
        still, _ = memory_kernels.run(
            start, length, np.array(steps, float), np.array([tiles * compute]), nothing, bandwidth, 0, 2
        )
        pipeline = load[0] + sum(max(compute, x) for x in load[1:])
        assert tiles * compute + still == pytest.approx(pipeline)


# --- the search -------------------------------------------------------------------------------------------------------


@st.composite
def small_layers(draw):
    side, batch = st.integers(2, 5), draw(st.integers(1, 2))
    if draw(st.booleans()):
        return matmul("l", draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 12)), batch=batch)
    channels, filters, kernel = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(1, 2))
    return conv("l", draw(side), draw(side), channels, filters, kernel, padding=kernel - 1, batch=batch)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(small_layers(), machines())
def test_no_schedule_of_a_small_layer_is_better(layer, machine):
    """By edp a batch may be run sample by sample, so that it neither takes more cycles nor more energy: one sample."""
    layer = replace(layer, batch=1) if machine.objective == "edp" else layer
    assume(-(-layer.k // machine.array_rows) <= 5 and -(-layer.n // machine.array_cols) <= 4)
    least = np.inf
    for schedule in every_schedule(layer, machine):
        try:
            least = min(least, spent(layer, machine, schedule))
        except InputError:
            continue
    assert spent(layer, machine) <= least * (1 + 1e-9)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(layers(), machines(), st.floats(0.05, 0.99), st.integers(0, 3))
def test_more_memory_or_bandwidth_never_costs_more(layer, machine, factor, what):
    layer = replace(layer, batch=1)
    name = ("ifmap_buffer", "weight_buffer", "ofmap_buffer", "dram_bytes_per_cycle")[what]
    value = getattr(machine, name)
    if what < 3:
        poorer = replace(machine, **{name: replace(value, capacity_bytes=max(1, int(value.capacity_bytes * factor)))})
    else:
        poorer = replace(machine, dram_bytes_per_cycle=value * factor)
    assert spent(layer, machine) <= spent(layer, poorer) * (1 + 1e-12)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(layers(), machines(("os", "ws", "is")))
def test_more_freedom_never_costs_more(layer, machine):
    layer = replace(layer, batch=1)
    free = spent(layer, replace(machine, dataflow="best"))
    bound = spent(layer, machine)
    assert free <= bound * (1 + 1e-12)
    assert bound <= spent(layer, replace(machine, schedule="fixed")) * (1 + 1e-12)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(layers(), layers(), machines(), st.integers(2, 6), st.booleans())
def test_a_batch_never_costs_more_than_its_samples(first, second, machine, batch, keep):
    one = Workload("two", (replace(first, batch=1), replace(second, batch=1, name="second", sources=(0,))))
    machine = replace(machine, keep_on_chip=keep)
    alone, together = simulate(one, machine, table=FLAT), simulate(one.with_batch(batch), machine, table=FLAT)
    if machine.objective != "energy":
        assert together.cycles <= batch * alone.cycles
    if machine.objective != "cycles":
        assert energy(together, table=FLAT).system_pj <= energy(alone, table=FLAT).system_pj * (1 + 1e-9)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(layers(), machines())
def test_dram_moves_what_it_must_and_no_more_when_all_fits(layer, machine):
    got = only(layer, machine)
    window = window_of(layer)
    pixels = len({q for tile in [walk_pixels(window)] for q in tile})
    inputs = pixels * layer.batch * layer.groups * (layer.k // (window[2] * window[3]))
    weights = layer.filter_elements * (layer.batch if layer.kind == "matmul" else 1)
    assert got["ifmap_dram_read_bytes"] >= inputs
    assert got["filter_dram_read_bytes"] >= weights
    big = Buffer(1 << 36)
    least = only(layer, replace(machine, ifmap_buffer=big, weight_buffer=big, ofmap_buffer=big))
    assert [int(least[name]) for name in ALL_TRAFFIC] == [inputs, weights, 0, 0, layer.batch * layer.ofmap_elements]


def walk_pixels(window):
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window
    rows = {y * sh - top + i * dh for y in range(out_h) for i in range(kh)} & set(range(in_h))
    columns = {x * sw - left + i * dw for x in range(out_w) for i in range(kw)} & set(range(in_w))
    return {(y, x) for y in rows for x in columns}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), machines())
def test_what_is_found_can_be_given_back(layer, machine):
    net = Workload("one", (layer,), batch=layer.batch)
    found = simulate(net, machine, table=FLAT)
    again = simulate(net, machine, found.plan)
    assert again.layers.tobytes() == found.layers.tobytes()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), machines())
def test_prices_sum_up_to_the_energy(layer, machine):
    counts = simulate(Workload("one", (layer,), batch=layer.batch), replace(machine, objective="energy"), table=FLAT)
    price = search.prices_of(replace(machine, objective="energy"), FLAT)
    results = layer.batch * layer.groups * layer.m * layer.n
    cost = tiling_kernels.cost_of(counts.layers[0], price[0], tiling_kernels.ENERGY, results)
    assert cost == pytest.approx(energy(counts, table=FLAT).system_pj * layer.batch)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(*(st.integers(1, high) for high in (20, 8, 25, 5, 4, 3, 3)))
def test_positions_that_tiles_touch_along_an_axis(outputs, tile, size, kernel, stride, dilation, padding):
    tiles = [range(start, min(start + tile, outputs)) for start in range(0, outputs, tile)]
    touched = [
        {p * stride - padding + i * dilation for p in one for i in range(kernel)} & set(range(size)) for one in tiles
    ]
    found = memory_kernels.axis_touched(outputs, tile, size, kernel, stride, padding, dilation)
    assert found == (sum(map(len, touched)), max(map(len, touched)))


@st.composite
def shared(draw):
    machine, part = draw(machines()), Buffer(draw(st.integers(40, 3_000)), double=draw(st.booleans()))
    times = draw(st.integers(1, 4))
    larger = replace(part, capacity_bytes=times * part.capacity_bytes, macros=times)
    return replace(machine, buffers="shared", ifmap_buffer=part, ofmap_buffer=larger)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), shared(), st.floats(1.02, 3))
def test_a_shared_buffer_never_costs_more_than_its_parts_nor_a_larger_one_more(layer, machine, factor):
    layer = replace(layer, batch=1)
    part, rest = machine.ifmap_buffer, machine.ofmap_buffer
    size = int(part.capacity_bytes * factor)
    more = replace(
        machine,
        ifmap_buffer=replace(part, capacity_bytes=size),
        ofmap_buffer=replace(rest, capacity_bytes=size * rest.macros),
    )
    here = spent(layer, machine)
    assert here <= spent(layer, replace(machine, buffers="separate")) * (1 + 1e-12)
    assert spent(layer, more) <= here * (1 + 1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), shared())
def test_a_split_is_part_of_the_schedule_and_comes_back(layer, machine):
    net = Workload("one", (layer,), batch=layer.batch)
    found = simulate(net, machine, table=FLAT)
    again = simulate(net, machine, found.plan)
    assert again.layers.tobytes() == found.layers.tobytes()
    assert again.plan == found.plan
    room = found.plan.layers["l"].ifmap_bytes
    if room:  # the same counts as on a machine of two buffers of these sizes
        pool = machine.ifmap_buffer.usable_bytes + machine.ofmap_buffer.usable_bytes
        apart = {
            "ifmap_buffer": Buffer(room, double=False),
            "ofmap_buffer": Buffer(pool - room, double=False),
        }
        bare = {"l": replace(found.plan.layers["l"], ifmap_bytes=0)}
        if not machine.ifmap_buffer.double:
            separate = replace(machine, buffers="separate", **apart)
            alone = simulate(net, separate, Plan(bare, found.plan.samples))
            assert alone.layers.tobytes() == found.layers.tobytes()


def test_a_split_that_cannot_be_is_named():
    layer = linear("l", 1, 64, 64)
    machine = replace(PAPER, buffers="shared")
    for one, allowed in (
        (machine, "at most 262144, what tiles may fill"),
        (PAPER, "at most 0, what tiles may fill if shared"),
    ):
        with pytest.raises(InputError, match=allowed):
            only(layer, one, Schedule("os", 1, 1, 64, 32, "mkn", ifmap_bytes=262145))
    with pytest.raises(InputError, match="shared takes an ifmap_buffer and an ofmap_buffer of equal macros"):
        replace(machine, ofmap_buffer=Buffer(64))
