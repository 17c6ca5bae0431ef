"""Are faults inside the array the same in torch's integer convolutions and in a device's program, to the last bit?"""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfuse.quantized.integer import IntegerNetwork
from simulator import workload
from simulator.accelerator import accelerator
from simulator.activation_placement import place_partial_sums, taps_between_spills
from simulator.array.cycles import simulate
from simulator.array.schedule import Plan, Schedule
from simulator.device.array_faults import Checksums, Convolved, TimingFaults, partial_sum_faults
from simulator.device.board import pack_weights
from simulator.device.program import Conv, Flatten, Pool, Program, execute
from simulator.device.rtl import build
from simulator.device.rtl.chip import RtlChip
from simulator.mac_errors import MacErrors, errors_at
from sram import failure
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.random import Stream
from sram.random_kernels import philox
from sram.structure import Structure
from tests.neuralfuse.quantized.test_integer import KERNELS, PADDINGS, STRIDES, WAYS, Words, answers, conv

TOP = (0.0,) * 31 + (1.0,)


def product(words, activations, address, n):
    weights = words[address : address + n * activations.shape[1]].reshape(n, -1)
    return (activations.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.int32)


class Late:
    """The slow twin of TimingFaults: output after output, in plain Python, given to `execute` beside the product."""

    def __init__(self, program, words, faults, first_image=0):
        self.program, self.words, self.faults, self.first_image = program, words, faults, first_image

    def __call__(self, place, words, sums):
        step = self.program.steps[place - 1]
        weights = self.words[step.address :][: step.weights].reshape(step.filters, -1, step.kernel_h * step.kernel_w)
        each = step.filters // step.groups
        for i, image in enumerate(words):
            pixels = image.reshape(-1, step.groups, step.channels // step.groups).astype(np.int64)
            for f, w in enumerate(weights.astype(np.int64)):
                x = pixels[:, f // each]
                below = int(((x > 0).sum(0) * (w < 0).sum(1) + (x < 0).sum(0) * (w > 0).sum(1)).sum())
                square = int(((x**2).sum(0) * (w**2).sum(1)).sum())
                for p in range(sums.shape[1]):
                    sums[i, p, f] = self._late(
                        int(sums[i, p, f]), step, below / len(x), square / len(x), place, i, p * step.filters + f
                    )

    def _late(self, total, step, below, square, place, image, output):
        rates, one = self.faults.errors.by_signs, np.float32
        over = step.taps * rates[1] + below * (rates[0] - rates[1])
        under = step.taps * rates[2] + below * (rates[3] - rates[2]) if square else over
        over, under = (one(2.0**32 * -np.expm1(-min(each, 40.0))) for each in (over, under))
        share = one(0.5) + one(total) / (abs(one(total)) + np.sqrt(one(total) ** 2 + one(8 / np.pi * max(square, 1))))
        fails = under + share * (over - under)
        block, inside = divmod(output, 1024)
        lane, row = divmod(inside, 256)
        counter = block * 256 + row, place, self.first_image + image, int(Stream.TIMING)
        word = philox(*counter, self.faults.seed, self.faults.chip)[lane]
        if not one(word) < fails:
            return total
        at, shares = float(word) / float(fails), np.cumsum(self.faults.errors.lowest_bit)
        bit = next(bit for bit, upto in enumerate(shares) if at < upto)
        before, upto = shares[bit - 1] if bit else 0.0, shares[bit]
        minus = at - before < float(share * over / fails) * (upto - before)
        return (total + (-(1 << bit) if minus else 1 << bit) + 2**31) % 2**32 - 2**31


def both(program, words, x, faults, integers=False, first_image=0):
    """(answers of the fast path, of the slow one)."""
    network = IntegerNetwork(Words(words), program, integers)
    network.in_array, network.first_image = (faults,), first_image
    late = Late(program, words, faults, first_image)
    expected = execute(program, x.numpy(), lambda *asked: product(words, *asked), in_array=late)
    return answers(network, x), expected


@pytest.mark.parametrize("integers", WAYS)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    groups=st.sampled_from([1, 4, 8]),
    rate=st.sampled_from([1e-6, 1e-3, 0.03, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_late_sums_are_those_of_a_device(integers, kernel, stride, padding, groups, rate, seed):
    second = Conv(
        *(1, 24, 16, 8, *kernel, stride, padding, groups, 1.0),
        *((0.01,) * 16, tuple(float(i - 4) for i in range(16)), True),
    )
    third = conv(3, 16, 8, 1, 24 + second.weights, relu=False, unit=0.5)
    program = Program((3, 8, 7), (conv(0, 3, 8, 1, 0), second, Pool(2, "max", 2), third, Flatten(4)))
    random = np.random.default_rng(seed)
    words = random.integers(-128, 128, program.weight_bytes).astype(np.int8)
    x = torch.from_numpy(random.integers(-60, 60, (3, 3, 8, 7)).astype(np.float32))
    faults = TimingFaults(errors_at(rate, "ws"), seed=seed, chip=7)
    found, expected = both(program, words, x, faults, integers, first_image=5)
    assert np.array_equal(found, expected)
    if rate >= 0.03:
        assert not np.array_equal(found, answers(IntegerNetwork(Words(words), program, integers), x))


def one_layer(size=12, channels=32, filters=32, seed=0):
    """(program of one convolution, words, images) with 288 taps and numbers that are its sums."""
    layer = conv(0, channels, filters, 3, 0, relu=False, padding=1, scale=1.0)
    random = np.random.default_rng(seed)
    words = random.integers(-128, 128, layer.weights).astype(np.int8)
    x = torch.from_numpy(np.maximum(random.integers(-100, 100, (8, channels, size, size)), 0).astype(np.float32))
    return Program((channels, size, size), (layer,)), words, x


def wrong(program, words, x, faults, first_image=0):
    """Which outputs a TimingFaults changes, bool[images, outputs], and its sums beside the right ones."""
    sums = []

    def keep(place, read, found):
        right = found.copy()
        faults.apply(Convolved(place, program.steps[0], words, np.ascontiguousarray(read), found, first_image))
        sums[:] = [found.reshape(len(found), -1), right.reshape(len(found), -1)]

    execute(program, x.numpy(), lambda *asked: product(words, *asked), in_array=keep)
    return sums[0] != sums[1], sums


def test_an_image_has_its_errors_whatever_the_batch_and_each_chip_has_its_own():
    program, words, x = one_layer()
    faults = TimingFaults(errors_at(1e-4), 1, 2)
    together, _ = wrong(program, words, x, faults)
    alone = [wrong(program, words, x[i : i + 1], faults, first_image=i)[0][0] for i in range(len(x))]
    assert np.array_equal(together, alone)
    other, _ = wrong(program, words, x, TimingFaults(errors_at(1e-4), 1, 3))
    assert together.any()
    assert not np.array_equal(together, other)
    assert not np.array_equal(together[0], together[1])


def test_a_higher_rate_keeps_the_errors_of_a_lower_one():
    program, words, x = one_layer()
    few, many = (wrong(program, words, x, TimingFaults(errors_at(rate)))[0] for rate in (2e-5, 2e-4))
    assert few.sum() > 50
    assert not (few & ~many).any()


def test_as_many_errors_as_the_signs_of_the_operands_say():
    """Counted MAC after MAC with exact signs of products and running sums, of the fault-free sums; the model knows
    expected ones only. No false alarm: everything is fixed."""
    program, words, x = one_layer()
    step = program.steps[0]
    rates = np.array([2e-5, 8e-6, 1e-6, 0.0])
    patches = torch.nn.functional.unfold(x, 3, padding=1).numpy().astype(np.int64)  # [images, taps, pixels]
    products = patches[:, None] * words.reshape(1, step.filters, -1, 1).astype(np.int64)
    before = np.cumsum(products, 2) - products
    falling, positive = products < 0, before >= 0
    classes = np.select([positive & falling, positive, ~falling], [0, 1, 2], 3)
    expected = -np.expm1(-rates[classes].sum(2)).sum()
    found, _ = wrong(program, words, x, TimingFaults(MacErrors(1e-5, tuple(rates), TOP)))
    assert expected > 50
    assert found.sum() == pytest.approx(expected, rel=0.1, abs=4 * math.sqrt(expected))


def test_an_error_is_of_the_lowest_bit_that_was_drawn_and_wraps():
    program, words, x = one_layer()
    many = errors_at(0.1)  # bits as at this rate, but so few that not every output fails
    few = MacErrors(1e-4, tuple(rate / 1000 for rate in many.by_signs), many.lowest_bit)
    _, (found, right) = wrong(program, words, x, TimingFaults(few))
    error = (found.astype(np.int64) - right) % 2**32
    sizes, counts = np.unique(np.minimum(error[error > 0], 2**32 - error[error > 0]), return_counts=True)
    assert set(sizes.tolist()) <= {2**bit for bit in range(25, 32)}
    shares = dict(zip(sizes.tolist(), counts / counts.sum(), strict=True))
    for bit in range(25, 32):  # 4 standard deviations at most
        assert shares[2**bit] == pytest.approx(many.lowest_bit[bit], abs=4 * math.sqrt(0.25 / counts.sum()))
    small = error[(error > 0) & (error != 2**31)]
    assert (small > 2**31).mean() > 0.6  # mostly too low: the running sum was at 0 or above


def test_no_errors_change_nothing_and_a_chip_has_a_number():
    program, words, x = one_layer()
    assert not wrong(program, words, x, TimingFaults(errors_at(0.0)))[0].any()
    with pytest.raises(InputError, match="chip"):
        TimingFaults(errors_at(0.1), chip=-1)


class Folded:
    """The slow twin of PartialSumFaults: a product that adds up fold after fold, each partial sum through its masks."""

    def __init__(self, program, words, placed, taps, faults):
        self.words, self.at = words, {}
        first, tensor = 0, 0
        convolutions = [(place, step) for place, step in enumerate(program.steps, 1) if isinstance(step, Conv)]
        for (place, step), fold in zip(convolutions, taps, strict=True):
            filters, high, wide = program.shapes[place]
            masks = np.zeros((3, filters, high * wide), np.uint32)
            if fold < step.taps:
                assert placed.tensors[tensor].count == masks[0].size
                for element, bit, kind in zip(*(part.tolist() for part in faults), strict=True):
                    if first <= element < first + masks[0].size:
                        masks[kind].flat[element - first] |= np.uint32(1 << bit)
                first, tensor = first + masks[0].size, tensor + 1
            each = filters // step.groups
            for group in range(step.groups):
                inside = slice(group * each, (group + 1) * each)
                self.at[step.address + group * each * step.taps] = fold, masks[:, inside].view(np.int32)

    def __call__(self, activations, address, n):
        fold, (zero, one, flip) = self.at[address]
        pixels = zero.shape[1]
        weights = self.words[address : address + n * activations.shape[1]].reshape(n, -1).astype(np.int32)
        total = np.zeros((len(activations) // pixels, pixels, n), np.int32)
        for start in range(0, activations.shape[1], fold):
            if start:
                total = ((total & ~zero.T) | one.T) ^ flip.T
            part = activations[:, start : start + fold].astype(np.int32) @ weights[:, start : start + fold].T
            total = total + part.reshape(total.shape)
        return total.reshape(len(activations), n)


def machine(dataflow, rows=8):
    return replace(accelerator("paper"), array_rows=rows, array_cols=4, dataflow=dataflow, schedule="fixed")


def layers_of(program):
    """The workload of a chain of convolutions."""
    steps = [(place, step) for place, step in enumerate(program.steps, 1) if isinstance(step, Conv)]
    made = []
    for place, step in steps:
        _, high, wide = program.shapes[step.source]
        sizes = ((step.kernel_h, step.kernel_w), step.stride, step.padding)
        made.append(workload.conv(f"c{place}", high, wide, step.channels, step.filters, *sizes, groups=step.groups))
    return workload.Workload("chain", tuple(made))


@pytest.mark.parametrize("integers", WAYS)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    kernel=KERNELS,
    stride=STRIDES,
    padding=PADDINGS,
    groups=st.sampled_from([1, 2, 8]),
    dataflow=st.sampled_from(["ws", "is"]),
    rows=st.sampled_from([4, 7, 16]),
    share=st.sampled_from([0.0, 0.001, 0.02, 0.3]),
    late=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_partial_sums_are_read_back_as_a_product_fold_by_fold_does(
    integers, kernel, stride, padding, groups, dataflow, rows, share, late, seed
):
    second = Conv(
        *(1, 72, 16, 8, *kernel, stride, padding, groups, 1.0),
        *((0.01,) * 16, tuple(float(i - 4) for i in range(16)), True),
    )
    third = conv(2, 16, 8, 1, 72 + second.weights, relu=False, unit=0.5)
    program = Program((9, 6, 7), (conv(0, 9, 8, 1, 0), second, third))
    random = np.random.default_rng(seed)
    words = random.integers(-128, 128, program.weight_bytes).astype(np.int8)
    x = torch.from_numpy(random.integers(-60, 60, (3, 9, 6, 7)).astype(np.float32))
    net, array = layers_of(program), machine(dataflow, rows)
    taps = taps_between_spills(net, array)
    placed = place_partial_sums(net, array, Geometry(banks=1, rows=64))
    cells = np.flatnonzero(random.random(placed.geometry.cells) < share)
    faults = placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
    spills, timing = partial_sum_faults(program, placed, taps, faults), TimingFaults(errors_at(0.03), seed)
    network = IntegerNetwork(Words(words), program, integers)
    clean = answers(network, x)
    network.in_array, network.first_image = ((spills, timing) if late else (spills,)), 0
    twin = Late(program, words, timing) if late else lambda place, read, sums: None
    expected = execute(program, x.numpy(), Folded(program, words, placed, taps, faults), in_array=twin)
    assert np.array_equal(answers(network, x), expected)
    if share == 0.3 and placed.weights:
        assert not np.array_equal(expected, clean)


class InSystemVerilog:
    """The product of an array whose partial sums wait in words with the masks of Folded."""

    def __init__(self, chip, folded):
        self.chip, self.at = chip, folded.at

    def __call__(self, activations, address, n):
        masks = self.at[address][1].transpose(0, 2, 1)  # [3, pixels, filters]
        images = len(activations) // masks.shape[1]
        of_words = np.tile(masks[:, None], (1, images, 1, 1)).reshape(3, -1).view(np.uint32)
        self.chip.fault_sums(np.arange(of_words.shape[1]), of_words)
        return self.chip.multiply(activations, address, n)[0]


@pytest.mark.verilator
@pytest.mark.skipif(not build.available(), reason="needs Verilator (apt-get install verilator g++ make)")
@pytest.mark.parametrize("overlap", [False, True], ids=["plain", "overlap"])
def test_partial_sums_are_read_back_as_the_array_in_systemverilog_does(overlap):
    """Convolutions of 1 to 18 folds, the last one whole or not, of filters fewer and more than there are columns."""
    array = replace(machine("ws", rows=4), array_cols=3, double_buffered_registers=overlap)
    memory = FaultMap(
        Geometry(2, rows=64, columns=64, word_bits=32), failure.curve("ibm14"), Structure(), 0, 0, 0.7,
        np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.uint8),
    )  # fmt: skip
    random, changed = np.random.default_rng(5), 0
    with RtlChip(memory, array) as chip:
        for channels, filters, groups, kernel in itertools.product((4, 8), (2, 6, 8), (1, 2), ((1, 1), (3, 3), (2, 1))):
            window = kernel, tuple(random.integers(1, 3, 2).tolist()), tuple(random.integers(0, 2, 2).tolist())
            size = filters, channels, *window[0], *window[1:], groups
            step = Conv(0, 5, *size, 1.0, (1.0,) * filters, (0.0,) * filters, relu=False)
            program = Program((channels, 5, 4), (step,))
            words = random.integers(-128, 128, 5 + step.weights).astype(np.int8)
            x = random.integers(-127, 128, (2, channels, 5, 4)).astype(np.float32)
            net = layers_of(program)
            placed, taps = place_partial_sums(net, array, Geometry(banks=1, rows=64)), taps_between_spills(net, array)
            cells = np.flatnonzero(random.random(placed.geometry.cells) < random.choice([0.001, 0.02, 0.3]))
            faults = placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
            model = partial_sum_faults(program, placed, taps, faults)

            def inside(place, read, sums, model=model, step=step, words=words):
                model.apply(Convolved(place, step, words[5:], read, sums))

            chip.write(0, pack_weights(words, 32))
            exact = functools.partial(product, words)
            expected = execute(program, x, exact, in_array=inside)
            rtl = InSystemVerilog(chip, Folded(program, words, placed, taps, faults))
            assert np.array_equal(execute(program, x, rtl), expected), size
            changed += not np.array_equal(expected, execute(program, x, exact))
    assert changed > 15


def test_sums_that_stay_in_the_array_lie_in_no_cell():
    """An output-stationary array spills none, nor does a weight-stationary one with a row for every tap."""
    program = Program((8, 4, 4), (conv(0, 8, 8, 1, 0),))
    net = layers_of(program)
    for array, spilled in ((machine("os"), 0), (machine("ws", 8), 0), (machine("ws", 7), 128)):
        placed = place_partial_sums(net, array, Geometry(banks=1))
        assert placed.weights == spilled
        assert bool(simulate(net, array).layers["psum_sram_writes"].sum()) == bool(spilled)
        none = partial_sum_faults(
            program, placed, taps_between_spills(net, array), placed.faults(*np.zeros((2, 0), int))
        )
        assert none.faulty == {}


def test_an_output_stationary_array_with_tiles_of_taps_spills_after_each():
    net, plan = layers_of(Program((8, 4, 4), (conv(0, 8, 8, 3, 0),))), Plan({"c1": Schedule("os", 1, 4, 32, 8)})
    assert taps_between_spills(net, machine("os"), plan) == [32]
    assert place_partial_sums(net, machine("os"), Geometry(banks=1), plan=plan).weights == 32


def test_partial_sums_of_another_network_are_refused():
    program = Program((8, 4, 4), (conv(0, 8, 8, 1, 0),))
    net, array = layers_of(program), machine("ws", 4)
    taps = taps_between_spills(net, array)
    none = tuple(np.zeros((2, 0), int)) * 2
    placed = place_partial_sums(net, array, Geometry(banks=1))
    with pytest.raises(InputError, match="taps"):
        partial_sum_faults(program, placed, [*taps, 4], none[:3])
    with pytest.raises(InputError, match="sizes"):
        partial_sum_faults(program, placed, [8], none[:3])
    with pytest.raises(InputError, match="bits"):
        partial_sum_faults(program, place_partial_sums(net, array, Geometry(banks=1), bits=24), taps, none[:3])


class Put:
    """Errors put in by hand: {(image, pixel, filter): what is added}."""

    def __init__(self, errors):
        self.errors = errors

    def apply(self, made):
        for at, error in self.errors.items():
            made.sums[at] = np.int64(made.sums[at] + np.int64(error)).astype(np.int32)


def test_checksums_mend_the_tiles_that_do_not_add_up_and_no_others():
    """Two groups of five filters in tiles of three and two, six pixels in tiles of four and two."""
    step = Conv(0, 0, 10, 2, 1, 1, 1, 0, 2, 1.0, (1.0,) * 10, (0.0,) * 10, False)
    right = np.random.default_rng(3).integers(-1000, 1000, (2, 6, 10)).astype(np.int32)
    mended = {(0, 0, 0): 2**26, (0, 5, 4): -(2**31), (1, 1, 7): 2**25, (1, 2, 7): -(2**25)}
    unseen = {(1, 4, 0): -(2**31), (1, 4, 2): 2**31}  # of one pixel, and cancel
    checks = Checksums((), (Put(mended | unseen),), {4: (4, 3)})
    checks.apply(Convolved(4, step, None, None, sums := right.copy()))
    expected = right.copy()
    Put(unseen).apply(Convolved(4, step, None, None, expected))
    np.testing.assert_array_equal(sums, expected)
    assert checks.counted == {4: (2 * 2 * 2 * 2, 3)}
    stays = Put({(0, 1, 1): 8})  # in a cell: found with the first error of its tile, and wrong again
    checks = Checksums((stays,), (Put({(0, 0, 0): 2**26}),), {4: (4, 3)})
    checks.apply(Convolved(4, step, None, None, sums := right.copy()))
    checks.apply(Convolved(4, step, None, None, sums := right.copy()))
    right[0, 1, 1] += 8
    np.testing.assert_array_equal(sums, right)
    assert checks.counted == {4: (2 * 16, 2)}
