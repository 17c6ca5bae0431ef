"""Do several cores do the same work in no more time than one?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, accelerator
from simulator.activation_placement import place_activations, place_partial_sums
from simulator.area import area
from simulator.array.cores import core_bytes, parts_of
from simulator.array.cycles import plan_of, simulate
from simulator.array.schedule import Plan, RowStationary, Schedule, load, save
from simulator.compat import scalesim
from simulator.energy import energy, idle_mw
from simulator.placement import place
from simulator.workload import Layer, Workload, conv, linear
from sram import paper
from sram.errors import InputError
from sram.geometry import Geometry
from tests.simulator.array import test_rowstationary, test_search
from tests.simulator.array.test_search import FLAT

EDGE = replace(accelerator("edge"), keep_on_chip=False)


def network(layer):
    relu = Layer("relu", "activation", operations=9, elements_read=9, elements_written=9, sources=(0,))
    return Workload("two", (layer, replace(relu, batch=layer.batch)), batch=layer.batch)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(test_search.layers(), st.integers(1, 7), st.sampled_from(["samples", "outputs"]))
def test_parts_are_the_layer(layer, cores, split):
    cut = parts_of(layer, cores, split)
    assert 1 <= cut.cores <= cores
    parts = [cut.larger] * cut.larger_cores + [cut.smaller] * cut.smaller_cores
    assert sum(part.macs for part in parts) == layer.macs
    assert sum(part.batch * part.ofmap_elements for part in parts) == layer.batch * layer.ofmap_elements
    assert sum(part.weights for part in parts) == (layer.weights if split == "outputs" else cut.cores * layer.weights)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(test_search.layers(), test_search.machines(), st.integers(2, 5))
def test_several_cores_do_the_same_work_and_are_never_slower(layer, machine, cores):
    layer = replace(layer, batch=1) if machine.objective == "energy" else layer
    net = network(layer)
    one, many = simulate(net, machine, table=FLAT), simulate(net, replace(machine, cores=cores), table=FLAT)
    assert many.cycles <= one.cycles
    if many.plan.samples == one.plan.samples:
        assert (many.layers["cycles"] <= one.layers["cycles"]).all()
    assert many.layers["macs"].sum() == one.layers["macs"].sum() == layer.macs
    assert many.layers["ofmap_dram_write_bytes"].sum() == one.layers["ofmap_dram_write_bytes"].sum()
    assert (many.layers["utilization"] <= 1).all()
    big = Buffer(1 << 36)
    least = simulate(net, replace(machine, ifmap_buffer=big, weight_buffer=big, ofmap_buffer=big), table=FLAT)
    for name in ("ifmap_dram_read_bytes", "filter_dram_read_bytes"):
        assert many.layers[name].sum() >= least.layers[name].sum()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(test_search.layers(), test_search.machines(), st.integers(2, 5), st.sampled_from(["edp", "energy", "cycles"]))
def test_a_layer_is_cut_only_where_that_costs_no_more_than_one_of_the_cores(layer, machine, cores, objective):
    """On the same machine, whose idle cores leak, too: as one core alone would run the layer, by its own search."""
    net, machine = Workload("one", (layer,), batch=layer.batch), replace(machine, objective=objective)
    many = replace(machine, cores=cores)
    one, found = simulate(net, machine, table=FLAT), simulate(net, many, table=FLAT)
    assume(one.plan.samples == found.plan.samples)
    whole = simulate(net, many, replace(one.plan, splits={}), FLAT)

    def cost(counts):
        pj = energy(counts, table=FLAT).system_pj
        return {"cycles": counts.cycles, "energy": pj, "edp": pj * counts.cycles}[objective]

    assert cost(found) <= cost(whole) * (1 + 1e-9)
    assert found.cycles <= whole.cycles


@settings(max_examples=40, deadline=None, derandomize=True)
@given(test_search.layers(), test_search.machines(), st.integers(2, 5), st.sampled_from(["search", "fixed"]))
def test_what_is_found_can_be_given_back(layer, machine, cores, schedule):
    net, machine = network(layer), replace(machine, cores=cores, schedule=schedule)
    found = simulate(net, machine, table=FLAT)
    again = simulate(net, machine, found.plan)
    assert again.plan == found.plan
    assert again.layers.tobytes() == found.layers.tobytes()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(test_rowstationary.layers(), test_rowstationary.machines(), st.integers(2, 4))
def test_row_stationary_cores_are_never_slower(layer, machine, cores):
    net = network(replace(layer, batch=1) if machine.objective == "energy" else layer)
    try:
        one = simulate(net, machine, table=test_rowstationary.FLAT_45)
    except InputError:
        assume(False)
    many = simulate(net, replace(machine, cores=cores), table=test_rowstationary.FLAT_45)
    assert many.cycles <= one.cycles
    again = simulate(net, replace(machine, cores=cores), many.plan)
    assert again.layers.tobytes() == many.layers.tobytes()


def test_row_stationary_filters_lie_in_the_core_that_has_them():
    layer, machine = conv("c", 9, 9, 6, 22, 3, padding=1, groups=2), replace(accelerator("eyeriss"), cores=3)
    plan = Plan({"c": RowStationary(1, 4, 9, 3, 2, 1, 1)}, splits={"c": "outputs"})  # 4, 4 and 3 filters of each group
    geometry = Geometry(3, 64, 64, 64)
    hits = place(network(layer), machine, geometry, plan=plan).hits(np.arange(geometry.cells))
    filters = hits.weight // (3 * 9) % 11
    assert len(np.unique(hits.weight * 16 + hits.bit)) == len(hits.weight) == layer.weights * 16
    assert (hits.fault // geometry.cells_per_bank == np.searchsorted([4, 8], filters, side="right")).all()


def test_a_layer_that_computes_is_as_many_times_faster_and_one_that_waits_is_not():
    fast = replace(EDGE, dram_bytes_per_cycle=1e9, dram_latency_cycles=0)
    deep, wide = conv("deep", 14, 14, 64, 64, 3, padding=1), linear("wide", 1, 1000, 1000)
    one, four = (simulate(network(deep), replace(fast, cores=cores)) for cores in (1, 4))
    assert four.plan.splits == {"deep": "outputs"}
    assert four.frame()["schedule"][0].endswith(", cut by outputs")
    assert four.layers["cycles"][0] == pytest.approx(one.layers["cycles"][0] / 4, rel=0.02)
    slow = replace(EDGE, dram_bytes_per_cycle=0.1)
    one, four = (simulate(network(wide), replace(slow, cores=cores)) for cores in (1, 4))
    assert four.layers["cycles"][0] > 0.95 * one.layers["cycles"][0]


def test_a_batch_is_cut_by_samples_where_that_takes_less():
    layer = conv("c", 32, 32, 16, 16, 1, batch=4)
    found = simulate(network(layer), replace(EDGE, cores=4, objective="cycles"))
    assert found.plan.splits == {"c": "samples"}
    assert found.layers["filter_dram_read_bytes"][0] == 4 * layer.weights  # each core fetches them


def test_without_tiles_only_the_split_is_chosen():
    net, fixed = network(conv("c", 14, 14, 64, 64, 3, padding=1)), replace(EDGE, schedule="fixed")
    one, four = simulate(net, fixed), simulate(net, replace(fixed, cores=4))
    assert four.plan.splits == {"c": "outputs"}
    assert four.plan.layers["c"] == replace(one.plan.layers["c"], n=16)
    alone = simulate(
        network(conv("c", 14, 14, 64, 16, 3, padding=1)),
        replace(fixed, dram_bytes_per_cycle=EDGE.dram_bytes_per_cycle / 4),
    )
    assert four.layers["cycles"][0] == alone.layers["cycles"][0]
    assert plan_of(net, replace(fixed, cores=4)) == four.plan


def test_weights_are_resident_where_each_core_has_room_for_its_own():
    net = network(linear("l", 1, 1024, 1000))
    machine = replace(EDGE, weights="resident", weight_buffer=replace(EDGE.weight_buffer, capacity_bytes=256 << 10))
    found = simulate(net, replace(machine, cores=4))
    assert found.plan.splits == {"l": "outputs"}
    assert found.layers["filter_dram_read_bytes"].sum() == 0
    assert core_bytes(net, found.accelerator, found.plan) == [256000.0] * 4
    for cores, need in ((1, "1,024,000"), (2, "512,000")):
        with pytest.raises(InputError, match=f"streamed; resident takes {need} of the 262,144 bytes"):
            simulate(net, replace(machine, cores=cores))
    # one layer that is not cut: the first core needs room for it
    alone = Plan({"l": Schedule("ws", 1, 1, 1024, 1000)})
    with pytest.raises(InputError, match="resident takes 1,024,000"):
        simulate(net, replace(machine, cores=4), alone)


def test_all_cores_leak_and_take_area():
    net, four = network(linear("l", 1, 64, 64)), replace(EDGE, cores=4)
    assert area(four).mm2 == pytest.approx(4 * area(EDGE).mm2)
    assert idle_mw(four) == pytest.approx(4 * idle_mw(EDGE))
    counts = simulate(net, EDGE)
    one, many = energy(counts), energy(counts, accelerator=four)
    for name in ("sram_leakage", "logic_leakage"):
        assert many.components[name] == pytest.approx(4 * one.components[name])
    assert many.components["mac"] == pytest.approx(one.components["mac"])


def test_splits_are_kept_in_a_file_and_named_where_they_cannot_be(tmp_path):
    net, four = network(conv("c: 1", 14, 14, 64, 64, 3, padding=1)), replace(EDGE, cores=4)
    plan = simulate(net, four).plan
    assert plan.splits
    save(plan, tmp_path / "plan.yaml")
    assert load(tmp_path / "plan.yaml") == plan
    with pytest.raises(InputError, match="splits = 'c: 1' is not allowed; allowed: none on one core"):
        simulate(net, EDGE, plan)
    with pytest.raises(InputError, match="layers = 'other'"):
        simulate(net, four, replace(plan, splits={"other": "outputs"}))
    with pytest.raises(InputError, match="n = 64 is not allowed; allowed: 1 to 16"):
        simulate(net, four, Plan({"c: 1": Schedule("ws", 1, 196, 576, 64)}, splits={"c: 1": "outputs"}))


def test_what_several_cores_have_not_is_refused_with_one_message():
    net, four = network(linear("l", 1, 64, 64)), replace(EDGE, cores=4)
    with pytest.raises(InputError, match="banks = 6 is not allowed; allowed: a multiple of 4, the cores of edge"):
        place(net, four, Geometry(banks=6))
    with pytest.raises(InputError, match="cores = 4 is not allowed; allowed: 1 with schedule = paper"):
        place(net, four, paper.GEOMETRY, "paper")
    for other in (place_activations, place_partial_sums):
        with pytest.raises(InputError, match="cores = 4 is not allowed; allowed: 1 where activations or sums"):
            other(net, four, Geometry(banks=4))
    with pytest.raises(InputError, match="cores = 4 is not allowed; allowed: 1 with --compat scalesim"):
        scalesim.simulate(net, four)
    with pytest.raises(InputError, match="keep_on_chip = True is not allowed; allowed: false with several cores"):
        replace(four, keep_on_chip=True)
    with pytest.raises(InputError, match="cores = 0 is not allowed; allowed: 1 to 256"):
        replace(EDGE, cores=0)
    assert np.isfinite(energy(simulate(net, four)).system_pj)
