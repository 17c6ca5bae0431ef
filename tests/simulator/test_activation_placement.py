"""Do activations and partial sums lie where a literal walk through the schedule puts them?"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.accelerator import accelerator
from simulator.activation_placement import place_activations, place_partial_sums, taps_between_spills
from simulator.array.memory import outputs_of
from simulator.array.schedule import ORDER_NAMES, Plan, RowStationary, Schedule
from simulator.workload import Layer, Workload, conv, linear
from sram.errors import InputError
from sram.geometry import Geometry

PAPER = accelerator("paper")
ROOMY = Geometry(4, 1024, 64, 64)
SMALL = replace(PAPER, array_rows=3, array_cols=2)

layers = st.sampled_from(
    [
        conv("a", 7, 6, 4, 6, 3, padding=1),
        conv("a", 9, 7, 3, 4, 3, stride=2, padding=(0, 1)),
        conv("a", 8, 5, 4, 3, (1, 2), stride=(3, 1)),  # rows that no output reads
        conv("a", 8, 8, 2, 3, 3, dilation=2),
        conv("a", 6, 6, 4, 6, 3, padding=1, groups=2),
        conv("a", 5, 5, 4, 4, 3, padding=1, groups=4),
        linear("a", 6, 10, 7),
        linear("a", 1, 20, 6),
    ]
)


@st.composite
def planned(draw):
    """A layer and tiles of it."""
    layer = draw(layers)
    tile = {name: draw(st.integers(1, size)) for name, size in (("m", layer.m), ("k", layer.k), ("n", layer.n))}
    return layer, Schedule(
        draw(st.sampled_from(["os", "ws", "is"])), 1, **tile, order=draw(st.sampled_from(ORDER_NAMES))
    )


def tiles(layer, by):
    """(first, last + 1) of pixels, taps and filters, as the loops come."""
    starts = {x: range(0, getattr(layer, x), getattr(by, x)) for x in "mkn"}
    for at in product(*(starts[x] for x in by.order)):
        start = dict(zip(by.order, at, strict=True))
        yield {x: (start[x], min(start[x] + getattr(by, x), getattr(layer, x))) for x in "mkn"}


def cut(first, end, size):
    return [(at, min(at + size, end)) for at in range(first, end, size)]


def output(layer, group, pixel, filter):
    if layer.kind == "conv":
        return (group * layer.n + filter) * layer.m + pixel
    return pixel * layer.n + filter


def left(layer, by, machine):
    """Outputs as they leave the array, with the last taps of their tile."""
    rows, cols, seen = machine.array_rows, machine.array_cols, []
    for group in range(layer.groups):
        for tile in tiles(layer, by):
            if tile["k"][1] < layer.k:
                continue
            if by.dataflow == "is":
                for first, end in cut(*tile["m"], cols):
                    seen += [(group, p, n) for n in range(*tile["n"]) for p in range(first, end)]
            for first, end in cut(*tile["n"], cols) if by.dataflow != "is" else ():
                for top, bottom in cut(*tile["m"], rows) if by.dataflow == "os" else [tile["m"]]:
                    pixels = range(top, bottom)
                    pixels = reversed(pixels) if by.dataflow == "os" else pixels
                    seen += [(group, p, n) for p in pixels for n in range(first, end)]
    return [output(layer, *each) for each in seen]


def fetched(layer, by):
    """Inputs as the tiles first bring them, then what none brings."""
    channels, seen = layer.in_channels // layer.groups, []
    taps = layer.kernel_h * layer.kernel_w
    for group in range(layer.groups):
        here = set()
        for tile in tiles(layer, by):
            needed = set()
            for pixel, tap in product(range(*tile["m"]), range(*tile["k"])):
                if layer.kind == "linear":
                    needed.add(pixel * layer.k + tap)
                    continue
                y = pixel // layer.out_w * layer.stride_h - layer.padding_top
                x = pixel % layer.out_w * layer.stride_w - layer.padding_left
                y += tap % taps // layer.kernel_w * layer.dilation_h
                x += tap % layer.kernel_w * layer.dilation_w
                channel = group * channels + tap // taps
                if 0 <= y < layer.in_h and 0 <= x < layer.in_w:
                    needed.add((channel * layer.in_h + y) * layer.in_w + x)
            seen += sorted(needed - here)
            here |= needed
    return seen


def stream(placed, count):
    """Elements as they come, by the cells of their lowest bits."""
    cell = np.array([placed.locate(element, 0)[0] for element in range(count)])
    assert len(set(cell.tolist())) == count
    return np.argsort(cell).tolist()


@settings(max_examples=80, deadline=None)
@given(planned())
def test_outputs_and_waiting_sums_lie_as_they_leave_the_array(case):
    layer, by = case
    net, plan = Workload("n", (layer,)), Plan({"a": by})
    placed = place_activations(net, SMALL, ROOMY, bits=8, buffer="ofmap_buffer", plan=plan)
    assert stream(placed, outputs_of(layer)) == left(layer, by, SMALL)
    waiting = place_partial_sums(net, SMALL, ROOMY, bits=32, plan=plan)
    if taps_between_spills(net, SMALL, plan)[0] < layer.k:
        assert stream(waiting, outputs_of(layer)) == left(layer, by, SMALL)
    else:
        assert waiting.weights == 0


@settings(max_examples=80, deadline=None)
@given(planned())
def test_inputs_lie_as_tiles_first_fetch_them(case):
    """By a walk through all pixels and taps. A slice that cuts a channel's taps may read a few of its pixels first:
    slices of whole channels only."""
    layer, by = case
    taps = layer.kernel_h * layer.kernel_w
    by = replace(by, k=min(layer.k, -(-by.k // taps) * taps))
    placed = place_activations(Workload("n", (layer,)), SMALL, ROOMY, bits=8, plan=Plan({"a": by}))
    expected = fetched(layer, by)
    assert [e for e in stream(placed, layer.ifmap_elements) if e in set(expected)] == expected


@pytest.mark.parametrize("buffer", ["ifmap_buffer", "ofmap_buffer"])
def test_every_bit_has_one_cell_while_it_is_there(buffer):
    net = Workload("n", (conv("a", 12, 12, 3, 8, 3, padding=1), conv("b", 12, 12, 8, 6, 3, sources=(0,))))
    plan = Plan({name: Schedule("os", 1, 24, 27, 4, "knm") for name in "ab"})
    placed = place_activations(net, PAPER, Geometry(1, 16, 64, 64), buffer=buffer, plan=plan)
    hits = placed.hits(np.arange(placed.geometry.cells))
    assert placed.residencies > 10
    assert np.array_equal(np.sort(hits.weight * 8 + hits.bit), np.arange(placed.weights * 8))
    for element in range(0, placed.weights, 97):
        (cell,) = placed.locate(element, 5)
        assert (element, 5) in set(zip(hits.weight[hits.fault == cell], hits.bit[hits.fault == cell], strict=True))
    _, held = placed.contents(np.arange(placed.geometry.words))
    assert sorted(held[held >= 0].tolist()) == list(range(placed.weights))


def test_what_the_vector_unit_takes_as_it_leaves_lies_in_the_order_of_the_array():
    """A ReLU and a sum do; what a pool makes lies in torch order, and so does what it reads."""
    relu = Layer("relu", "activation", operations=256, elements_read=256, elements_written=256, sources=(0,))
    pool = Layer("pool", "pool", operations=256, elements_read=256, elements_written=64, sources=(1,))
    a = conv("a", 8, 8, 3, 4, 3, padding=1)
    by = Schedule("ws", 1, 16, 27, 2, "nmk")
    first = place_activations(
        Workload("n", (a, relu, conv("b", 8, 8, 4, 1, 1, sources=(1,)))), SMALL, ROOMY, buffer="ofmap_buffer",
        plan=Plan({"a": by, "b": by}),
    )  # fmt: skip
    assert stream(first, 256) == left(a, by, SMALL) != list(range(256))
    pooled = place_activations(
        Workload("n", (a, relu, pool)), SMALL, ROOMY, buffer="ofmap_buffer", plan=Plan({"a": by})
    )
    assert [t.name for t in pooled.tensors] == ["pool"]
    assert stream(pooled, 64) == list(range(64))


def test_tensors_come_to_the_input_buffer_when_they_are_first_read():
    """`a` goes to `c` alone, behind `b`, which the image goes to as well."""
    net = Workload("n", (
        conv("a", 4, 4, 1, 2, 1), conv("b", 4, 4, 1, 2, 1, sources=(-1,)),
        conv("late", 4, 4, 2, 2, 1, sources=(1,)), conv("c", 4, 4, 2, 2, 1, sources=(0,)),
    ))  # fmt: skip
    placed = place_activations(net, PAPER, ROOMY)
    first = {t.name: int(placed.locate(t.first, 0)[0]) for t in placed.tensors}
    assert sorted(first, key=first.get) == ["input", "b", "a", "late", "c"]
    assert [t.name for t in placed.tensors] == ["input", "a", "b", "late", "c"]


def test_rows_of_a_row_stationary_array_come_strip_by_strip():
    layer = conv("a", 6, 4, 4, 4, 3, padding=1)
    machine, by = accelerator("eyeriss"), RowStationary(n=1, m=2, e=2, p=1, q=2, r=1, t=1)
    net, plan = Workload("n", (layer,)), Plan({"a": by})
    pixels = [range(8), range(8, 16), range(16, 24)]
    made = [n * 24 + p for strip in pixels for block in ((0, 1), (2, 3)) for n in block for p in strip]
    assert stream(place_activations(net, machine, ROOMY, bits=8, buffer="ofmap_buffer", plan=plan), 96) == made
    rows = [range(3), range(3, 5), range(5, 6)]  # with the halo below, and without what the strip above has brought
    read = [
        c * 24 + y * 4 + x
        for strip in rows
        for block in ((0, 1), (2, 3))
        for c in block
        for y in strip
        for x in range(4)
    ]
    assert stream(place_activations(net, machine, ROOMY, bits=8, plan=plan), 96) == read
    assert taps_between_spills(net, machine, plan) == [18]


def test_activations_pass_their_memory_in_turn():
    relu = Layer("relu", "activation", operations=512, elements_read=512, elements_written=512, sources=(0,))
    net = Workload("n", (conv("a", 8, 8, 3, 8, 3, padding=1), relu, conv("b", 8, 8, 8, 4, 1, sources=(1,))))
    geometry = Geometry(1, 64, 64, 64)
    p = place_activations(net, PAPER, geometry)
    assert [(t.name, t.first, t.count) for t in p.tensors] == [("input", 0, 192), ("relu", 192, 512), ("b", 704, 256)]
    assert p.residencies == 4  # 120 words through halves of 32
    assert p.locate(8, 0).tolist() == [64]  # the second word
    assert p.locate(512, 7).tolist() == [64 * 0 + 7]  # word 64 of the stream, back in half 0


def test_a_word_too_narrow_is_refused():
    with pytest.raises(InputError, match="bits"):
        place_activations(Workload("n", (linear("fc", 1, 4, 2),)), PAPER, Geometry(1, 8, 32, 8), bits=16)
