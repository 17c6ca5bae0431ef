"""Does a row stationary schedule move and take what a walk through its passes does, and is the best one found?"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, Scratchpads, accelerator
from simulator.area import area
from simulator.array import rowstationary, search, tiling_kernels
from simulator.array.cycles import simulate
from simulator.array.memory import window_of
from simulator.array.schedule import Plan, RowStationary, Schedule, load, save
from simulator.array.traces import events
from simulator.energy import energy
from simulator.figures import EnergyTable
from simulator.placement import place
from simulator.workload import Workload, conv, linear, matmul
from sram.errors import InputError
from sram.geometry import Geometry
from tests.simulator.array.test_search import ALL_TRAFFIC, FLAT, walk_pixels

EYERISS = accelerator("eyeriss")
FLAT_45 = EnergyTable("flat", {name: replace(e, node_nm=45, voltage_v=1.1) for name, e in FLAT.entries.items()})


def run(layer, machine, by=None):
    plan = None if by is None else Plan({layer.name: by}, layer.batch)
    return simulate(Workload("one", (layer,), batch=layer.batch), machine, plan, FLAT_45)


def spent(layer, machine, by=None):
    counts = run(layer, machine, by)
    pj = energy(counts, table=FLAT_45).system_pj * layer.batch
    return {"cycles": counts.cycles, "energy": pj, "edp": pj * counts.cycles}[machine.objective]


@st.composite
def layers(draw, most_batch=3, side=8):
    kind = draw(st.sampled_from(["conv", "conv", "conv", "linear", "matmul"]))
    batch = draw(st.integers(1, most_batch))
    if kind == "linear":
        return linear("l", draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 9)), batch=batch)
    if kind == "matmul":
        return matmul("l", *(draw(st.integers(1, 6)) for _ in range(3)), groups=draw(st.integers(1, 2)), batch=batch)
    groups = draw(st.sampled_from([1, 1, 2]))
    return conv(
        "l",
        draw(st.integers(5, side)),
        draw(st.integers(5, side)),
        groups * draw(st.integers(1, 5)),
        groups * draw(st.integers(1, 6)),
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        transposed=draw(st.sampled_from([False, False, False, True])),
        batch=batch,
    )


@st.composite
def machines(draw):
    shared, double = draw(st.booleans()), draw(st.booleans())
    rooms = [Buffer(draw(st.integers(200, 4_000)), double=draw(st.booleans())) for _ in range(3)]
    if shared:
        rooms[0] = replace(rooms[0], double=double)
        rooms[2] = replace(rooms[0], capacity_bytes=3 * rooms[0].capacity_bytes, macros=3)
    return replace(
        EYERISS,
        array_rows=draw(st.integers(3, 7)),
        array_cols=draw(st.integers(1, 7)),
        scratchpads=Scratchpads(*(draw(st.integers(low, 24)) for low in (5, 3, 1))),
        buffers="shared" if shared else "separate",
        ifmap_buffer=rooms[0],
        weight_buffer=rooms[1],
        ofmap_buffer=rooms[2],
        dram_bytes_per_cycle=draw(st.sampled_from([0.3, 1.0, 4.0, 1000.0])),
        dram_latency_cycles=draw(st.sampled_from([0, 10])),
        objective=draw(st.sampled_from(["edp", "energy", "cycles"])),
    )


def every_schedule(layer, machine):
    """All schedules that the record can name; some of them fit."""
    window, samples = window_of(layer), 1 if layer.kind == "matmul" else layer.batch
    kernel_w, out_h, channels = window[3], window[10], layer.k // (window[2] * window[3])
    pads = machine.scratchpads
    for p, q in itertools.product(range(1, layer.n + 1), range(1, channels + 1)):
        if p > pads.psum_words or p * q * kernel_w > pads.weight_words:
            continue
        for r, t in itertools.product(range(1, -(-channels // q) + 1), range(1, -(-layer.n // p) + 1)):
            if r * t > machine.array_rows * machine.array_cols:
                continue
            groups = {min(layer.n, i * p * t) for i in range(1, -(-layer.n // (p * t)) + 1)}
            for n, m, e in itertools.product(range(1, samples + 1), groups, range(1, out_h + 1)):
                yield RowStationary(n, m, e, p, q, r, t)


def parts(total, size):
    return [range(at, min(at + size, total)) for at in range(0, total, size)]


def walk(layer, machine, by):
    """What a patient controller does, pass by pass and element by element."""
    in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, out_h, out_w = window_of(layer)
    channels, pairs = layer.k // (kh * kw), layer.kind == "matmul"
    samples = 1 if pairs else layer.batch
    wide = {x * sw - left + i * dw for x in range(out_w) for i in range(kw)} & set(range(in_w))

    def rows(strip):
        return {y * sh - top + i * dh for y in strip for i in range(kh)} & set(range(in_h))

    strips, groups, slices = parts(out_h, by.e), parts(layer.n, by.m), parts(channels, by.q * by.r)
    room = machine.ifmap_buffer.usable_bytes, machine.ofmap_buffer.usable_bytes
    sums = 2 * by.n * by.m * by.e * out_w

    def between(strip):  # what a buffer of whole rows keeps of those that a dilated kernel skips
        return set(range(min(rows(strip), default=0), max(rows(strip), default=-1) + 1)) if dh > 1 else rows(strip)

    room_rows = min(in_h, (by.e - 1) * sh + (kh - 1) * dh + 1) if dh > 1 else max(len(rows(s)) for s in strips)
    whole = 2 * by.n * channels * room_rows * len(wide)
    fits = sums + whole <= sum(room) if machine.buffers == "shared" else whole <= room[0]
    one_pass = len(groups) == len(slices) == 1 and by.p * by.t >= layer.n
    stay = one_pass or 2 * layer.k * layer.n <= machine.weight_buffer.usable_bytes
    found = dict.fromkeys(("ifmap", "filter", "ifmap_reads", "filter_reads", "sums", "pads", "filter_pads", "hops"), 0)
    double = machine.ifmap_buffer.double and machine.ofmap_buffer.double
    bandwidth, latency = machine.dram_bytes_per_cycle, machine.dram_latency_cycles
    loads, busy, total, head, macs = set(), 0.0, 0.0, None, 0
    for _ in range(layer.groups * (layer.batch if pairs else 1)):
        held, filters_here = set(), set()
        for block, strip in itertools.product(parts(samples, by.n), strips):
            for group, part in itertools.product(groups, slices):
                need = {(s, c, y) for s in block for c in part for y in rows(strip)}
                here = {(s, c, y) for s in block for c in range(channels) for y in between(strip)}
                brought = len(need - held) * len(wide)
                held = (held & here if fits or len(slices) == 1 else set()) | need
                found["ifmap"] += brought
                if brought:
                    loads.add(brought)
                passes = [group[i : i + by.p * by.t] for i in range(0, len(group), by.p * by.t)]
                beside = 2 * brought / bandwidth + (latency if brought else 0)
                beside += 2 * len(block) * len(strip) * out_w * len(group) / len(slices) / bandwidth
                for filters in passes:
                    words = {(f, c) for f in filters for c in part}
                    fetched = len(words - filters_here) * kh * kw
                    entering = 0 if one_pass and not fetched else len(words) * kh * kw
                    if stay:
                        filters_here |= words
                    of_set = parts(len(filters), -(-len(filters) // by.t))
                    of_row = parts(len(part), -(-len(part) // by.r))
                    slowest = 0
                    for fs, cs, y, i in itertools.product(of_set, of_row, strip, range(kh)):
                        work = len(block) * out_w * kw * len(fs) * len(cs)
                        slowest, macs = max(slowest, work), macs + work
                        if 0 <= y * sh - top + i * dh < in_h:
                            found["pads"] += len(block) * len(cs) * len(wide)
                        found["filter_pads"] += len(fs) * len(cs) * kw if entering else 0
                        found["hops"] += len(block) * out_w * len(fs)
                    written = len(block) * len(strip) * out_w * len(filters)
                    found["ifmap_reads"] += len(need) * len(wide)
                    found["filter"] += fetched
                    found["filter_reads"] += entering
                    found["sums"] += written
                    runs = entering / (machine.weight_buffer.word_bits / 16) + max(
                        slowest, written / (machine.ofmap_buffer.word_bits / 16)
                    )
                    fetch = 2 * fetched / bandwidth + (latency if fetched else 0)
                    if head is None:
                        head = fetch + ((2 * brought / bandwidth + latency) if double else 0)
                    share = beside / len(passes)
                    total += max(runs, fetch + share) if double else max(runs, fetch) + share
                    busy += runs
    if double:
        blocks = layer.groups * (layer.batch if pairs else 1) * len(parts(samples, by.n)) * len(strips) * len(groups)
        total += 2 * layer.batch * layer.ofmap_elements / blocks / bandwidth
    uneven = double and len(loads) > 1  # then the mean is taken
    return found | {"macs": macs}, busy, None if uneven else total + head


@settings(max_examples=150, deadline=None, derandomize=True)
@given(layers(), machines(), st.data())
def test_counts_and_time_are_those_of_a_walk_through_the_passes(layer, machine, data):
    by = data.draw(st.sampled_from(list(every_schedule(layer, machine))))
    try:
        got = run(layer, machine, by).layers[0]
    except InputError:
        assume(False)
    found, busy, total = walk(layer, machine, by)
    results = layer.batch * layer.groups * layer.m * layer.n
    assert got["macs"] == found["macs"] == layer.macs
    assert got["ifmap_dram_read_bytes"] == 2 * found["ifmap"] == 2 * got["ifmap_sram_writes"]
    assert got["filter_dram_read_bytes"] == 2 * found["filter"] == 2 * got["filter_sram_writes"]
    assert got["ofmap_dram_write_bytes"] == 2 * layer.batch * layer.ofmap_elements
    assert got["ifmap_sram_reads"] == found["ifmap_reads"]
    assert got["filter_sram_reads"] == found["filter_reads"]
    assert got["psum_sram_writes"] == got["psum_sram_reads"] == found["sums"] - results
    assert got["ifmap_scratchpad_writes"] == found["pads"]
    assert got["filter_scratchpad_writes"] == found["filter_pads"]
    assert got["psum_hops"] == found["hops"]
    assert got["array_cycles"] == math.ceil(busy * (1 - 1e-12))
    if total is not None:
        assert got["cycles"] == max(math.ceil(busy * (1 - 1e-12)), math.ceil(total * (1 - 1e-12)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(most_batch=2, side=6), machines())
def test_no_schedule_of_a_small_layer_is_better(layer, machine):
    layer = replace(layer, batch=1) if machine.objective == "edp" else layer
    price, objective = search.prices_of(machine, FLAT_45)[0], search.OBJECTIVES[machine.objective]
    results = layer.batch * layer.groups * layer.m * layer.n
    net, least = Workload("one", (layer,), batch=layer.batch), np.inf
    for by in every_schedule(layer, machine):
        try:
            counts, _ = rowstationary.search(net, machine, price, objective, Plan({"l": by}, layer.batch))
        except InputError:
            continue
        least = min(least, tiling_kernels.cost_of(counts[0], price, objective, results))
    assume(least < np.inf)
    counts, _ = rowstationary.search(net, machine, price, objective)
    assert tiling_kernels.cost_of(counts[0], price, objective, results) == pytest.approx(least, rel=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), machines(), st.floats(1.05, 4.0), st.sampled_from(["ifmap", "weight", "ofmap", "bandwidth"]))
def test_more_memory_or_bandwidth_never_costs_more(layer, machine, factor, what):
    layer = replace(layer, batch=1)
    if what == "bandwidth":
        richer = replace(machine, dram_bytes_per_cycle=machine.dram_bytes_per_cycle * factor)
    else:
        shared = machine.buffers == "shared" and what != "weight"  # both parts, so that their macros stay alike
        richer = machine
        for name in ("ifmap_buffer", "ofmap_buffer") if shared else (f"{what}_buffer",):
            buffer = getattr(machine, name)
            size = int(buffer.capacity_bytes / buffer.macros * factor) * buffer.macros
            richer = replace(richer, **{name: replace(buffer, capacity_bytes=size)}) if not shared else richer
        if shared:
            size = int(machine.ifmap_buffer.capacity_bytes * factor)
            pool = replace(machine.ifmap_buffer, capacity_bytes=size)
            richer = replace(machine, ifmap_buffer=pool, ofmap_buffer=replace(pool, capacity_bytes=3 * size, macros=3))
    try:
        poor = spent(layer, machine)
    except InputError:
        assume(False)
    assert spent(layer, richer) <= poor * (1 + 1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), layers(), machines(), st.integers(2, 5))
def test_a_batch_never_costs_more_than_its_samples(first, second, machine, batch):
    one = Workload("two", (replace(first, batch=1), replace(second, batch=1, name="second", sources=(0,))))
    try:
        alone = simulate(one, machine, table=FLAT_45)
    except InputError:
        assume(False)
    together = simulate(one.with_batch(batch), machine, table=FLAT_45)
    if machine.objective != "energy":
        assert together.cycles <= batch * alone.cycles
    if machine.objective != "cycles":
        assert energy(together, table=FLAT_45).system_pj <= energy(alone, table=FLAT_45).system_pj * (1 + 1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), machines())
def test_dram_moves_what_it_must_and_no_more_when_all_fits(layer, machine):
    big = Buffer(1 << 36, double=False)
    least = run(layer, replace(machine, ifmap_buffer=big, weight_buffer=big, ofmap_buffer=big)).layers[0]
    window = window_of(layer)
    inputs = len(walk_pixels(window)) * layer.batch * layer.groups * (layer.k // (window[2] * window[3]))
    weights = layer.filter_elements * (layer.batch if layer.kind == "matmul" else 1)
    assert [int(least[name]) // 2 for name in ALL_TRAFFIC] == [
        inputs,
        weights,
        0,
        0,
        layer.batch * layer.ofmap_elements,
    ]
    try:
        got = run(layer, machine).layers[0]
    except InputError:
        return
    assert all(got[name] >= least[name] for name in ALL_TRAFFIC)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layers(), machines())
def test_what_is_found_can_be_given_back_and_prices_sum_up_to_its_energy(layer, machine):
    machine = replace(machine, objective="energy")
    try:
        found = run(layer, machine)
    except InputError:
        assume(False)
    again = simulate(found.workload, machine, found.plan)
    assert again.layers.tobytes() == found.layers.tobytes()
    price, results = search.prices_of(machine, FLAT_45)[0], layer.batch * layer.groups * layer.m * layer.n
    cost = tiling_kernels.cost_of(found.layers[0], price, tiling_kernels.ENERGY, results)
    assert cost == pytest.approx(energy(found, table=FLAT_45).system_pj * layer.batch)


def test_scratchpads_are_counted_access_by_access():
    layer = conv("c", 13, 13, 8, 16, 3, padding=1)
    counts = run(layer, EYERISS, RowStationary(1, 16, 13, 16, 4, 2, 1))
    row = counts.frame().iloc[0]
    assert row["psum_scratchpad_reads_elements"] == row["psum_scratchpad_writes_elements"] == layer.macs
    # 13 columns of elements have the weights of 16 filters, 8 channels and 9 taps; one pass has all
    assert row["filter_scratchpad_writes_elements"] == 13 * layer.weights == 13 * 16 * 8 * 9
    # rows of 13 words in 3 x 13 elements, but for the two that lie above and below the image; of 8 channels
    assert row["ifmap_scratchpad_writes_elements"] == 8 * 13 * (3 * 13 - 2)
    # a sum passes the 3 elements of a set, and those of the other 4 channels
    assert row["psum_hops_elements"] == 16 * 13 * 13 * 3 * 2
    delivered = 16 * (row["ifmap_scratchpad_writes_elements"] + row["filter_scratchpad_writes_elements"])
    scale = (1.1 / 0.9) ** 2
    found = energy(counts).components
    assert found["scratchpads"][0] == pytest.approx((layer.macs * 64 + delivered) * 0.85 / 16 * scale)
    assert found["registers"][0] == pytest.approx((delivered + 16 * row["psum_hops_elements"]) * 1.7 / 16 * scale)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(layers(), machines(), st.data())
def test_weights_lie_in_the_order_in_which_the_passes_fetch_them(layer, machine, data):
    assume(layer.weights)
    by = data.draw(st.sampled_from(list(every_schedule(layer, machine))))
    taps = layer.kernel_h * layer.kernel_w if not layer.transposed else 1
    fetched = [
        (f * layer.k + g * layer.n * layer.k + c * taps + i)
        if not layer.transposed
        else (g * layer.k + c) * layer.n + f
        for g in range(layer.groups)
        for group in parts(layer.n, by.m)
        for part in parts(layer.k // taps, by.q * by.r)
        for filters in parts(len(group), by.p * by.t)
        for c, i in itertools.product(part, range(taps))
        for f in (group[j] for j in filters)
    ]
    net, room = Workload("one", (layer,), batch=layer.batch), Geometry(banks=1, rows=512, columns=64, word_bits=64)
    placed = place(net, machine, room, plan=Plan({"l": by}, layer.batch))
    _, found = placed.contents(np.arange(placed.stream_words))
    assert [w for w in found.ravel().tolist() if w >= 0] == fetched


def test_scratchpads_leak_and_take_area_in_proportion_to_their_bits():
    larger = replace(EYERISS, scratchpads=Scratchpads(12, 224 + 260, 24))
    one, two = area(EYERISS).components["scratchpads"], area(larger).components["scratchpads"]
    assert two == pytest.approx(2 * one)
    bits = 168 * 260 * 16
    assert one == pytest.approx(
        bits / 8 / 4096 * area(replace(EYERISS, weight_buffer=Buffer(4096))).components["weight_buffer"]
    )


def test_a_plan_of_rows_is_kept_in_a_file(tmp_path):
    net = Workload("two", (conv("a", 14, 14, 8, 12, 3, padding=1), linear("b", 1, 300, 20)))
    plan = simulate(net, EYERISS).plan
    save(plan, tmp_path / "plan.yaml")
    assert load(tmp_path / "plan.yaml") == plan
    (tmp_path / "bad.yaml").write_text("layers: {a: {dataflow: rs, n: 1, m: 2, e: 3, p: 1, q: 1, r: 1, z: 1}}")
    with pytest.raises(InputError, match=r"layers.a.z = 1 is not allowed; allowed: n, m, e, p, q, r, t, dataflow"):
        load(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 2}, "n = 2 is not allowed; allowed: 1 to 1"),
        ({"m": 17}, "m = 17 is not allowed; allowed: 1 to 16"),
        ({"m": 3}, "m = 3 is not allowed; allowed: a multiple of p x t = 2, or all 16"),
        ({"q": 5}, "sets that the array and its scratchpads can hold"),
        ({"r": 5}, "sets that the array and its scratchpads can hold"),
        ({"e": 14}, "e = 14 is not allowed; allowed: 1 to 13"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(change, message):
    layer = conv("c", 13, 13, 8, 16, 3, padding=1)
    with pytest.raises(InputError, match=message):
        run(layer, EYERISS, replace(RowStationary(1, 16, 13, 2, 4, 2, 1), **change))
    small = replace(EYERISS, weight_buffer=Buffer(1024, double=False))
    with pytest.raises(InputError, match="inputs, filters and sums that fit in the buffers"):
        run(layer, small, RowStationary(1, 16, 13, 16, 4, 2, 1))


def test_what_row_stationary_has_not_is_refused_with_one_message():
    layer = conv("c", 13, 13, 8, 16, 3, padding=1)
    with pytest.raises(InputError, match="dataflow = 'rs' is not allowed; allowed: os, ws, is"):
        next(events(layer, EYERISS))
    with pytest.raises(InputError, match="dataflow = 'os' is not allowed; allowed: rs, with n, m, e, p, q, r and t"):
        run(layer, EYERISS, Schedule("os", 1, 169, 72, 16))
    with pytest.raises(InputError, match="dataflow = 'rs' is not allowed; allowed: os, ws, is"):
        run(layer, accelerator("edge"), RowStationary(1, 16, 13, 16, 4, 2, 1))
    with pytest.raises(InputError, match="schedule = 'fixed' is not allowed; allowed: search"):
        replace(EYERISS, schedule="fixed")
    with pytest.raises(InputError, match="scratchpads = None is not allowed"):
        replace(EYERISS, scratchpads=None)
    with pytest.raises(InputError, match=r"scratchpads = .* is not allowed; allowed: none, but with dataflow rs"):
        replace(EYERISS, dataflow="ws")
    with pytest.raises(InputError, match=r"kernel = '13 x 3.*at most 12 x 12"):
        run(conv("c", 20, 20, 1, 1, (13, 3)), EYERISS)
