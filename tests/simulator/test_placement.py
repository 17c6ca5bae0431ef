"""Does every stored bit have exactly one cell while it is there, and is it the one that the schedule gives it?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import placement_kernels as kernels
from simulator.accelerator import Buffer, accelerator
from simulator.array.cycles import simulate
from simulator.array.schedule import ORDER_NAMES, Plan, Schedule
from simulator.placement import first_weight, place, resident_words
from simulator.workload import Layer, Workload, conv, linear
from sram.errors import InputError
from sram.geometry import Geometry

PAPER = accelerator("paper")
NET = Workload(
    "mixed",
    (
        conv("a", 8, 8, 5, 7, 3, padding=1),
        conv("depthwise", 8, 8, 6, 6, 3, groups=6),
        conv("grouped", 8, 8, 4, 10, 1, groups=2),
        conv("up", 4, 4, 6, 4, 2, stride=2, transposed=True),
        Layer("relu", "activation", operations=9, elements_read=9, elements_written=9),
        linear("fc", 1, 20, 11),
    ),
)

machines = st.builds(
    lambda dataflow, rows, cols, double: replace(
        PAPER, dataflow=dataflow, array_rows=rows, array_cols=cols, weight_buffer=Buffer(1, double=double)
    ),
    st.sampled_from(["os", "ws", "is", "best"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)
small = st.builds(Geometry, st.integers(2, 3), st.integers(4, 9), st.sampled_from([16, 32]), st.just(16))
large = st.just(Geometry(4, 256, 32, 16))


@settings(max_examples=60, deadline=None)
@given(
    machines,
    small | large,
    st.sampled_from(["lsb_first", "msb_first", "interleaved"]),
    st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16]),
    st.booleans(),
)
def test_each_stored_bit_has_one_cell_and_cells_are_shared_only_between_residencies(
    machine, geometry, order, bits, turns
):
    interleave = geometry.words_per_bank // 2 if turns and geometry.words_per_bank % 2 == 0 else 0
    p = place(NET, machine, geometry, bits=bits, bit_order=order, bank_interleave=interleave)
    assert p.weights == NET.weights
    h = p.hits(np.arange(geometry.cells))
    kind = (np.arange(geometry.cells) % 3).astype(np.uint8)
    for mine, same in zip(p.faults(np.arange(geometry.cells), kind), (h.weight, h.bit, kind[h.fault]), strict=True):
        assert np.array_equal(mine, same)
    # every bit of every weight once
    assert len(h.weight) == NET.weights * bits
    assert len(np.unique(h.weight * bits + h.bit)) == NET.weights * bits
    # a cell serves at most one bit a fill, so at most one for each fill of its half
    assert np.bincount(h.fault).max() <= -(-p.stream_words // int(p.streams[0, kernels.PERIOD]))
    # `locate` is the inverse
    rng = np.random.default_rng(0)
    for i in rng.integers(0, len(h.weight), 12):
        assert p.locate(int(h.weight[i]), int(h.bit[i])).tolist() == [h.fault[i]]


def parts(layer, cores, split):
    """(core, filters of each group) as NumPy cuts them: the larger parts first."""
    filters = layer.out_channels // layer.groups
    if split == "outputs":
        return list(enumerate(np.array_split(np.arange(filters), min(cores, filters))))
    return [(core, np.arange(filters)) for core in range(1 if split is None else cores)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    machines.filter(lambda machine: machine.dataflow != "best"),
    st.integers(2, 5),
    small | large,
    st.lists(st.sampled_from([None, "samples", "outputs"]), min_size=5, max_size=5),
    st.booleans(),
)
def test_each_core_has_the_weights_that_it_uses_in_its_own_banks(machine, cores, own, splits, turns):
    interleave = own.words_per_bank // 2 if turns and own.words_per_bank % 2 == 0 else 0
    machine = replace(machine, schedule="search", cores=cores, batch=cores)
    names = [layer.name for layer in NET.array_layers]
    splits = {name: split for name, split in zip(names, splits, strict=True) if split}
    plan = Plan({x.name: Schedule(machine.dataflow, 1, x.m, x.k, x.n) for x in NET.array_layers}, cores, splits)
    geometry = replace(own, banks=cores * own.banks)
    p = place(NET, machine, geometry, bank_interleave=interleave, plan=plan)
    assert p.copied == ("samples" in splits.values())
    h = p.hits(np.arange(geometry.cells))
    bank = h.fault // geometry.cells_per_bank
    expected = {core: [] for core in range(cores)}
    first = 0
    for layer in NET.array_layers:
        kh = layer.kernel_h * layer.kernel_w
        each = np.arange(first, first + layer.weights)
        if layer.transposed:  # input channels, filters, taps
            each = each.reshape(layer.groups, -1, layer.out_channels // layer.groups, kh).swapaxes(1, 2)
        else:
            each = each.reshape(layer.groups, layer.out_channels // layer.groups, -1)
        for core, filters in parts(layer, cores, splits.get(layer.name)):
            expected[core] += each[:, filters].ravel().tolist()
        first += layer.weights
    for core, weights in expected.items():
        mine = h.weight[bank // own.banks == core]
        assert sorted(mine) == sorted(weights * 8)
        period = p.streams[core, kernels.PERIOD]
        used = np.bincount(h.fault[bank // own.banks == core]) if len(mine) else np.zeros(1)
        assert used.max() <= -(-p.streams[core, kernels.WORDS] // period)
    rng = np.random.default_rng(0)
    for i in rng.integers(0, len(h.weight), 12):
        assert h.fault[i] in p.locate(int(h.weight[i]), int(h.bit[i]))
    assert sum(len(p.locate(weight, 0)) for weight in range(NET.weights)) == len(h.weight) // 8
    words = np.arange(geometry.words)
    row, held = p.contents(words)
    lowest = geometry.cell(np.repeat(words, 2), np.tile([0, 8], geometry.words))
    assert sorted(held[held >= 0]) == sorted(p.hits(lowest).weight)
    assert (row // (own.banks * own.words_per_bank) < cores).all()


def test_a_core_has_its_filters_by_its_own_schedule():
    """The second core's banks are what a memory of its own would be, with its filters alone."""
    machine = replace(accelerator("edge"), keep_on_chip=False, objective="cycles")
    whole, half = conv("c", 14, 14, 32, 48, 3, padding=1), conv("c", 14, 14, 32, 24, 3, padding=1)
    net, own = Workload("whole", (whole,)), Geometry(2, 64, 64, 64)
    two = replace(machine, cores=2)
    by = simulate(net, two).plan
    assert by.splits == {"c": "outputs"}
    p = place(net, two, Geometry(4, 64, 64, 64))
    alone = place(Workload("half", (half,)), machine, own, plan=Plan(by.layers))
    mine, theirs = p.hits(np.arange(own.cells) + own.cells), alone.hits(np.arange(own.cells))
    assert np.array_equal(mine.fault, theirs.fault)
    assert np.array_equal(mine.weight, theirs.weight + half.weights)
    assert np.array_equal(mine.bit, theirs.bit)
    assert [(i, first) for i, first, _ in p.stretches()] == [(0, 0), (0, own.words)]


