"""One perturbed ResNet18, from chip number to float tensors ready to run, against the schedule of the published code.

    python -m benchmarks.speed.inject [--repeats 7]

Both sides use the paper's memory (8192 x 128 cells for the whole network, each faulty cell hits 16 weights of every
layer) at a cell fault rate of 1%: about 890,000 stored bits lie in faulty cells. The other side spends its time where
the published code does for every map, rewritten from its description: dense float64 maps that become int64, mask bytes
put together bit by bit, and then for each of the two forward passes through the map and for each layer: the masks tiled
over whole memory banks, the weight quantised, masked, and made float again, and its range taken once more.
"""

import argparse
import math
import statistics
import time

import numba
import numpy as np
import torch

from neuralfuse import networks
from neuralfuse.quantized.quantize import quantize, weight_parameters
from simulator.accelerator import accelerator
from simulator.placement import place
from simulator.readers.read import trace
from sram import failure, inject, paper
from sram.memory import Chip, Memory

RATE = 0.01


def published_map(seed):
    """(bytes to set, bytes to clear), uint8[8192, 16] tensors."""
    shape = paper.GEOMETRY.rows, paper.GEOMETRY.columns
    faulty, to_one, to_zero = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    faulty[np.random.RandomState(seed).rand(*shape) < RATE] = 1
    side = np.random.RandomState(seed + 1).rand(*shape)
    to_one[side < 0.5] = 1
    to_zero[side >= 0.5] = 1
    masks = []
    for bits in (faulty * to_one, faulty * to_zero):
        bits = torch.from_numpy(bits.astype(np.int64))
        mask = torch.zeros((shape[0], shape[1] // 8), dtype=torch.uint8)
        for byte in range(shape[1] // 8):
            for bit in range(8):
                mask[:, byte] += bits[:, byte * 8 + bit] << bit
        masks.append(mask)
    return masks


def published_pass(weight, to_set, to_clear):
    """The weight as one forward pass sees it."""
    rows, width = to_set.shape
    banks = math.ceil(math.ceil(weight.numel() / width) / rows)
    to_set, to_keep = to_set.tile(banks, width), (~to_clear).tile(banks, width)
    to_set, to_keep = (mask.reshape(-1)[: weight.numel()].reshape(weight.shape) for mask in (to_set, to_keep))
    largest = weight.abs().max()
    step = largest / 127
    words = torch.round(weight.clamp(-largest, largest) / step).to(torch.int8)
    words = torch.bitwise_or(to_set, torch.bitwise_and(to_keep, words).to(torch.int8)).to(torch.int8)
    seen = (words * step).to(torch.float32)
    seen.clamp(weight.min(), weight.max())  # made and not used, there as here
    return seen


def published_schedule(parameters, seed):
    """{name: float tensor} with the faults of one map; each of a map's two forward passes makes them anew."""
    masks = published_map(seed)
    for _ in range(2):
        seen = {name: published_pass(weight, *masks) for name, weight in parameters.items()}
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        race(threads, repeats)


def race(threads, repeats):
    """Both sides with so many threads: one in seconds of processor time, which other work stretches least; all in
    seconds of the clock on the wall."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    curve = failure.curve("ibm14")
    voltage = float(curve.voltage(RATE))
    network = networks.build("resnet18")
    clean = {name: weight.detach().clone() for name, weight in weight_parameters(network, None).items()}
    placement = place(trace(network, (3, 32, 32)), accelerator("paper"), paper.GEOMETRY, "paper")
    chips = iter(range(1, 10**6))
    clean_words = np.concatenate([quantize(w, 8)[0].numpy().reshape(-1) for w in clean.values()])
    scale = np.array([quantize(w, 8)[1].item() for w in clean.values()], np.float32)
    starts = np.cumsum([0, *(w.numel() for w in clean.values())])[:-1]
    values = clean_words * np.repeat(scale, np.diff([*starts, clean_words.size]))
    words = inject.StoredWords(clean_words, values, starts, scale)
    stages = {"create": [], "place": [], "inject": []}

    def ours(make=None):
        start = clock()
        fault_map = make or Chip(next(chips)).fault_map(Memory(paper.GEOMETRY, curve), voltage, threads=threads)
        faults = fault_map.at(voltage)
        order = np.argsort(faults.cell)  # in the order of memory rather than of voltage: neighbours share cache lines
        created = clock()
        weight, bit, kind = placement.faults(faults.cell[order], faults.kind[order])
        placed = clock()
        words.set_faults(weight, bit, kind)
        for name, seconds in zip(stages, (created - start, placed - created, clock() - placed), strict=True):
            stages[name].append(seconds)
        return sum(times[-1] for times in stages.values())

    def theirs():
        start = clock()
        published_schedule(clean, next(chips))
        return clock() - start

    # The two sides must agree before their times are compared.
    ours(paper.fault_map(7, RATE))
    expected = published_schedule(clean, 7)
    assert np.array_equal(values, np.concatenate([tensor.numpy().reshape(-1) for tensor in expected.values()]))
    theirs(), ours(), [times.clear() for times in stages.values()]

    mine, other, maps = [], [], []
    for _ in range(repeats):  # in turns, so that both see the same machine
        other.append(theirs())
        start = clock()
        published_map(next(chips))
        maps.append(clock() - start)
        mine.append(ours())
    parts = ", ".join(f"{name} {statistics.median(times) * 1e3:.1f}" for name, times in stages.items())
    a, b, c = (statistics.median(times) for times in (mine, other, maps))
    print(f"ResNet18 with another chip's faults, {threads} thread(s): {a * 1e3:.1f} ms ({parts})")
    print(
        f"published schedule: {b * 1e3:.0f} ms (map {c * 1e3:.0f}, two passes of {(b - c) / 2 * 1e3:.0f}): {b / a:.0f}x"
    )


if __name__ == "__main__":
    main()
