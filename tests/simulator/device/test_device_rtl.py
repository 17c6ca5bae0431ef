"""Does the array in SystemVerilog multiply exactly, and in the number of cycles that the model claims?"""

import dataclasses
import itertools

import numpy as np
import pytest

from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.array.dataflow import gemm_cycles
from simulator.device.board import pack_weights, unpack_weights
from simulator.device.program import Conv, Program
from simulator.device.protocol import DeviceError
from simulator.device.rtl import build
from simulator.device.rtl.chip import RtlChip
from simulator.device.simulated import product_counters
from simulator.workload import Workload, conv
from sram import failure, inject
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.structure import structure

pytestmark = [
    pytest.mark.verilator,
    pytest.mark.skipif(not build.available(), reason="needs Verilator (apt-get install verilator g++ make)"),
]
GEOMETRY = Geometry(2, rows=64, columns=64, word_bits=32)


def fault_map(cells=(), kinds=()):
    n = len(cells)
    return FaultMap(
        GEOMETRY, failure.curve("ibm14"), structure("iid"), 0, 0, 0.7,
        np.array(cells, np.int64), np.full(n, 0.75, np.float32), np.array(kinds, np.uint8),
    )  # fmt: skip


def machine(dataflow, overlap, skip=True, rows=4, cols=3):
    return dataclasses.replace(
        accelerator("paper"),
        array_rows=rows,
        array_cols=cols,
        dataflow=dataflow,
        double_buffered_registers=overlap,
        skip_idle_rows=skip,
    )


def check(array, shapes, seed=0):
    """Every product of `shapes` exact, and its cycles and accesses as claimed."""
    rng = np.random.default_rng(seed)
    with RtlChip(fault_map(), array) as chip:
        stored = rng.integers(-128, 128, chip.info.capacity_bytes).astype(np.int8)
        chip.write(0, pack_weights(stored, 32))
        for m, k, n in shapes:
            base = int(rng.integers(0, len(stored) - n * k + 1))
            activations = rng.integers(-128, 128, (m, k)).astype(np.int8)
            sums, counters = chip.multiply(activations, base, n)
            weights = stored[base : base + n * k].reshape(n, k)
            assert (sums == activations.astype(np.int32) @ weights.T.astype(np.int32)).all(), (m, k, n)
            shape = (m, k, n, array.array_rows, array.array_cols)
            claimed = gemm_cycles(array.dataflow, *shape, array.double_buffered_registers, array.skip_idle_rows)
            assert counters.cycles == claimed, (m, k, n)
            assert counters == product_counters(array, m, k, n), (m, k, n)


# Below, at and above one and two folds, in both directions; streams shorter and longer than a load or a drain.
GRID = list(itertools.product((1, 2, 3, 4, 5, 8, 9, 13), (1, 2, 4, 5, 8, 11), (1, 2, 3, 4, 6, 7)))


@pytest.mark.parametrize("overlap", [False, True], ids=["plain", "overlap"])
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_products_and_cycles_on_a_grid_of_shapes(dataflow, overlap):
    check(machine(dataflow, overlap), GRID)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (6, 1), (4, 3), (8, 8)])
@pytest.mark.parametrize(("overlap", "skip"), list(itertools.product([False, True], [False, True])))
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_products_and_cycles_of_other_arrays(dataflow, overlap, skip, rows, cols):
    sizes = sorted({1, 2, rows - 1, rows, rows + 1, 2 * rows, 2 * rows + 1, cols, cols + 1, 2 * cols + 1, 19} - {0})
    check(machine(dataflow, overlap, skip, rows, cols), itertools.product(sizes, sizes, sizes))


def test_the_largest_sums_do_not_wrap():
    with RtlChip(fault_map(), machine("ws", True)) as chip:
        stored = np.full(chip.info.capacity_bytes, -128, np.int8)
        chip.write(0, pack_weights(stored, 32))
        sums, _ = chip.multiply(np.full((1, 1024), -128, np.int8), 0, 1)
        assert sums.tolist() == [[1024 * 128 * 128]]


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_the_array_reads_its_weights_through_the_fault_port(dataflow):
    """Stuck and flipped cells change the product as they change the words: by `sram.inject`, which knows no masks."""
    rng = np.random.default_rng(4)
    weights = rng.integers(-128, 128, (5, 40)).astype(np.int8)
    faulty = rng.choice(200 * 8, 300, replace=False)  # bits of the 200 weights
    kinds = rng.integers(0, 3, len(faulty)).astype(np.uint8)
    order = np.argsort(GEOMETRY.cell(faulty // 32, faulty % 32))
    faulty, kinds = faulty[order], kinds[order]
    read = weights.ravel().copy()
    inject.apply(read, faulty // 8, (faulty % 8).astype(np.uint8), kinds)
    assert (read != weights.ravel()).sum() > 50
    activations = rng.integers(-128, 128, (6, 40)).astype(np.int8)

    def product(words):
        return activations.astype(np.int32) @ words.reshape(5, 40).T.astype(np.int32)

    with RtlChip(fault_map(GEOMETRY.cell(faulty // 32, faulty % 32), kinds), machine(dataflow, True)) as chip:
        chip.write(0, pack_weights(weights, 32))
        for voltage, words in ((1.0, weights), (0.74, read), (1.0, weights)):  # and back: nothing stays behind
            chip.set_voltage(voltage)
            assert (unpack_weights(chip.read(0, 50), 32) == words.ravel()).all()
            assert (chip.multiply(activations, 0, 5)[0] == product(words)).all()


def test_a_library_is_built_once(monkeypatch):
    parameters = {"ROWS": 4, "COLS": 3}
    made = []
    monkeypatch.setattr(build, "_cached", lambda name, make: made.append(name) or name)
    build.library(parameters)
    build.library(parameters)
    build.library({"ROWS": 4, "COLS": 4})
    monkeypatch.setattr(build, "VERILATE", (*build.VERILATE, "-Wall"))
    build.library(parameters)
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_what_is_missing_is_said(monkeypatch):
    build.version.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="apt-get install verilator"):
        build.version()
    build.version.cache_clear()


def test_arrays_without_rtl_are_refused():
    with pytest.raises(InputError, match="os or ws"):
        RtlChip(fault_map(), machine("is", False))


@pytest.mark.parametrize("overlap", [False, True], ids=["plain", "overlap"])
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_a_layer_takes_what_the_stepped_engine_says(dataflow, overlap):
    """`cycles.simulate` walks fold after fold through buffers and DRAM; DRAM never late, it is the array's time."""
    array = dataclasses.replace(machine(dataflow, overlap), dram_bytes_per_cycle=1e300, dram_latency_cycles=0)
    layer = conv("layer", 7, 6, 5, 7, kernel=3, padding=1)
    step = Conv(0, 0, 7, 5, 3, 3, (1, 1), (1, 1), 1, 1.0, (1.0,) * 7, (0.0,) * 7, relu=False)
    with RtlChip(fault_map(), array) as chip:
        chip.load(Program((5, 7, 6), (step,)))
        counted = chip.run(np.zeros((1, 5, 7, 6), np.float32)).counters
    claimed = simulate(Workload("one layer", (layer,)), array).layers[0]
    assert counted.cycles == claimed["array_cycles"] == claimed["cycles"]
    assert counted.weight_reads == claimed["filter_sram_reads"]
    assert counted.output_reads == claimed["psum_sram_reads"]