def fetched(layer, dataflow, rows, cols):
    """Weights in the order in which a patient controller fetches them, as indices into the torch tensor."""
    shape = (layer.groups, layer.k, layer.n) if layer.transposed else (layer.groups, layer.n, layer.k)
    tensor = np.arange(layer.weights).reshape(shape)
    for group in tensor:
        matrix = group if layer.transposed else group.T  # [k, n]
        if dataflow == "is":
            for k in range(0, layer.k, rows):
                for n in range(layer.n):
                    yield from matrix[k : k + rows, n]
            continue
        for n in range(0, layer.n, cols):
            if dataflow == "os":
                for k in range(layer.k):
                    yield from matrix[k, n : n + cols]
            else:
                for k in range(0, layer.k, rows):
                    for row in matrix[k : k + rows][::-1]:
                        yield from row[n : n + cols]


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize(("rows", "cols"), [(4, 3), (32, 32)])
def test_stream_is_the_order_in_which_the_dataflow_fetches(dataflow, rows, cols):
    machine = replace(PAPER, dataflow=dataflow, array_rows=rows, array_cols=cols)
    geometry = Geometry(4, 256, 64, 64)
    p = place(NET, machine, geometry)
    h = p.hits(geometry.cell(np.repeat(np.arange(geometry.words), 8), np.tile(np.arange(0, 64, 8), geometry.words)))
    assert (h.bit == 0).all()
    expected, first, position, at = [], 0, 0, []
    for layer in NET.array_layers:
        expected += [first + int(i) for i in fetched(layer, dataflow, rows, cols)]
        at += list(range(position, position + layer.weights))
        first += layer.weights
        position += -(-layer.weights // 8) * 8  # a layer starts a new word
    assert h.weight.tolist() == expected
    assert h.fault.tolist() == at


@settings(max_examples=60, deadline=None)
@given(machines, st.integers(1, 6), st.integers(1, 6), st.sampled_from(ORDER_NAMES), st.sampled_from([3, 4, 8]))
def test_tiles_lie_in_the_order_of_the_loops_and_every_weight_once(machine, taps, filters, order, bits):
    flow = "os" if machine.dataflow == "best" else machine.dataflow
    rows, cols = machine.array_rows, machine.array_cols
    plan = Plan(
        {
            layer.name: Schedule(flow, 1, layer.m, min(layer.k, rows * taps), min(layer.n, cols * filters), order)
            for layer in NET.array_layers
        }
    )
    geometry = Geometry(4, 256, 64, 64)
    p = place(NET, machine, geometry, bits=bits, plan=plan)
    h = p.hits(np.arange(geometry.cells))
    stored = h.weight[h.bit == 0]
    assert len(h.weight) == NET.weights * bits == len(np.unique(h.weight * bits + h.bit))
    expected, first = [], 0
    for layer in NET.array_layers:
        s = plan.of(layer)
        shape = (layer.groups, layer.k, layer.n) if layer.transposed else (layer.groups, layer.n, layer.k)
        for group in np.arange(layer.weights).reshape(shape):
            matrix = group if layer.transposed else group.T
            cuts = [(k, n) for k in range(0, layer.k, s.k) for n in range(0, layer.n, s.n)]
            if order.index("n") < order.index("k"):
                cuts.sort(key=lambda cut: cut[::-1])
            for k, n in cuts:
                tile = matrix[k : k + s.k, n : n + s.n]
                expected += [first + int(i) for i in in_tile(tile, flow, rows, cols)]
        first += layer.weights
    assert stored.tolist() == expected
    for i in range(0, len(h.weight), max(1, len(h.weight) // 9)):
        assert p.locate(int(h.weight[i]), int(h.bit[i])).tolist() == [h.fault[i]]


def in_tile(tile, dataflow, rows, cols):
    """A tile's weights in the order of the folds."""
    taps, filters = tile.shape
    if dataflow == "is":
        for k in range(0, taps, rows):
            for n in range(filters):
                yield from tile[k : k + rows, n]
        return
    for n in range(0, filters, cols):
        for k in range(0, taps, 1 if dataflow == "os" else rows):
            for row in tile[k : k + (1 if dataflow == "os" else rows)][::-1]:
                yield from row[n : n + cols]


def test_where_schedules_are_searched_the_weights_follow():
    net = Workload("wide", (conv("c", 14, 14, 64, 96, 3, padding=1),))
    machine = replace(accelerator("edge"), ofmap_buffer=Buffer(16384))
    by = simulate(net, machine).plan.layers["c"]
    assert by.k < 576 or by.n < 96  # 55 KB do not fit in half of 64 KB
    geometry = Geometry(8, 512, 64, 64)
    placed = place(net, machine, geometry).uses
    assert np.array_equal(placed, place(net, machine, geometry, plan=Plan({"c": by})).uses)
    assert not np.array_equal(placed, place(net, machine, geometry, plan=Plan({"c": replace(by, n=32)})).uses)


def test_halves_are_filled_in_turn():
    # 220 int8 weights are 28 words of 8; a memory of 8 words has halves of 4: 7 fills
    net = Workload("fc", (linear("fc", 1, 20, 11),))
    geometry = Geometry(1, 8, 64, 64)
    p = place(net, PAPER, geometry)
    assert (p.residencies, int(p.streams[0, kernels.FILL])) == (7, 4)
    words = p.hits(geometry.cell(np.arange(8), 0)).fault
    assert np.bincount(words).tolist() == [4, 4, 4, 4, 3, 3, 3, 3]
    single = place(net, replace(PAPER, weight_buffer=Buffer(1, double=False)), geometry)
    assert (single.residencies, int(single.streams[0, kernels.FILL])) == (4, 8)


def test_what_fits_is_loaded_once_whatever_the_schedule_is_called():
    geometry = Geometry(2, 256, 64, 64)
    cells = np.arange(geometry.cells)
    streamed, resident = (place(NET, PAPER, geometry, schedule).hits(cells) for schedule in ("streamed", "resident"))
    assert (streamed.weight == resident.weight).all()
    assert np.bincount(streamed.fault).max() == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 511), unique=True), st.integers(0, 40))
