"""Do gradients through an 8-bit network with faults flow as they do through the same sums in real numbers, straight
through what rounds and what is faulty, while its answers stay a chip's?"""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuralfuse import networks
from neuralfuse.quantized.integer import DieFaults, IntegerNetwork
from neuralfuse.training.eopm import eopm_backward
from simulator.accelerator import accelerator
from simulator.activation_placement import place_partial_sums, taps_between_spills
from simulator.device.activations import activation_memory
from simulator.device.array_faults import partial_sum_faults
from simulator.device.program import Add, Conv, Flatten, Pool
from simulator.readers.read import trace
from sram.geometry import Geometry
from tests.neuralfuse.quantized.test_activations import on_a_device, stored
from tests.neuralfuse.quantized.test_integer import WAYS, answers

GAP9 = accelerator("gap9-like")
LEVEL = 127


def moved(x, value):
    """The value, with the slope of x."""
    return x + (value - x).detach()


def in_real_numbers(program, words, x, memory, sums_of):
    """Autograd through the program in float64: each tensor and sum is moved to what the chip has there."""
    lowest = -LEVEL - 1 if program.units else -LEVEL

    def rounded(numbers, unit):
        inside = 1.0 if program.units else (numbers.abs() <= (LEVEL + 0.5) * unit).to(numbers)
        return moved(numbers * inside / unit, torch.clamp(torch.round(numbers / unit), lowest, LEVEL))

    def kept(tensor, numbers):
        unit = program.units[tensor] if program.units else None
        if unit is None:
            return numbers
        unit = float(np.float32(unit))
        inside = (numbers.abs() <= (LEVEL + 0.5) * unit).to(numbers)
        written = torch.clamp(torch.round(numbers / unit), -LEVEL, LEVEL).to(torch.int8)
        read = written.detach().reshape(len(written), -1).numpy().copy()
        memory.read_back(tensor, read)
        return moved(numbers * inside, torch.from_numpy(read).reshape(numbers.shape) * unit)

    tensors = [kept(0, x)]
    for place, step in enumerate(program.steps, start=1):
        source = tensors[step.source]
        if isinstance(step, Conv):
            weight = torch.from_numpy(words[step.address :][: step.weights].astype(np.float64))
            weight = weight.reshape(step.filters, -1, step.kernel_h, step.kernel_w)
            sums = F.conv2d(rounded(source, step.input_scale), weight, None, step.stride, step.padding, 1, step.groups)
            sums = moved(sums, sums_of(place, sums))
            scale, offset = (
                torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (step.scale, step.offset)
            )
            made = sums * scale + offset
            made = made.relu() if step.relu else made
        elif isinstance(step, Add):
            made = source + tensors[step.other]
            made = made.relu() if step.relu else made
        elif isinstance(step, Pool):
            size = step.size or source.shape[2:]
            made = (F.avg_pool2d if step.kind == "mean" else F.max_pool2d)(source, size)
        else:
            assert isinstance(step, Flatten)
            made = source.flatten(1)[:, :, None, None]
        tensors.append(kept(place, made))
    return tensors[-1].flatten(1)


def slopes(network, x, at):
    x = x.clone().requires_grad_()
    logits = network(x)
    (logits * at).sum().backward()
    return logits.detach(), x.grad


@pytest.fixture(scope="module")
def faulty():
    """resnet8 with weights, activations and partial sums in weak cells of a weight-stationary array."""
    network, x, program, placed = stored("resnet8")
    random = np.random.default_rng(5)
    cells = np.flatnonzero(random.random(placed.geometry.cells) < 0.004)
    memory = activation_memory(
        program, placed, placed.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
    )
    workload = trace(networks.build("resnet8", 10, 3), (3, 16, 16))
    sums = place_partial_sums(workload, GAP9, Geometry(banks=16), bits=32)
    cells = np.flatnonzero(random.random(sums.geometry.cells) < 0.002)
    found = sums.faults(cells, random.integers(0, 3, len(cells)).astype(np.uint8))
    partial = partial_sum_faults(program, sums, taps_between_spills(workload, GAP9), found)
    weights = random.choice(network.words.size, 300, replace=False).astype(np.int64)
    bits = weights, random.integers(0, 7, 300).astype(np.uint8), random.integers(0, 3, 300).astype(np.uint8)
    return network, x, program, memory, partial, bits


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("integers", WAYS)
def test_slopes_are_those_of_the_sums_in_real_numbers_at_the_values_that_the_chip_has(faulty, integers, kept):
    network, x, program, memory, partial, bits = faulty
    program = program if kept else replace(program, units=())
    whole = IntegerNetwork(network, program, integers)
    whole.set_faults(*DieFaults(*bits, memory, (partial,)))
    wanted = torch.from_numpy(np.random.default_rng(0).normal(size=(len(x), 10)))
    got, slope = slopes(whole, 1.2 * x, wanted)  # some of the image is beyond the largest word

    on_chip = {}

    class Kept:
        def apply(self, made):
            on_chip[made.place] = made.sums.copy()

    whole.in_array = (partial, Kept())
    assert torch.equal(whole(1.2 * x), got)

    def sums_of(place, sums):
        n, filters, high, wide = sums.shape
        return torch.from_numpy(on_chip[place].reshape(n, high, wide, filters).transpose(0, 3, 1, 2).astype(np.float64))

    reference = functools.partial(in_real_numbers, program, network.words, memory=memory, sums_of=sums_of)
    values, expected = slopes(reference, (1.2 * x).double(), wanted)
    torch.testing.assert_close(got.double(), values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-3, atol=1e-6 * float(expected.abs().max()) + 1e-9)
    assert float((slope == 0).double().mean()) > 0.01
    network.restore()


def test_answers_with_gradients_are_a_devices_to_the_last_bit(faulty):
    network, x, program, memory, _, bits = faulty
    whole = IntegerNetwork(network, program)
    whole.set_faults(*bits, memory)
    with_gradients = whole(x.clone().requires_grad_())
    assert with_gradients.requires_grad
    assert np.array_equal(with_gradients.detach().numpy(), on_a_device(program, network.words, x, memory))
    assert np.array_equal(with_gradients.detach().numpy(), answers(whole, x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whole(x), with_gradients)
    network.restore()


def test_without_faults_slopes_point_where_the_float_networks_do(faulty):
    network, x, program, *_ = faulty
    network.restore()
    wanted = torch.ones(len(x), 10).double()
    wanted[:, 5:] = -1
    (_, one), (_, other) = slopes(IntegerNetwork(network, program), x, wanted), slopes(network, x, wanted)
    assert float(F.cosine_similarity(one.flatten(), other.flatten(), 0)) > 0.95


def test_eopm_sees_activations_and_leaves_no_faults(faulty):
    network, x, program, memory, partial, bits = faulty
    whole, y = IntegerNetwork(network, program), torch.arange(len(x))
    transform = torch.nn.Conv2d(3, 3, 1)
    maps = [DieFaults(*bits), DieFaults(*bits, memory, (partial,))]
    hit = [eopm_backward(whole, transform, x, y, [one], 1)[1] for one in maps]
    assert hit[0] != hit[1]
    assert transform.weight.grad is not None
    assert (network.words == network.clean_words).all()
    whole.set_faults(*maps[1])
    with torch.no_grad():
        expected = F.cross_entropy(whole(transform(x)), y).item()
    whole.restore()
    assert hit[1] == expected
