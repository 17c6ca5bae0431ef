"""Does a network on a device compute what the network does, and can a transform be tuned to the device?"""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse import data, networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.on_device import DeviceNetwork, Drifted, gap, protected_accuracy, set_model
from neuralfuse.quantized.program import compile_network, device_faults
from neuralfuse.training.network import train_network
from neuralfuse.training.on_device import tune
from neuralfuse.training.queries import WAYS, evolution
from neuralfuse.training.settings import CalibrationSettings, NetworkSettings
from neuralfuse.transforms.generators import NeuralFuse
from neuralfuse.transforms.pixelwise import Affine
from simulator.device.board import unpack_weights
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry

VOLTAGE = 0.78


def chip_map(capacity, number=0, **options):
    return faultmap.generate(number, Geometry.of_capacity(capacity), "ibm14", voltage_floor=0.76, **options)


def vgg_like():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (3, 1), stride=2, padding=1, groups=2), nn.Identity(), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 3, bias=False),
    )  # fmt: skip


NETWORKS = {
    "resnet8": lambda: networks.build("resnet8", in_channels=2, num_classes=5, width=4),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 4)),
    "vgg": vgg_like,
}


def randomised(make):
    """A network whose normalisation has statistics of its own."""
    torch.manual_seed(1)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return network


def rounded(network, calibration):
    """The slow twin: the torch network itself, with the inputs of its layers rounded by hooks."""
    unit = {}
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_pre_hook(lambda m, x: unit.update({m: x[0].abs().max() / 127})) for m in layers]
    with torch.no_grad():
        network(calibration)
    for hook in hooks:
        hook.remove()
    for module in layers:
        module.register_forward_pre_hook(lambda m, x: (x[0] / unit[m]).round().clamp(-127, 127) * unit[m])
    return network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("voltage", [None, VOLTAGE])
def test_the_device_computes_the_network_on_the_words_it_reads(name, voltage):
    faulty = FaultyNetwork(randomised(NETWORKS[name]))
    images = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    fault_map = chip_map(len(faulty.words) + 8)
    with SimulatedChip(fault_map) as chip:
        on_device = DeviceNetwork(chip, faulty, images, voltage or chip.info.voltage_nominal, batch=4)
        logits = on_device(images)
        assert (on_device.runs, on_device.images) == (2, 6)
        if voltage:
            set_model(faulty, fault_map, voltage)
            read = unpack_weights(chip.read(0, chip.info.words))[: len(faulty.words)]
            assert (read == faulty.words).all()  # the model has the device's words, bit for bit
            assert (read != faulty.clean_words).any()
            faulty.restore()
        twin = rounded(faulty.network, images)
        if voltage:
            set_model(faulty, fault_map, voltage)
        with torch.no_grad():
            expected = twin(images)
    assert logits.shape == expected.shape
    # Both round to 8 bits at the same places; a value that sits on an edge may fall to either side.
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert (logits - expected).abs().median() < 1e-5 * expected.abs().max()


def test_what_a_device_cannot_do_is_refused():
    images = torch.zeros(1, 2, 8, 8)
    conv = nn.Conv2d(2, 2, 3, padding=1)
    for layers in (
        [conv, nn.GELU()],
        [nn.Conv2d(2, 2, 3, padding=1, dilation=2), nn.ReLU()],
        [nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")],
        [nn.BatchNorm2d(2), conv],
        [conv, nn.MaxPool2d(3, 2, 1)],
        [conv, nn.ReLU(), nn.ReLU()],
    ):
        with pytest.raises(InputError, match="device network"):
            compile_network(FaultyNetwork(nn.Sequential(*layers)), images)
    with pytest.raises(InputError, match="bits"):
        compile_network(FaultyNetwork(nn.Sequential(conv), bits=4), images)
    big = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(128, 64)))
    with SimulatedChip(chip_map(4096)) as chip, pytest.raises(InputError, match="weight memory"):
        DeviceNetwork(chip, big, images, VOLTAGE)


@pytest.fixture(scope="module")
def digits():
    """A small network that reads digits, and the digits."""
    found = data.load("digits")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 10))
    accuracy = train_network(network, found, NetworkSettings(6, learning_rate=0.05, shift=0, flip=False))
    assert accuracy > 0.9
    return network, found


@pytest.fixture
def bench(digits):
    """(network on the device, the chip's map, digits)"""
    network, found = digits
    faulty = FaultyNetwork(network)
    faulty.restore()
    fault_map = chip_map(8192, number=7)
    with SimulatedChip(fault_map) as chip:
        yield DeviceNetwork(chip, faulty, found.train_x[:200], VOLTAGE, batch=256), fault_map, found
    faulty.restore()


