"""A network on a device: its words in the memory, its products on the array."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.program import compile_network, device_faults
from simulator.device.board import pack_weights
from simulator.device.canary import Drift, canaries, drift
from simulator.device.protocol import Counters, Device, DeviceError
from sram.weakcells import FaultMap


class Drifted(DeviceError):
    """The chip does not behave as its map says any more: characterise it again."""


class DeviceNetwork:
    """`faulty`'s network on a device at `voltage`: its words are in the memory, its products on the array.

    Called with images float[n, c, h, w] it gives logits float[n, classes], without gradient. `runs` and `images`
    count what the device was asked, `counters` what it spent. InputError where the network does not fit; DeviceError
    where the words do not read back at nominal voltage.
    """

    def __init__(self, device: Device, faulty: FaultyNetwork, calibration: Tensor, voltage: float, batch: int = 64):
        self.device, self.faulty, self.batch = device, faulty, batch
        self.program = compile_network(faulty, calibration)
        self.runs, self.images, self.counters = 0, 0, Counters()
        device.load(self.program)
        device.set_voltage(device.info.voltage_nominal)
        words = pack_weights(faulty.clean_words, device.info.word_bits)
        device.write(0, words)
        if (device.read(0, len(words)) != words).any():
            raise DeviceError(f"{device.info.name}: the weights do not read back at nominal voltage")
        self.voltage = device.set_voltage(voltage)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images, from the device's runs."""
        parts = []
        for i in range(0, len(x), self.batch):
            run = self.device.run(x[i : i + self.batch].detach().cpu().numpy())
            self.runs, self.images = self.runs + 1, self.images + len(run.outputs)
            self.counters += run.counters
            parts.append(torch.from_numpy(run.outputs))
        return torch.cat(parts).to(x.device)

    def set_voltage(self, voltage: float) -> float:
        """Move the memory's supply; returns the voltage reached."""
        self.voltage = self.device.set_voltage(voltage)
        return self.voltage

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Share of images whose largest logit on the device is the label."""
        return correct(self, x, y) / len(y)

    def check(self, fault_map: FaultMap, count: int = 64) -> Drift:
        """Re-read the map's canary words; memory and voltage are then as before."""
        found = drift(self.device, fault_map, self.voltage, canaries(fault_map, self.voltage, count))
        self.device.set_voltage(self.voltage)
        return found


@dataclass(frozen=True)
class Gap:
    """How far the device's logits are from the model's on the same images: root mean square difference, the same
    over the model's own spread, and the share of images that both put in the same class."""

    rms: float
    relative: float
    agreement: float


def set_model(faulty: FaultyNetwork, fault_map: FaultMap, voltage: float) -> None:
    """Give the network the faults that the map says the device has at this voltage."""
    faulty.set_faults(*device_faults(fault_map, voltage, faulty.words.size))


@torch.no_grad()
def gap(on_device: DeviceNetwork, fault_map: FaultMap, x: Tensor) -> Gap:
    """Device against its characterised model on images x. Rounded activations, and what the map misses, make the
    gap."""
    set_model(on_device.faulty, fault_map, on_device.voltage)
    try:
        model, device = on_device.faulty(x), on_device(x)
    finally:
        on_device.faulty.restore()
    rms = float((model - device).square().mean().sqrt())
    same = float((model.argmax(1) == device.argmax(1)).float().mean())
    return Gap(rms, rms / max(float(model.std()), 1e-12), same)


def protected_accuracy(on_device: DeviceNetwork, neuralfuse: nn.Module, x: Tensor, y: Tensor) -> float:
    """Accuracy on the device of images that have passed the transform."""
    return on_device.accuracy(transform(neuralfuse.eval(), x), y)
