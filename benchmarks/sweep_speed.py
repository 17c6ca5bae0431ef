"""Chips per second of a sweep against the naive loop: deep copy, new map over every bit, quantise, evaluate.

    python -m benchmarks.sweep_speed [--network resnet18]

Both sides run in this process, on one thread, on the same images, chips and voltages. `overhead` is the share of our
time that is not the network's own forward pass.
"""

import argparse
import copy
import time
from statistics import median

import numpy as np
import torch

from neuralfuse import data, evaluate, networks
from neuralfuse.config import SramConfig
from neuralfuse.cost import machine_of
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.quantize import dequantize, quantize, weight_parameters
from neuralfuse.stored import make_map, store
from simulator.placement import place
from simulator.workload import trace
from sram import failure, protection
from sram.geometry import Geometry

VOLTAGES = (0.9, 0.875, 0.85, 0.8333, 0.8125, 0.8)
SRAM = SramConfig()


def naive(network, images, labels, chip: int) -> list[int]:
    """What one would write first: every voltage starts from a copy, and every stored bit is drawn."""
    counts = []
    for i, voltage in enumerate(VOLTAGES):
        rate = float(failure.curve(SRAM.curve).probability(voltage))
        random = np.random.default_rng([chip, i])
        broken = copy.deepcopy(network)
        for weight in weight_parameters(broken).values():
            words, scale = quantize(weight.data)
            bits = np.unpackbits(words.numpy().view(np.uint8)[..., None], axis=-1)
            faulty = random.random(bits.shape) < rate
            stuck = random.random(bits.shape) < 0.5
            read = np.packbits(np.where(faulty, stuck, bits), axis=-1)[..., 0].view(np.int8)
            weight.data = dequantize(torch.from_numpy(read), scale)
        counts.append(evaluate.correct(broken, images, labels))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--images", type=int, default=None, help="default: all 450 digits, or 64 random images")
    parser.add_argument("--chips", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.network == "resnet8":
        digits = data.load("digits")
        images, labels = digits.test_x[: given.images], digits.test_y[: given.images]
    else:
        images = torch.rand(given.images or 64, 3, 32, 32) * 2 - 1
        labels = torch.zeros(len(images), dtype=torch.int64)
    network = networks.build(given.network, in_channels=images.shape[1]).eval()
    workload = trace(network, tuple(images.shape[1:]))
    placed = place(workload, machine_of("paper"), Geometry.of_capacity(256 * 1024))
    model, bare = FaultyNetwork(copy.deepcopy(network)), protection.parse("none")

    def ours(chip: int) -> tuple[list[int], float]:
        start, forward, counts = time.perf_counter(), 0.0, []
        raw = make_map(SRAM, 0, placed.geometry, "column", chip, min(VOLTAGES))
        stored = store(raw, placed, model, bare)
        for voltage in VOLTAGES:
            model.set_faults(*stored.faults(voltage))
            before = time.perf_counter()
            counts.append(evaluate.correct(model, images, labels))
            forward += time.perf_counter() - before
        return counts, 1 - forward / (time.perf_counter() - start)

    ours(0), naive(network, images, labels, 0)  # compile, warm up
    times: dict[str, list[float]] = {"naive": [], "ours": []}
    overheads = []
    for chip in range(1, given.chips + 1):
        start = time.perf_counter()
        naive(network, images, labels, chip)
        middle = time.perf_counter()
        overheads.append(ours(chip)[1])
        times["naive"].append(middle - start)
        times["ours"].append(time.perf_counter() - middle)
    slow, fast = median(times["naive"]), median(times["ours"])
    print(f"{given.network}, {len(images)} images, {len(VOLTAGES)} voltages a chip, median of {given.chips} chips")
    print(f"naive {1 / slow:.3f} chips/s   ours {1 / fast:.3f} chips/s   ratio {slow / fast:.2f}")
    print(f"overhead outside the network's forward: {100 * median(overheads):.1f}%")


if __name__ == "__main__":
    main()
