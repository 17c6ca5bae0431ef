"""One perturbed ResNet18, from chip number to float tensors ready to run, against the schedule of the published code.

    python -m benchmarks.inject [--repeats 7]

Both sides use the paper's memory (8192 x 128 cells for the whole network, each faulty cell hits 16 weights of every
layer) at a cell fault rate of 1%: about 890,000 stored bits lie in faulty cells. The other side does what the published
code does for each map, written anew with whole-tensor operations: draw two numbers per cell, pack the masks to bytes,
quantise every weight (twice, once for each pass that uses the map), look up each weight's mask bytes, apply them, and
make new float tensors.
"""

import argparse
import statistics
from time import process_time as clock  # both sides run on one thread; a shared machine adds waiting to wall clocks

import numpy as np
import torch

from neuralfuse import networks
from neuralfuse.quantize import quantize, weight_parameters
from simulator.accelerator import accelerator
from simulator.placement import place
from simulator.workload import trace
from sram import failure, faultmap, inject, paper

RATE = 0.01


def published_schedule(parameters, seed):
    """{name: float tensor} with the faults of one map, as the published code makes them."""
    rows, columns = paper.GEOMETRY.rows, paper.GEOMETRY.columns
    faulty = np.random.RandomState(seed).rand(rows, columns) < RATE
    to_one = np.random.RandomState(seed + 1).rand(rows, columns) < 0.5
    set_mask, clear_mask = (np.packbits(faulty & side, axis=1, bitorder="little") for side in (to_one, ~to_one))
    out = {}
    for name, weight in parameters.items():
        quantize(weight, 8)
        words, scale = quantize(weight, 8)
        index = np.arange(words.numel())
        row, byte = (index // 256) % rows, index % (columns // 8)
        raw = words.numpy().reshape(-1).view(np.uint8)
        seen = (raw & ~clear_mask[row, byte]) | set_mask[row, byte]
        out[name] = (torch.from_numpy(seen.view(np.int8)).float() * scale).view(weight.shape)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    curve = failure.curve("ibm14")
    voltage = float(curve.voltage(RATE))
    network = networks.build("resnet18")
    clean = {name: weight.detach().clone() for name, weight in weight_parameters(network, None).items()}
    placement = place(trace(network, (3, 32, 32)), accelerator("paper"), paper.GEOMETRY, "paper")
    chips = iter(range(1, 10**6))
    clean_words = np.concatenate([quantize(w, 8)[0].numpy().reshape(-1) for w in clean.values()])
    scale = np.array([quantize(w, 8)[1].item() for w in clean.values()], np.float32)
    starts = np.cumsum([0, *(w.numel() for w in clean.values())])[:-1]
    words, values = clean_words.copy(), clean_words * np.repeat(scale, np.diff([*starts, clean_words.size]))
    before = [np.empty(0, np.int64)]
    stages = {"create": [], "place": [], "inject": []}

    def ours(make=None):
        start = clock()
        fault_map = make or faultmap.generate(next(chips), paper.GEOMETRY, curve, voltage_floor=voltage, threads=1)
        faults = fault_map.at(voltage)
        order = np.argsort(faults.cell)  # in the order of memory rather than of voltage: neighbours share cache lines
        created = clock()
        hits = placement.hits(faults.cell[order])
        weight, kind = hits.weight, faults.kind[order][hits.fault]
        placed = clock()
        inject.reread(words, clean_words, values, starts, scale, before.pop(), weight, hits.bit, kind)
        before.append(weight)
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

    mine, other = [], []
    for _ in range(repeats):  # in turns, so that both see the same machine
        other.append(theirs())
        mine.append(ours())
    parts = ", ".join(f"{name} {statistics.median(times) * 1e3:.1f}" for name, times in stages.items())
    a, b = statistics.median(mine), statistics.median(other)
    print(f"ResNet18 with another chip's faults, one thread: {a * 1e3:.1f} ms ({parts})")
    print(f"published schedule: {b * 1e3:.0f} ms, {b / a:.1f}x")


if __name__ == "__main__":
    main()
