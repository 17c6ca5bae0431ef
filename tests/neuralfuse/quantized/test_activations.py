"""Do activations read back from weak cells what a device reads back, in every stored tensor and to the last bit?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.quantized.program import compile_network, device_faults
from simulator.accelerator import accelerator
from simulator.activation_placement import place_activations
from simulator.device.activations import activation_memory
from simulator.device.array_faults import Convolved, TimingFaults
from simulator.device.board import pack_weights
from simulator.device.program import Program, execute
from simulator.device.rtl import build
from simulator.device.rtl.chip import RtlChip
from simulator.device.simulated import SimulatedChip
from simulator.mac_errors import errors_at
from simulator.readers.read import trace
from sram import faultmap, inject
from sram.errors import InputError
from sram.geometry import Geometry
from tests.neuralfuse.quantized.test_fold import trained_like
from tests.neuralfuse.quantized.test_integer import WAYS, answers

PAPER = accelerator("paper")


def on_a_device(program, words, x, memory):
    """The reference: sums in 64-bit integers."""

    def matmul(activations, address, n):
        weights = words[address : address + n * activations.shape[1]].reshape(n, -1)
        return (activations.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.int32)

    return execute(program, x.numpy(), matmul, memory.read_back)


def stored(name, channels=3, size=16, geometry=None):
    """(faulty network, images, program, placement) of a network whose activations are stored."""
    network = trained_like(networks.build(name, 10, channels))
    placed = place_activations(trace(network, (channels, size, size)), PAPER, geometry or Geometry(banks=64))
    x = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    faulty = FaultyNetwork(network, fold=True)
    return faulty, x, compile_network(faulty, x, stored=True), placed


@pytest.fixture(scope="module")
def residual():
    return stored("resnet8")


@pytest.mark.parametrize(("name", "size"), [("resnet8", 16), ("resnet18", 32), ("vgg11", 32)])
def test_the_schedule_and_the_program_store_the_same_tensors(name, size):
    """Sums of residual blocks, pools and the image too: what no module returns is stored as well."""
    _, _, program, placed = stored(name, size=size)
    assert [tensor.count for tensor in placed.tensors] == [int(np.prod(program.shapes[t])) for t in program.stored]
    assert placed.tensors[0].name == "input"
    assert sum(unit is not None for unit in program.units) == len(placed.tensors)


@pytest.mark.parametrize("integers", WAYS)
@settings(deadline=None, max_examples=8, derandomize=True)
@given(share=st.sampled_from([0.0, 0.001, 0.01, 0.2]), seed=st.integers(0, 2**32 - 1))
def test_answers_are_a_devices_to_the_last_bit(residual, integers, share, seed):
    faulty, x, program, placed = residual
    random = np.random.default_rng(seed)
    cells = np.flatnonzero(random.random(placed.geometry.cells) < share)
    faults = placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
    memory = activation_memory(program, placed, faults)
    network = IntegerNetwork(faulty, program, integers)
    network.activations = memory
    got = answers(network, x)
    assert np.array_equal(got, on_a_device(program, faulty.words, x, memory))
    if share == 0.2:
        network.activations = activation_memory(program, placed, (faults[0][:0], faults[1][:0], faults[2][:0]))
        assert not np.array_equal(got, answers(network, x))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_tensor_reads_as_words_in_faulty_cells_do(residual, seed):
    """Each tensor against `sram.inject`, one image after the other; other elements stay as they were written."""
    _, _, program, placed = residual
    random = np.random.default_rng(seed)
    cells = np.sort(random.choice(placed.geometry.cells, 2000, replace=False))
    faults = placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
    memory = activation_memory(program, placed, faults)
    written = random.integers(-128, 128, (2, placed.weights)).astype(np.int8)
    expected = written.copy()
    for image in expected:
        inject.apply(image, *faults)
    for tensor, part in zip(program.stored, placed.tensors, strict=True):
        inside = slice(part.first, part.first + part.count)
        words = written[:, inside].copy()
        memory.read_back(tensor, words)
        assert np.array_equal(words, expected[:, inside])


ON_BOARDS = {
    "resnet8": (lambda: networks.build("resnet8", 10, 1, width=8), (1, 8, 8)),
    "kws": (lambda: networks.build("mlperf-tiny-kws"), (1, 14, 6)),
    "ad": (lambda: networks.build("mlperf-tiny-ad"), (640,)),
}


@pytest.mark.parametrize("rtl", [False, pytest.param(True, marks=pytest.mark.verilator)])
@pytest.mark.parametrize("name", ON_BOARDS)
def test_a_board_with_weak_cells_in_both_memories_gives_the_same_answers(name, rtl):
    """The simulated chip and the array in SystemVerilog: weights and activations both read wrong, and sums are late."""
    if rtl and not build.available():
        pytest.skip("needs Verilator")
    torch.manual_seed(0)
    make, shape = ON_BOARDS[name]
    network = make()
    placed = place_activations(trace(network, shape), PAPER, Geometry(banks=2))
    faulty = FaultyNetwork(trained_like(network), fold=True)
    x = torch.rand(2, *shape) * 2 - 1
    program = compile_network(faulty, x, stored=True)
    weak = faultmap.generate(2, placed.geometry, "ibm14", "iid", voltage_floor=0.78).at(0.78)
    memory = activation_memory(program, placed, placed.faults(weak.cell, weak.kind))
    capacity = 1 << max(15, faulty.words.size.bit_length())
    chip = faultmap.generate(3, Geometry.of_capacity(capacity), "ibm14", "iid", voltage_floor=0.78)
    array = replace(PAPER, array_rows=4, array_cols=3)  # small, for it is compiled
    faulty.set_faults(*device_faults(chip, 0.78, faulty.words.size))
    late = TimingFaults(errors_at(0.001), chip=3)

    def inside(place, words, sums):
        step = program.steps[place - 1]
        weights = faulty.words[step.address : step.address + step.weights]
        late.apply(Convolved(place, step, weights, words, sums))

    with (RtlChip if rtl else SimulatedChip)(chip, array) as board:
        board.read_back, board.in_array = memory.read_back, inside
        board.load(program)
        board.write(0, pack_weights(faulty.clean_words, board.info.word_bits))
        board.set_voltage(0.78)
        expected = board.run(x.numpy()).outputs
    network = IntegerNetwork(faulty, program)
    assert not np.array_equal(answers(network, x), expected)
    network.activations, network.first_image = memory, 0
    assert not np.array_equal(answers(network, x), expected)
    network.in_array, network.first_image = (late,), 0
    assert np.array_equal(answers(network, x), expected)


def test_without_units_a_program_is_what_it_was(residual):
    faulty, x, program, _ = residual
    plain = compile_network(faulty, x)
    assert plain.units == ()
    assert "units" not in plain.to_json()
    assert plain.steps == program.steps
    assert Program.from_json(program.to_json()) == program


def test_faults_are_nested_and_move_answers_further_as_the_supply_falls(residual):
    faulty, x, program, placed = residual
    chip = faultmap.generate(1, placed.geometry, "ibm14", "iid", voltage_floor=0.78)
    network = IntegerNetwork(faulty, program)
    seen = []
    for voltage in (1.0, 0.87, 0.8):
        found = chip.at(voltage)
        network.activations = activation_memory(program, placed, placed.faults(found.cell, found.kind))
        seen.append(answers(network, x))
    distance = [np.linalg.norm(each - seen[0]) for each in seen]
    assert distance[0] == 0 < distance[1] < distance[2]


def test_a_placement_of_another_network_or_width_is_refused(residual):
    _, _, program, placed = residual
    nothing = placed.faults(np.empty(0, np.int64), np.empty(0, np.uint8))
    other = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(3 * 14 * 14, 4)).eval()
    with pytest.raises(InputError, match=r"sizes = .* those of the program's stored tensors"):
        activation_memory(program, place_activations(trace(other, (3, 16, 16)), PAPER, placed.geometry), nothing)
    wide = place_activations(trace(networks.build("resnet8", 10, 3), (3, 16, 16)), PAPER, placed.geometry, bits=16)
    with pytest.raises(InputError, match="bits = 16"):
        activation_memory(program, wide, nothing)


@pytest.mark.parametrize("units", [[0.5], [0.5, None, 0.5, "1"], [0.5, -1.0], "1"])
def test_units_that_are_none_are_refused(residual, units):
    program = residual[2]
    with pytest.raises(InputError, match="units"):
        Program.from_json(program.to_json() | {"units": units})
