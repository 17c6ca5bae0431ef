"""What every backend of the Device protocol must do, asked of each of them in the same words."""

import dataclasses
import functools
import threading

import numpy as np
import pytest

from simulator.accelerator import accelerator
from simulator.device.board import Board, pack_weights, unpack_weights
from simulator.device.program import Add, Conv, Flatten, Pool, Program, execute
from simulator.device.protocol import VoltageOutOfRange, WordOutOfRange
from simulator.device.remote import RemoteDevice
from simulator.device.rtl import build
from simulator.device.rtl.chip import RtlChip
from simulator.device.serve import Server
from simulator.device.simulated import SimulatedChip, SimulatedMemory
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry

GEOMETRY = Geometry(2, rows=64, columns=64, word_bits=32)
MACHINE = dataclasses.replace(
    accelerator("paper"), array_rows=4, array_cols=3, dataflow="ws", double_buffered_registers=True, skip_idle_rows=True
)
verilator = pytest.mark.skipif(not build.available(), reason="needs Verilator (apt-get install verilator g++ make)")


def hidden_map(chip=5):
    return faultmap.generate(chip, GEOMETRY, "ibm14", "column", voltage_floor=0.7, seed=1)


def buffer_map():
    """Of the activation memory: smaller than a tensor of `network`, which so passes it in parts."""
    return faultmap.generate(5, Geometry(1, rows=16, columns=32, word_bits=16), "ibm14", voltage_floor=0.6, seed=2)


def chip(kind):
    return kind(hidden_map(), MACHINE, others=[SimulatedMemory(buffer_map(), "activations")])


@pytest.fixture(
    params=[
        "simulated",
        "remote",
        pytest.param("rtl", marks=[pytest.mark.verilator, verilator]),
    ]
)
def bench(request):
    """(device, the board behind it)"""
    if request.param == "remote":
        board = chip(SimulatedChip)
        server = Server(board)
        thread = threading.Thread(target=server.run)
        thread.start()
        device = RemoteDevice(f"127.0.0.1:{server.address[1]}", timeout_s=20)
        yield device, board
        device.close()
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
    else:
        board = chip(SimulatedChip if request.param == "simulated" else RtlChip)
        yield board, board
        board.close()


def network(rng):
    """Two convolutions (the second grouped), a sum, pooling and a linear layer, with their weights."""

    def conv(source, address, f, c, kernel, stride, padding, groups, relu):
        return Conv(
            source, address, f, c, *kernel, stride, padding, groups, 0.05,
            tuple(rng.uniform(0.001, 0.01, f)), tuple(rng.normal(size=f)), relu,
        )  # fmt: skip

    steps = (
        conv(0, 3, 4, 2, (3, 2), (1, 2), (1, 2), 1, True),
        conv(1, 3 + 48, 4, 4, (1, 3), (1, 1), (0, 1), 2, False),
        Add(2, 1, True),
        Pool(3, "max", 2),
        Flatten(4),
        conv(5, 3 + 72, 5, 4 * 6, (1, 1), (1, 1), (0, 0), 1, False),
    )
    program = Program((2, 6, 7), steps)
    return program, rng.integers(-127, 128, program.weight_bytes).astype(np.int8)


def test_a_sum_of_products_fits_into_32_bits():
    """131071 products of two int8 are at most 2^31 - 2^14; one more could be 2^31."""

    def sums(taps):
        one = Conv(0, 0, 1, taps, 1, 1, (1, 1), (0, 0), 1, 1.0, (1.0,), (0.0,), False)
        return Program((taps, 1, 1), (one, Flatten(1)))

    assert sums(131071).weight_bytes == 131071
    with pytest.raises(InputError, match="131072"):
        sums(131072)


