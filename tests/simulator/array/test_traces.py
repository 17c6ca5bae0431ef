"""Does a trace hold exactly the accesses that are counted, in cycles in which the array's ports can take them?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, accelerator
from simulator.array import traces
from simulator.array.cores import parts_of
from simulator.array.cycles import simulate
from simulator.array.schedule import ORDER_NAMES, Plan, Schedule
from simulator.workload import Workload, conv, linear, matmul
from sram.errors import InputError

LAYERS = (
    conv("c", 6, 7, 4, 5, 3, padding=1, stride=2, groups=1, batch=2),
    conv("g", 5, 5, 4, 6, 3, padding=1, groups=2, dilation=2),
    linear("l", 3, 7, 5, batch=2),
    matmul("m", 4, 3, 5, groups=2, batch=2),
)


def trace(layer, machine):
    blocks = list(traces.events(layer, machine))
    return [np.concatenate(part) for part in zip(*blocks, strict=True)]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(LAYERS),
    st.sampled_from(["os", "ws", "is"]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
)
def test_events_are_the_accesses_that_are_counted(layer, dataflow, rows, cols, overlap, skip):
    machine = replace(
        accelerator("paper"),
        dataflow=dataflow,
        array_rows=rows,
        array_cols=cols,
        double_buffered_registers=overlap,
        skip_idle_rows=skip,
    )
    counts = simulate(Workload("one", (layer,)), machine).layers[0]
    cycle, operand, address = trace(layer, machine)
    found = dict(zip(traces.OPERANDS, np.bincount(operand, minlength=5).tolist(), strict=True))
    assert found == {
        "ifmap_read": counts["ifmap_sram_reads"],
        "filter_read": counts["filter_sram_reads"],
        "psum_read": counts["psum_sram_reads"],
        "psum_write": counts["psum_sram_writes"],
        "ofmap_write": counts["ofmap_sram_writes"],
    }
    # every output once, every weight at least once, nothing outside the tensors
    outputs = address[operand == 4]
    assert sorted(outputs) == list(range(layer.ofmap_elements * layer.batch))
    stored = layer.weights or layer.batch * layer.filter_elements
    assert set(address[operand == 1]) == set(range(stored))
    assert address[operand == 0].max() < layer.ifmap_elements * layer.batch
    # the last output leaves in the last cycle; without skipping that is when a whole fold would end, or before
    assert cycle.min() >= 0
    if skip:
        assert cycle.max() == counts["array_cycles"] - 1
    assert cycle.max() < counts["array_cycles"]
    # a port takes one word a cycle
    for name, ports in ((0, rows + cols), (1, rows + cols), (4, cols), (2, cols), (3, cols)):
        at = cycle[operand == name]
        assert at.size == 0 or np.bincount(at).max() <= ports


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(LAYERS),
    st.sampled_from(["os", "ws", "is"]),
    *(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans()),
    *(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.sampled_from(ORDER_NAMES)),
)
def test_events_of_tiles_are_the_accesses_that_are_counted(
    layer, dataflow, rows, cols, overlap, skip, pixels, taps, filters, order
):
    buffer = Buffer(1 << 20)
    machine = replace(
        accelerator("paper"),
        dataflow=dataflow,
        array_rows=rows,
        array_cols=cols,
        ifmap_buffer=buffer,
        weight_buffer=buffer,
        ofmap_buffer=buffer,
        double_buffered_registers=overlap,
        skip_idle_rows=skip,
    )
    # a part of a row, whole rows, or one sample
    width = layer.out_w if layer.kind == "conv" else 1
    m = pixels if pixels < width else min(pixels // width * width, layer.m)
    schedule = Schedule(dataflow, 1, m, min(layer.k, rows * taps), min(layer.n, cols * filters), order)
    counts = simulate(Workload("one", (layer,), batch=layer.batch), machine, Plan({layer.name: schedule}, layer.batch))
    blocks = list(traces.events(layer, machine, Plan({layer.name: schedule})))
    cycle, operand, address = (np.concatenate(part) for part in zip(*blocks, strict=True))
    found = np.bincount(operand, minlength=5).tolist()
    names = ("ifmap_sram_reads", "filter_sram_reads", "psum_sram_reads", "psum_sram_writes", "ofmap_sram_writes")
    assert found == [counts.layers[name][0] for name in names]
    assert sorted(address[operand == 4]) == list(range(layer.ofmap_elements * layer.batch))
    assert cycle.min() >= 0
    assert cycle.max() < counts.layers["array_cycles"][0]
    for name, ports in ((0, rows + cols), (1, rows + cols), (4, cols), (2, cols), (3, cols)):
        at = cycle[operand == name]
        assert at.size == 0 or np.bincount(at).max() <= ports


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from((*LAYERS, linear("x", 3, 7, 5, batch=2, k_major=True))),
    st.sampled_from(["os", "ws", "is"]),
    *(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.sampled_from(["samples", "outputs"])),
)
def test_cores_share_the_accesses_of_one(layer, dataflow, rows, cols, cores, split):
    """By outputs each weight enters one core; by samples each core reads its samples; each output leaves once."""
    one = replace(accelerator("paper"), dataflow=dataflow, array_rows=rows, array_cols=cols, schedule="search")
    net, many = Workload("n", (layer,), batch=layer.batch), replace(one, cores=cores)
    cut = parts_of(layer, cores, split)
    tile = Schedule(dataflow, 1, 1, cut.larger.k, cut.larger.n, "mnk")
    plan = Plan({layer.name: tile}, layer.batch, {layer.name: split})
    counts = simulate(net, many, plan).layers[0]
    each = [list(traces.events(layer, many, plan, core)) for core in range(cores)]
    assert [len(blocks) > 0 for blocks in each] == [core < cut.cores for core in range(cores)]
    ran = [[np.concatenate(part) for part in zip(*blocks, strict=True)] for blocks in each if blocks]
    names = ("ifmap_sram_reads", "filter_sram_reads", "psum_sram_reads", "psum_sram_writes", "ofmap_sram_writes")
    found = sum(np.bincount(operand, minlength=5) for _, operand, _ in ran)
    assert found.tolist() == [counts[name] for name in names]
    assert max(cycle.max() for cycle, _, _ in ran) < counts["array_cycles"]
    outputs = np.concatenate([address[operand == 4] for _, operand, address in ran])
    assert sorted(outputs) == list(range(layer.ofmap_elements * layer.batch))
    whole = [np.concatenate(part) for part in zip(*traces.events(layer, one), strict=True)]
    of_one = {i: set(whole[2][whole[1] == i]) for i in range(2)}
    weights = [set(address[operand == 1]) for _, operand, address in ran]
    inputs = [set(address[operand == 0]) for _, operand, address in ran]
    assert set().union(*weights) == of_one[1]
    assert set().union(*inputs) == of_one[0]
    alone = weights if split == "outputs" else inputs
    assert sum(map(len, alone)) == len(set().union(*alone))
    shared = inputs if split == "outputs" else [] if layer.kind == "matmul" else weights
    assert all(part == shared[0] for part in shared)


def test_products_of_the_traced_operands_are_the_layer():
    """Output-stationary: the k-th filter word of column j meets the k-th input word of row i; their sum is the
    output."""
    layer = linear("l", 3, 4, 2)
    machine = replace(accelerator("paper"), dataflow="os", array_rows=3, array_cols=2)
    cycle, operand, address = trace(layer, machine)
    x, w = np.arange(12).reshape(3, 4), np.arange(8).reshape(2, 4) + 1
    a = {(c, r): x.ravel()[i] for c, o, i in zip(cycle, operand, address, strict=True) if o == 0 for r in [i // 4]}
    b = {(c, j): w.ravel()[i] for c, o, i in zip(cycle, operand, address, strict=True) if o == 1 for j in [i // 4]}
    product = np.zeros((3, 2), int)
    for (c, r), left in a.items():
        for (d, j), top in b.items():
            if c + j == d + r:  # both reach PE(r, j) in cycle c + j = d + r
                product[r, j] += left * top
    assert (product == x @ w.T).all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_hold_the_events(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(traces, "BLOCK_EVENTS", 500)  # many blocks
    machine = replace(accelerator("paper"), array_rows=4, array_cols=4)
    path = tmp_path / f"trace.{suffix}"
    rows = traces.write(LAYERS[0], machine, path)
    frame = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    cycle, operand, address = trace(LAYERS[0], machine)
    assert rows == len(frame) == len(cycle)
    assert (frame["cycle"] == cycle).all()
    assert (frame["address"] == address).all()
    assert (frame["operand"].astype(str) == np.array(traces.OPERANDS)[operand]).all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_say_which_core(tmp_path, suffix):
    machine, layer = replace(accelerator("paper"), cores=2, array_rows=4, array_cols=2), linear("l", 3, 7, 5)
    plan = Plan({"l": Schedule("os", 1, 3, 7, 3)}, splits={"l": "outputs"})
    rows = traces.write(layer, machine, tmp_path / f"t.{suffix}", plan)
    frame = pd.read_csv(tmp_path / "t.csv") if suffix == "csv" else pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame) == ["core", "cycle", "operand", "address"]
    assert rows == len(frame)
    written = frame[frame.operand == "ofmap_write"]
    assert sorted(written[written.core == 1].address) == [3, 4, 8, 9, 13, 14]


def test_blocks_are_bounded():
    layer = conv("c", 32, 32, 16, 64, 3, padding=1)
    sizes = [len(cycle) for cycle, _, _ in traces.events(layer, accelerator("paper"))]
    assert sum(sizes) > 2 * traces.BLOCK_EVENTS
    assert max(sizes) <= traces.BLOCK_EVENTS


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="suffix"):
        traces.write(LAYERS[0], accelerator("paper"), tmp_path / "trace.txt")
    with pytest.raises(InputError, match="transposed"):
        traces.write(conv("u", 4, 4, 2, 2, 2, transposed=True), accelerator("paper"), tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())