def test_straight_through_has_the_devices_value_and_the_models_gradient(bench):
    """With loss L, dL/dx = J_model(x)^T dL/dlogits at the device's logits: checked against autograd on the model."""
    on_device, fault_map, found = bench
    x, y = found.train_x[:5].clone().requires_grad_(), found.train_y[:5]
    set_model(on_device.faulty, fault_map, VOLTAGE)
    model = on_device.faulty(x)
    device = on_device(x)
    loss = F.cross_entropy(model + (device - model).detach(), y)
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(device, y).item(), rel=1e-6)
    at_device = torch.softmax(device, 1) - F.one_hot(y, 10)
    again = found.train_x[:5].clone().requires_grad_()
    (on_device.faulty(again) * at_device / 5).sum().backward()
    assert torch.allclose(x.grad, again.grad, atol=1e-6)
    assert (device != model).any()


def test_the_gap_is_rounding_where_the_map_is_right_and_large_where_it_is_not(bench):
    on_device, fault_map, found = bench
    right, wrong = gap(on_device, fault_map, found.test_x), gap(on_device, chip_map(8192, number=8), found.test_x)
    assert right.agreement > 0.97
    assert right.relative < 0.05
    assert wrong.relative > 5 * right.relative
    assert wrong.agreement < right.agreement - 0.1
    assert (on_device.faulty.words == on_device.faulty.clean_words).all()


def test_tuning_on_the_device_helps_that_chip(bench):
    on_device, fault_map, found = bench
    before = on_device.accuracy(found.test_x, found.test_y)
    affine = NeuralFuse(Affine(1, 16, 16))
    runs = on_device.runs
    tuned = tune(on_device, fault_map, affine, found, CalibrationSettings(120, 64, 0.02))
    assert (tuned.runs, tuned.images, tuned.drift_checks) == (120, 120 * 64, 3)
    assert on_device.runs == runs + 120
    after = protected_accuracy(on_device, affine, found.test_x, found.test_y)
    assert 1 - after < 0.6 * (1 - before)  # of 450 test images some hundred are wrong before
    assert on_device.device.voltage == VOLTAGE


@pytest.mark.parametrize("way", WAYS)
def test_tuning_by_queries_needs_no_map(way, bench, monkeypatch):
    on_device, _, found = bench
    before = on_device.accuracy(found.test_x, found.test_y)
    monkeypatch.setattr(FaultyNetwork, "__call__", None)  # the model may not be asked
    affine = NeuralFuse(Affine(1, 16, 16))
    tuned = WAYS[way](on_device, affine, found, CalibrationSettings(120, 64, 0.03, directions=4))
    assert tuned.queries == 120 * 8 * 64 == on_device.images - len(found.test_x)
    after = protected_accuracy(on_device, affine, found.test_x, found.test_y)
    assert 1 - after < 0.8 * (1 - before)


@pytest.mark.parametrize("bits", [4, None])
def test_a_device_that_is_queried_sees_the_words_that_are_left(bench, monkeypatch, bits):
    """Rounded to so many bits at each query and at the end; or floats throughout."""
    on_device, _, found = bench
    affine, levels = NeuralFuse(Affine(1, 16, 16)), []
    original = DeviceNetwork.__call__

    def spy(self, x):
        levels.append(max(len(number.unique()) for number in affine.parameters()))
        return original(self, x)

    monkeypatch.setattr(DeviceNetwork, "__call__", spy)
    evolution(on_device, affine, found, CalibrationSettings(3, 64, directions=2), bits)
    levels.append(max(len(number.unique()) for number in affine.parameters()))
    assert len(levels) == 3 * 4 + 1
    assert max(levels) <= 15 if bits else min(levels) > 15


def test_a_tuning_that_breaks_off_leaves_no_faults_and_eval_mode(bench):
    on_device, fault_map, found = bench

    def stop(step, steps, figures):
        raise KeyboardInterrupt

    affine = NeuralFuse(Affine(1, 16, 16))
    with pytest.raises(KeyboardInterrupt):
        tune(on_device, fault_map, affine, found, CalibrationSettings(3, 64), progress=stop)
    assert (on_device.faulty.words == on_device.faulty.clean_words).all()
    assert not affine.training


def test_a_chip_that_drifts_stops_the_tuning(bench):
    on_device, fault_map, found = bench
    moved = dataclasses.replace(fault_map, critical_voltage=fault_map.critical_voltage + np.float32(0.015))
    on_device.device.silicon.__init__(moved)
    on_device.set_voltage(VOLTAGE)
    with pytest.raises(Drifted, match=r"shift \+0\.01"):
        tune(on_device, fault_map, NeuralFuse(Affine(1, 16, 16)), found, CalibrationSettings(3))
    words = on_device.device.stored[: len(on_device.faulty.words) // 8]
    assert (unpack_weights(words) == on_device.faulty.clean_words[: 8 * len(words)]).all()  # canaries were put back


def test_voltages_below_the_map_are_refused(bench):
    _, fault_map, _ = bench
    with pytest.raises(InputError, match=r"0\.76"):
        device_faults(fault_map, 0.5, 100)
