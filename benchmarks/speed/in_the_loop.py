"""Tuned to one characterised chip against the generic generator on that chip, on simulated chips nobody trained on.

Digits, ResNet8 with 8-bit weights in the device's memory, 8-bit activations. Each chip is characterised through the
Device protocol alone, then a copy of the generic generator is tuned with the forward pass on the device and the
gradient through the characterised model. All accuracies are of the device, on test images that no tuning saw.
Comparisons are paired by chip. Device calls are counted.

    python -m benchmarks.speed.in_the_loop [--chips 12] [--out benchmarks/results/in_the_loop.txt]
"""

import argparse
import copy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from neuralfuse import data, networks
from neuralfuse.chips.sources import FIRST_TRAINING_CHIP
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.quantized.on_device import DeviceNetwork, gap, protected_accuracy
from neuralfuse.quantized.program import device_faults
from neuralfuse.results.statistics import mean_interval, paired_difference
from neuralfuse.training.generator import train_generator
from neuralfuse.training.network import train_network
from neuralfuse.training.on_device import tune
from neuralfuse.training.queries import evolution
from neuralfuse.training.settings import CalibrationSettings, GeneratorSettings, NetworkSettings
from neuralfuse.transforms import generators
from neuralfuse.transforms.generators import NeuralFuse
from neuralfuse.transforms.pixelwise import Affine
from simulator.device.characterize import characterize
from simulator.device.protocol import Run
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.faultmap import FaultMap
from sram.files import write_atomic
from sram.geometry import Geometry

CURVE, STRUCTURE, VOLTAGE, NOMINAL_STEP = "ibm14", "column", 0.80, 0.005
GEOMETRY = Geometry.of_capacity(80 * 1024)  # the network's 77,744 weights and a little more
READ = np.arange(0.90, VOLTAGE - 0.0225, -0.01)  # two steps below the supply in use, for canaries
TUNING_STEPS, QUERY_STEPS, QUERY_CHIPS = 100, 200, 3


class Counted(SimulatedChip):
    """Counts the calls that would cross the wire."""

    def __init__(self, fault_map: FaultMap):
        super().__init__(fault_map, voltage_step=NOMINAL_STEP)
        self.calls: Counter[str] = Counter()

    def write(self, address: int, words: ArrayLike) -> None:
        self.calls["write"] += 1
        super().write(address, words)

    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        self.calls["read"] += 1
        return super().read(address, count)

    def set_voltage(self, voltage: float) -> float:
        self.calls["set_voltage"] += 1
        return super().set_voltage(voltage)

    def run(self, batch: ArrayLike) -> Run:
        self.calls["run"] += 1
        return super().run(batch)


def chip(number: int) -> FaultMap:
    return faultmap.generate(number, GEOMETRY, CURVE, STRUCTURE, voltage_floor=float(READ[-1]) - NOMINAL_STEP)