def test_hits_come_in_the_order_of_the_faults_so_that_a_voltage_is_a_prefix(cells, keep):
    p = place(NET, PAPER, Geometry(1, 8, 64, 64))
    everything, part = p.hits(np.array(cells, np.int64)), p.hits(np.array(cells[:keep], np.int64))
    assert (np.diff(everything.fault) >= 0).all()
    n = len(part.fault)
    assert np.array_equal(everything.weight[:n], part.weight)
    assert (everything.fault[n:] >= keep).all()


def test_shared_weights_have_one_number_and_a_residency_for_each_order_in_which_they_are_fetched():
    first, geometry = linear("first", 1, 16, 16), Geometry(1, 16, 64, 64)
    again = replace(linear("again", 1, 16, 16), weight_name="first.weight")
    turned = replace(again, name="turned", k_major=True)  # x @ W and x @ W' of the same W
    both = place(Workload("tied", (first, again, linear("last", 1, 16, 16))), PAPER, geometry)
    assert both.weights == 512
    assert both.stream_words == 64
    for weight in (5, 300):
        assert len(both.locate(weight, 0)) == 1
    orders = place(Workload("tied", (first, turned, again)), PAPER, geometry)
    assert orders.weights == 256
    assert orders.stream_words == 64
    assert len(orders.hits(np.arange(geometry.cells)).weight) == 2 * 256 * 8
    # element 16 is the second filter's first tap in the one, the first filter's second tap, word 34 of 16, in the other
    assert orders.locate(16, 0).tolist() == [8, 2 * 64]