def expected(program, weights, batch):
    """The same network in plain loops over taps: the slow twin of `program.execute`."""
    tensors = [batch]
    for step in program.steps:
        x = tensors[step.source]
        if isinstance(step, Conv):
            q = np.clip(np.rint(x / np.float32(step.input_scale)), -127, 127).astype(np.int64)
            (p, r), (s, t) = step.padding, step.stride
            b, c, h, w = q.shape
            padded = np.zeros((b, c, h + 2 * p, w + 2 * r), np.int64)
            padded[:, :, p : p + h, r : r + w] = q
            per, each = step.channels // step.groups, step.filters // step.groups
            kernel = weights[step.address :][: step.weights].reshape(step.filters, per, step.kernel_h, step.kernel_w)
            oh, ow = (h + 2 * p - step.kernel_h) // s + 1, (w + 2 * r - step.kernel_w) // t + 1
            y = np.zeros((b, step.filters, oh, ow))
            for f in range(step.filters):
                for ch in range(per):
                    for i in range(step.kernel_h):
                        for j in range(step.kernel_w):
                            source = padded[:, f // each * per + ch, i : i + s * oh : s, j : j + t * ow : t]
                            y[:, f] += int(kernel[f, ch, i, j]) * source
                y[:, f] = y[:, f] * step.scale[f] + step.offset[f]
            y = y.astype(np.float32)
        elif isinstance(step, Add):
            y = x + tensors[step.other]
        elif isinstance(step, Pool):
            b, c, h, w = x.shape
            y = np.empty((b, c, h // 2, w // 2), np.float32)
            for i in range(h // 2):
                for j in range(w // 2):
                    y[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(2, 3))
        else:
            y = x.reshape(len(x), -1, 1, 1)
        tensors.append(np.maximum(y, 0) if getattr(step, "relu", False) else y)
    return tensors[-1].reshape(len(batch), -1)


def failing(device, voltage):
    """(words, bits) bool[words, word_bits] that read wrong at `voltage` under all zeros or all ones."""
    ones = np.full(device.info.words, (1 << device.info.word_bits) - 1, np.uint64)
    device.set_voltage(voltage)
    wrong = np.zeros(len(ones), np.uint64)
    for pattern in (np.zeros_like(ones), ones):
        device.write(0, pattern)
        wrong |= device.read(0, len(ones)) ^ pattern
    return (wrong[:, None] >> np.arange(device.info.word_bits, dtype=np.uint64) & np.uint64(1)).astype(bool)


def test_words_round_trip_at_nominal_voltage(bench):
    device, _ = bench
    words = np.random.default_rng(0).integers(0, 1 << 32, device.info.words, dtype=np.uint64)
    words[:3] = 0, (1 << 32) - 1, 1 << 31
    device.write(0, words)
    assert (device.read(0, len(words)) == words).all()
    device.write(17, words[100:103])  # a part in the middle changes nothing beside it
    assert (device.read(16, 5) == [words[16], *words[100:103], words[20]]).all()
    assert device.read(device.info.words, 0).shape == (0,)


def test_information_is_the_maps(bench):
    device, _ = bench
    info = device.info
    assert (info.banks, info.rows, info.columns, info.word_bits) == (2, 64, 64, 32)
    assert info.voltage_unit == "Vmin"
    assert info.voltage_lowest == pytest.approx(0.7)


def test_failures_are_the_hidden_maps_and_nested_in_voltage(bench):
    device, _ = bench
    hidden = hidden_map()
    before = np.zeros((device.info.words, 32), bool)
    for voltage in (device.info.voltage_nominal, 0.9, 0.8, 0.7):
        now = failing(device, voltage)
        word, bit = GEOMETRY.word_bit(hidden.at(voltage).cell)
        truth = np.zeros_like(now)
        truth[word, bit] = True
        assert (now == truth).all()
        assert (now | ~before).all()
        before = now
    assert before.sum() > 1000


def test_voltages_are_steps_and_nothing_else(bench):
    device, board = bench
    assert device.set_voltage(0.8449) == 0.84
    assert board.voltage == 0.84
    for voltage in (0.6899, device.info.voltage_nominal + 0.01, float("nan"), float("inf"), -1.0):
        with pytest.raises(VoltageOutOfRange, match="Vmin"):
            device.set_voltage(voltage)
    assert board.voltage == 0.84  # a refused voltage moves nothing


@pytest.mark.parametrize("voltage", [None, 0.8])
def test_a_network_runs_on_what_the_memory_reads(bench, voltage):
    device, _ = bench
    rng = np.random.default_rng(7)
    program, weights = network(rng)
    batch = rng.normal(size=(3, 2, 6, 7)).astype(np.float32)
    device.write(0, pack_weights(weights, 32))
    device.load(program)
    device.set_voltage(voltage or device.info.voltage_nominal)
    read = unpack_weights(device.read(0, -(-len(weights) // 4)), 32)[: len(weights)]
    assert (read == weights).all() == (voltage is None)
    run = device.run(batch)
    assert run.outputs.dtype == np.float32
    assert (run.outputs == expected(program, read, batch)).all()
    assert (device.run(batch).outputs == run.outputs).all()  # the same map gives the same outputs


def test_counters_are_those_of_the_closed_form(bench):
    device, _ = bench
    rng = np.random.default_rng(3)
    program, weights = network(rng)
    device.write(0, pack_weights(weights, 32))
    device.load(program)
    run = device.run(rng.normal(size=(2, 2, 6, 7)).astype(np.float32))
    with SimulatedChip(hidden_map(), MACHINE) as reference:
        reference.load(program)
        assert run.counters == reference.run(np.zeros((2, 2, 6, 7), np.float32)).counters
    assert run.counters.weight_reads == 48 + 24 + 120  # weight stationary: each weight once
    assert run.counters.energy_pj is None


def test_wrong_words_and_addresses_are_refused(bench):
    device, _ = bench
    last = device.info.words
    for address, words in [
        (-1, [0]),
        (last, [0]),
        (last - 1, [0, 0]),
        (0, [1 << 32]),
        (0, [-1]),
        (0, [0.5]),
        (0, [[1]]),
    ]:
        with pytest.raises(WordOutOfRange):
            device.write(address, words)
    for address, count in [(-1, 1), (last, 1), (0, last + 1), (5, -1)]:
        with pytest.raises(WordOutOfRange):
            device.read(address, count)
    assert (device.read(0, last) == 0).all()


def test_each_memory_has_its_own_words_and_supply(bench):
    device, board = bench
    buffer, weak = device.memory("activations"), buffer_map()
    assert list(device.memories) == ["weights", "activations"]
    assert device.memory("weights") is device
    assert buffer.info == board.memories["activations"].info
    assert buffer.info.geometry == weak.geometry
    assert buffer.info.voltage_lowest == pytest.approx(0.6)
    assert buffer.info.title == "simulated chip 5, activations"  # beside the RTL, too
    device.write(0, np.arange(device.info.words, dtype=np.uint64))
    buffer.set_voltage(0.62)
    assert (board.voltage, board.memories["activations"].voltage) == (board.info.voltage_nominal, 0.62)
    assert (device.read(0, device.info.words) == np.arange(device.info.words)).all()
    ones = np.full(buffer.info.words, (1 << 16) - 1, np.uint64)
    wrong = 0
    for pattern in (np.zeros_like(ones), ones):
        buffer.write(0, pattern)
        wrong = wrong | (buffer.read(0, len(ones)) ^ pattern)
    fails = (wrong[:, None] >> np.arange(16, dtype=np.uint64) & np.uint64(1)).astype(bool)
    word, bit = np.nonzero(fails)
    assert sorted(weak.geometry.cell(word, bit).tolist()) == sorted(weak.at(0.62).cell.tolist())
    device.set_voltage(0.75)
    with pytest.raises(VoltageOutOfRange, match=r"0\.6 to"):
        buffer.set_voltage(0.5)
    with pytest.raises(WordOutOfRange):
        buffer.write(0, [1 << 16])
    with pytest.raises(InputError, match=r"memory.*ifmap.*weights, activations"):
        device.memory("ifmap")
    device.to_nominal()
    assert [each.voltage for each in board.memories.values()] == [
        each.info.voltage_nominal for each in board.memories.values()
    ]


def test_a_program_with_units_stores_its_tensors_in_the_activation_memory(bench):
    """Against words that are read through the map's masks, in parts of the memory's 64 bytes."""
    device, _ = bench
    rng = np.random.default_rng(7)
    program, weights = network(rng)
    units = tuple(0.05 if tensor in program.stored else None for tensor in range(len(program.steps) + 1))
    program, weak = dataclasses.replace(program, units=units), buffer_map()
    batch = rng.normal(size=(3, 2, 6, 7)).astype(np.float32)
    device.write(0, pack_weights(weights, 32))
    device.load(program)
    outputs = {}
    for voltage in (device.memory("activations").info.voltage_nominal, 0.65):
        device.memory("activations").set_voltage(voltage)
        outputs[voltage] = device.run(batch).outputs
        word, bit = weak.geometry.word_bit(weak.at(voltage).cell)
        masks = np.zeros((3, weak.geometry.words), np.uint16)
        np.bitwise_or.at(masks, (weak.at(voltage).kind, word), np.left_shift(1, bit).astype(np.uint16))
        zero, one, flip = masks.view(np.int8)
        read = functools.partial(read_back, zero=zero, one=one, flip=flip)
        exact = functools.partial(product, weights)
        assert (outputs[voltage] == execute(program, batch, exact, read)).all()
    plain, low = outputs.values()
    assert (plain != low).any()


def read_back(tensor, words, zero, one, flip):
    where = np.arange(words.shape[1]) % len(zero)
    words[:] = ((words & ~zero[where]) | one[where]) ^ flip[where]


def product(weights, activations, address, n):
    rows = weights[address : address + n * activations.shape[1]].reshape(n, -1)
    return activations.astype(np.int32) @ rows.T.astype(np.int32)


def test_memories_have_names_of_their_own():
    for names in (["weights"], ["activations", "activations"]):
        with pytest.raises(InputError, match="memories"):
            SimulatedChip(hidden_map(), MACHINE, others=[SimulatedMemory(buffer_map(), name) for name in names])
    for name in ("", "Activations", "a b", "x" * 21, 3):
        with pytest.raises(InputError, match="small letters"):
            SimulatedMemory(buffer_map(), name)


def test_wrong_networks_and_batches_are_refused(bench):
    device, _ = bench
    program, _ = network(np.random.default_rng(0))
    with pytest.raises(InputError, match="network"):
        device.run(np.zeros((1, 2, 6, 7), np.float32))
    device.load(program)
    for batch in (np.zeros((2, 6, 7)), np.zeros((1, 1, 6, 7)), np.zeros((0, 2, 6, 7)), np.full((1, 2, 6, 7), np.nan)):
        with pytest.raises(InputError, match="batch"):
            device.run(batch)
    far = dataclasses.replace(program.steps[0], address=device.info.capacity_bytes - 10)
    with pytest.raises(InputError, match="weight memory"):
        device.load(Program(program.input_shape, (far,)))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_voltage_comes_back_after_an_exception(bench, error):
    device, board = bench

    def session():
        with device:
            device.set_voltage(0.75)
            device.memory("activations").set_voltage(0.7)
            assert [each.voltage for each in board.memories.values()] == [0.75, 0.7]
            raise error

    with pytest.raises(error):
        session()
    assert all(each.voltage == each.info.voltage_nominal for each in board.memories.values())
    device.close()  # once more is fine


def test_reset_forgets_words_voltage_and_network(bench):
    device, board = bench
    buffer = device.memory("activations")
    buffer.write(0, np.ones(buffer.info.words, np.uint64))
    buffer.set_voltage(0.7)
    program, _ = network(np.random.default_rng(0))
    device.write(0, np.ones(device.info.words, np.uint64))
    device.load(program)
    device.set_voltage(0.8)
    device.reset()
    assert board.voltage == device.info.voltage_nominal
    assert board.memories["activations"].voltage == buffer.info.voltage_nominal
    assert (buffer.read(0, buffer.info.words) == 0).all()
    assert (device.read(0, device.info.words) == 0).all()
    with pytest.raises(InputError, match="network"):
        device.run(np.zeros((1, 2, 6, 7), np.float32))


def test_intermittent_cells_come_and_go_on_every_board(bench):
    device, board = bench
    board.silicon.__init__(dataclasses.replace(hidden_map(), noise=np.full(len(hidden_map()), 0.006, np.float32)))
    device.set_voltage(0.8)
    device.write(0, np.zeros(device.info.words, np.uint64))
    reads = np.array([device.read(0, device.info.words) for _ in range(20)])
    bits = (reads[:, :, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)
    share = bits.mean(axis=0)
    assert (share == 1).any()
    assert ((share > 0) & (share < 1)).sum() > 10
    assert isinstance(board, Board)


def test_a_run_without_end_is_refused_before_it_starts():
    wide = {"kernel_h": 1, "kernel_w": 1, "stride": (1, 1), "padding": (0, 0), "groups": 1}
    wide |= {"input_scale": 1.0, "relu": False}
    steps = [Conv(0, 0, n, 1 << 10, scale=(1.0,) * n, offset=(0.0,) * n, **wide) for n in (1 << 14, 1)]
    with pytest.raises(InputError, match="multiplications"):
        execute(Program((1 << 10, 64, 64), tuple(steps)), np.zeros((1, 1 << 10, 64, 64), np.float32), None)
