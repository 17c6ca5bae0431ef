"""Does --compat scalesim give SCALE-Sim's own results, to the word?"""

import csv
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, accelerator
from simulator.compat import scalesim
from simulator.workload import Workload, conv, linear
from sram.errors import InputError
from tests.conftest import DATA

# Results of SCALE-Sim v3 (scalesim-project/SCALE-Sim), bandwidth mode CALC, run as it is. calc: commit 1d62b68; random:
# package scalesim 3.0.0 on random small layers and arrays, some with operands just as large as the resident set.
ROWS = list(csv.DictReader((DATA / "scalesim_calc.csv").open()))
RANDOM_ROWS = list(csv.DictReader((DATA / "scalesim_random.csv").open()))


def machine(dataflow, rows, cols, ifmap_kb, filter_kb, ofmap_kb):
    return replace(
        accelerator("paper"),
        dataflow=dataflow,
        array_rows=rows,
        array_cols=cols,
        ifmap_buffer=Buffer(1024 * ifmap_kb),
        weight_buffer=Buffer(1024 * filter_kb),
        ofmap_buffer=Buffer(1024 * ofmap_kb),
    )


@cache
def machine_of_row(*key):
    return machine(*key)


def layer_of(row):
    number = {
        name: int(row[name]) for name in ("ifmap_h", "ifmap_w", "filt_h", "filt_w", "channels", "num_filt", "stride")
    }
    kernel = (number["filt_h"], number["filt_w"])
    return conv(
        row["layer"],
        number["ifmap_h"],
        number["ifmap_w"],
        number["channels"],
        number["num_filt"],
        kernel,
        number["stride"],
    )


@pytest.mark.parametrize(("rows", "count"), [(ROWS, 912), (RANDOM_ROWS, 108)], ids=["calc", "random"])
def test_every_reference_row_is_exact(rows, count):
    wrong = []
    for row in rows:
        sizes = ("array_rows", "array_cols", "ifmap_sram_kb", "filter_sram_kb", "ofmap_sram_kb")
        got = scalesim.counts(layer_of(row), machine_of_row(row["dataflow"], *(int(row[name]) for name in sizes)))
        for name in scalesim.COLUMNS[1:]:
            if abs(got[name] - float(row[name])) > (1e-6 if name.endswith("_pct") else 0):
                wrong.append((row["layer"], row["dataflow"], name, got[name], row[name]))
    assert len(rows) == count
    assert not wrong


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_matrix_product_is_the_row_that_scalesim_makes_of_it(dataflow):
    # gemm rows of the reference are stored as ifmap M x K, filter 1 x K
    a = machine(dataflow, 12, 14, 2, 2, 2)
    as_linear = scalesim.counts(linear("g", 512, 32, 16), a)
    as_conv = scalesim.counts(conv("g", 512, 32, 1, 16, (1, 32)), a)
    assert as_linear == as_conv
    row = next(
        r
        for r in ROWS
        if r["layer"] == "gemm_tall"
        and r["dataflow"] == dataflow
        and r["array_rows"] == "12"
        and r["ifmap_sram_kb"] == "2"
    )
    assert as_linear["ifmap_dram_reads"] == float(row["ifmap_dram_reads"])


def slow_reads(stream, limit):
    """The definition, with a Python set."""
    held, reads = set(), 0
    for word in stream:
        if word not in held:
            reads += 1
            held.add(word)
            if len(held) == limit:
                held.clear()
    return reads


def slow_ifmap_stream(dataflow, h, w, kh, kw, ch, n, stride, rows, cols):
    """The words that each cycle asks for, port by port, from the im2col matrix (M x K, -1 over the edge)."""
    im2col = []
    for y in range(0, h - kh + stride, stride):
        for x in range(0, w - kw + stride, stride):
            im2col.append(
                [
                    ((y + r) * w + x + s) * ch + c if y + r < h and x + s < w else -1
                    for r in range(kh)
                    for s in range(kw)
                    for c in range(ch)
                ]
            )
    a = np.array(im2col)
    m, k = a.shape
    sr, sc = {"os": (m, n), "ws": (k, n), "is": (k, m)}[dataflow]
    for c in range(0, sc, cols):
        for r in range(0, sr, rows):
            if dataflow == "is":
                lines = a[c : c + cols, r : r + rows].T[::-1]
            else:
                block = a[r : r + rows] if dataflow == "os" else a[:, r : r + rows].T  # [port, time]
                ports, time = block.shape
                lines = np.full((time + ports - 1, ports), -1)
                for port in range(ports):
                    lines[port : port + time, port] = block[port]
            yield from (word for word in lines.ravel().tolist() if word >= 0)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ifmap_reads_equal_a_walk_over_the_whole_demand_stream(data):
    draw = data.draw
    kh, kw, ch, n, stride = (draw(st.integers(1, top)) for top in (4, 4, 5, 20, 3))
    h, w = draw(st.integers(kh, 12)), draw(st.integers(kw, 12))
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    a = replace(machine(dataflow, draw(st.integers(1, 9)), draw(st.integers(1, 9)), 1, 1, 1), ifmap_buffer=Buffer(100))
    stream = list(slow_ifmap_stream(dataflow, h, w, kh, kw, ch, n, stride, a.array_rows, a.array_cols))
    expected = len(set(stream)) if len(set(stream)) < 50 else slow_reads(stream, 50)
    assert scalesim.ifmap_dram_reads(a, h, w, kh, kw, ch, n, stride) == expected


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["os", "is"]), *[st.integers(1, 40)] * 3, st.integers(1, 9), st.integers(1, 9))
def test_filter_reads_equal_a_walk_over_the_whole_demand_stream(dataflow, m, k, n, rows, cols):
    a = replace(machine(dataflow, rows, cols, 1, 1, 1), weight_buffer=Buffer(100))
    b = np.arange(n * k).reshape(n, k)
    stream = []
    for r, u, c, v in scalesim.folds(a, m, k, n):
        block = b[c : c + v] if dataflow == "os" else b[:, r : r + u].T
        ports, time = block.shape
        for line in range(time + ports - 1):
            stream += [int(block[port, line - port]) for port in range(ports) if 0 <= line - port < time]
    expected = n * k if n * k < 50 else slow_reads(stream, 50)
    assert scalesim.filter_dram_reads(a, m, k, n) == expected


def test_groups_and_batch_are_as_many_rows():
    a = machine("ws", 8, 8, 1, 1, 1)
    one = scalesim.counts(conv("c", 12, 12, 4, 4, 3), a)
    many = scalesim.counts(conv("c", 12, 12, 12, 12, 3, groups=3, batch=2), a)
    assert many["total_cycles"] == 6 * one["total_cycles"]
    assert many["ifmap_dram_reads"] == 6 * one["ifmap_dram_reads"]
    assert many["overall_util_pct"] == one["overall_util_pct"]


def test_what_scalesim_cannot_run_is_refused():
    a = machine("ws", 8, 8, 1, 1, 1)
    with pytest.raises(InputError, match="dilation"):
        scalesim.counts(conv("c", 12, 12, 4, 4, 3, dilation=2), a)
    with pytest.raises(InputError, match="stride"):
        scalesim.counts(conv("c", 12, 12, 4, 4, 3, stride=(1, 2)), a)
    with pytest.raises(InputError, match="best"):
        scalesim.simulate(Workload("n", (conv("c", 12, 12, 4, 4, 3),)), replace(a, dataflow="best"))
    with pytest.raises(InputError, match="capacity_bytes"):
        scalesim.counts(conv("c", 12, 12, 4, 4, 3), replace(a, ifmap_buffer=Buffer(64)))