def test_where_weights_stay_each_has_one_cell_whoever_reads_it():
    first = linear("first", 1, 16, 16)
    others = [replace(first, name=name, weight_name="first.weight", k_major=True) for name in ("turned", "again")]
    net = Workload("tied", (first, *others, linear("last", 1, 16, 2)))
    assert resident_words(net, PAPER, 8) == 32 + 4
    geometry = Geometry(1, 36, 64, 64)
    hits = place(net, PAPER, geometry, "resident").hits(np.arange(geometry.cells))
    assert len(np.unique(hits.weight * 8 + hits.bit)) == len(hits.weight) == geometry.cells


def test_a_table_lies_row_after_row():
    table = Layer(
        "emb", "move", weight_name="emb.weight", weights=20 * 6, constants=3 * 6, elements_read=3, out_channels=6
    )
    net, geometry = Workload("n", (linear("before", 1, 8, 3), table, linear("fc", 1, 6, 4))), Geometry(2, 32, 64, 64)
    for schedule in ("streamed", "resident"):
        p = place(net, PAPER, geometry, schedule)
        assert [(t.name, t.first, t.count) for t in p.tensors] == [
            ("before.weight", 0, 24), ("emb.weight", 24, 120), ("fc.weight", 144, 24),
        ]  # fmt: skip
        for element, bit in ((0, 0), (7, 3), (119, 7)):  # behind the 3 words of the layer before
            assert p.locate(24 + element, bit).tolist() == [3 * 64 + 8 * element + bit]
        hits = p.hits(np.arange(geometry.cells))
        assert np.array_equal(np.unique(hits.weight * 8 + hits.bit), np.arange(168 * 8))