def training_chips(words: int, draw: int) -> FaultyBits:
    """Chips that are never evaluated, at the voltage of the evaluation: the generic generator's best case."""
    return device_faults(chip(FIRST_TRAINING_CHIP + draw), VOLTAGE, words)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/in_the_loop.txt"))
    options = parser.parse_args()
    digits = data.load("digits")
    network = networks.build("resnet8", in_channels=1)
    clean = train_network(network, digits, NetworkSettings(shift=2, flip=False))
    note(f"network trained: {clean:.3f}")
    faulty = FaultyNetwork(network)
    generic = NeuralFuse(generators.build("DeConvS", in_channels=1, width=8))
    settings = GeneratorSettings(800, 16, 4, learning_rate=0.01, decay="cosine", shift=0, flip=False)
    train_generator([(faulty, lambda draw: training_chips(faulty.words.size, draw))], generic, digits, settings)
    note("generic generator trained")

    rows: list[dict[str, float]] = []
    neighbour: NeuralFuse | None = None  # the transform tuned to the chip before: is it the chip, or the extra steps?
    calls: dict[str, list[int]] = {"characterise": [], "tune": [], "queries": []}
    for number in range(options.chips):
        with Counted(chip(number)) as device:
            found = characterize(device, READ, repeats=4).fault_map()
            calls["characterise"].append(device.calls.total())
            on_device = DeviceNetwork(device, faulty, digits.train_x[:256], VOLTAGE)
            x, y = digits.test_x, digits.test_y
            row = {"unprotected": on_device.accuracy(x, y), "generic": protected_accuracy(on_device, generic, x, y)}
            row["agreement"] = gap(on_device, found, x).agreement
            before = device.calls.total()
            tuned = copy.deepcopy(generic)
            tune(on_device, found, tuned, digits, CalibrationSettings(TUNING_STEPS, 64, 3e-3))
            calls["tune"].append(device.calls.total() - before)
            row["tuned"] = protected_accuracy(on_device, tuned, x, y)
            if neighbour is not None:
                row["another chip's"] = protected_accuracy(on_device, neighbour, x, y)
            neighbour = tuned
            affine = NeuralFuse(Affine(*x.shape[1:]))
            tune(on_device, found, affine, digits, CalibrationSettings(TUNING_STEPS, 64, 0.02))
            row["affine"] = protected_accuracy(on_device, affine, x, y)
            if number < QUERY_CHIPS:
                before = device.calls.total()
                queried = NeuralFuse(Affine(*x.shape[1:]))
                evolution(on_device, queried, digits, CalibrationSettings(QUERY_STEPS, 64, 0.03))
                calls["queries"].append(device.calls.total() - before)
                row["queries"] = protected_accuracy(on_device, queried, x, y)
        rows.append(row)
        note(f"chip {number}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items()))
    text = report(clean, rows, calls)
    write_atomic(options.out, text)
    print(text)


def report(clean: float, rows: list[dict[str, float]], calls: dict[str, list[int]]) -> str:
    """The table over chips; intervals are 95%, over chips."""

    def values(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows if name in row])

    rate = np.mean([chip(number).cell_fault_rate(VOLTAGE) for number in range(len(rows))])
    lines = [
        f"digits, ResNet8, {STRUCTURE} maps on {CURVE} at {VOLTAGE} Vmin",
        f"{len(rows)} chips, mean cell fault rate {rate:.3f}",
        f"clean accuracy {clean:.3f} (float activations, nominal voltage)",
        "",
        f"{'accuracy on the device':<42} {'mean':>6}   {'95% interval':<14}   worst chip",
    ]
    names = {
        "unprotected": "unprotected",
        "generic": "generic generator (DeConvS, EOPM)",
        "tuned": f"the same, tuned on the device, {TUNING_STEPS} steps",
        "affine": f"scale and offset a pixel, tuned, {TUNING_STEPS} steps",
    }
    for key, name in names.items():
        e = mean_interval(values(key))
        lines.append(f"{name:<42} {e.mean:6.3f}   [{e.low:.3f}, {e.high:.3f}]   {values(key).min():6.3f}")
    lines.append("")
    pairs = [("tuned", "generic"), ("affine", "generic"), ("generic", "unprotected"), ("another chip's", "generic")]
    for better, worse in pairs:
        one, two = (np.array([row[name] for row in rows if better in row]) for name in (better, worse))
        e, wins = paired_difference(one, two), int((one > two).sum())
        interval = f"[{e.low:+.3f}, {e.high:+.3f}]"
        lines.append(f"{better} - {worse}, paired: {e.mean:+.3f} {interval}, better on {wins} of {e.chips} chips")
    queried, n = values("queries"), len(values("queries"))
    spent = ", ".join(f"{name} {np.mean(count):.0f}" for name, count in calls.items() if count)
    lines += [
        f"by queries only (scale and offset a pixel, {QUERY_STEPS} steps, first {n} chips): {queried.mean():.3f}",
        f"on those chips unprotected {values('unprotected')[:n].mean():.3f}, "
        f"scale and offset by gradient {values('affine')[:n].mean():.3f}",
        f"device and characterised model agree on {values('agreement').mean():.3f} of the unprotected test images",
        "",
        f"device calls a chip (a write, a read, a set_voltage or a run): {spent}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