def test_weights_lie_as_they_are_stored():
    """The words of x @ W, W (8 x 4) taps by filters, are read line by line; those of W' x column by column."""
    words = {}
    for k_major in (True, False):
        p = place(Workload("fc", (linear("fc", 1, 8, 4, k_major=k_major),)), PAPER, Geometry(1, 8, 32, 32))
        words[k_major] = p.contents(np.array([0]))[1].tolist()
    assert words == {True: [[0, 1, 2, 3]], False: [[0, 8, 16, 24]]}


def test_a_part_of_a_weight_lies_within_the_whole():
    part = linear("part", 1, 8, 2, weight_name="w", weight_offset=16)
    net = Workload("n", (part, linear("whole", 1, 8, 4, weight_name="w"), linear("after", 1, 4, 2)))
    p = place(net, PAPER, Geometry(1, 64, 64, 64))
    assert [(t.name, t.offset, t.first, t.count) for t in p.tensors] == [("w", 0, 0, 32), ("after.weight", 0, 32, 8)]
    assert [first_weight(p.tensors, layer) for layer in net.layers] == [16, 0, 32]
    assert [len(p.locate(weight, 0)) for weight in (15, 16, 31, 32)] == [1, 2, 2, 1]


def test_bank_interleaving_gives_consecutive_words_to_the_banks_in_turn():
    geometry = Geometry(4, 8, 64, 64)
    p = place(Workload("fc", (linear("fc", 1, 8, 32),)), PAPER, geometry, bank_interleave=2)
    filters = np.arange(0, 32, 8)  # output stationary: the 32 filters of tap 0 are the first four words
    words = [int(p.locate(int(n) * 8, 0)[0]) // 64 for n in filters]
    assert words == [0, 1, 8, 9]  # two words in bank 0, two in bank 1


@pytest.mark.parametrize("per_cell", [16, 1])
def test_paper_mapping_equals_the_definition(per_cell):
    """Weight i of every layer lies in row (i // 256) % 8192, byte i % 16 (NeuralFuse reference code); with one weight
    of a layer a cell, in row (i // 16) % 8192."""
    net = Workload("n", (linear("a", 1, 4096, 600), linear("b", 1, 64, 10)))  # `a` wraps around: 2,457,600 > 2,097,152
    geometry = Geometry(banks=1, rows=8192, columns=128, word_bits=128)
    p = replace(place(net, PAPER, geometry, "paper"), weights_per_cell=per_cell)
    cells = np.random.default_rng(3).choice(geometry.cells, 12, replace=False)
    h = p.hits(cells)
    kind = np.arange(12, dtype=np.uint8) % 3
    for mine, same in zip(p.faults(cells, kind), (h.weight, h.bit, kind[h.fault]), strict=True):
        assert np.array_equal(mine, same)
    expected = set()
    for first, count in ((0, 4096 * 600), (4096 * 600, 640)):
        i = np.arange(count)
        row, byte = (i // (16 * per_cell)) % 8192, i % 16
        for fault, cell in enumerate(cells):
            here = i[(row == cell // 128) & (byte == cell % 128 // 8)]
            expected |= {(fault, first + int(w), int(cell) % 8) for w in here}
    assert set(zip(h.fault.tolist(), h.weight.tolist(), h.bit.tolist(), strict=True)) == expected
    assert len(h.fault) == len(expected)
    # of `a` 16 in row 4000, beyond `b` and the wrap; or one each of the 18 times and more that it fills the array
    assert len(p.hits(np.array([128 * 4000])).weight) == {16: 16, 1: 19}[per_cell]
    assert p.locate(4096 * 600 + 300, 5).tolist() == [300 // (16 * per_cell) * 128 + (300 % 16) * 8 + 5]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"schedule": "random"}, "schedule"),
        ({"bit_order": "grey"}, "bit_order"),
        ({"bits": 65}, "bits"),
        ({"bank_interleave": 3}, "bank_interleave"),
        ({"schedule": "resident"}, "words of the memory"),
        ({"schedule": "paper"}, "geometry"),
    ],
)
def test_mistakes_name_the_key(change, key):
    with pytest.raises(InputError, match=key):
        place(NET, PAPER, Geometry(1, 8, 64, 64), **change)
    with pytest.raises(InputError, match="cell"):
        place(NET, PAPER, Geometry(1, 8, 64, 64)).hits(np.array([512]))
