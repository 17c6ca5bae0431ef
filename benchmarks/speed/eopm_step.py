"""Time of one EOPM step: the schedule of `neuralfuse.training.eopm` against that of the paper's published code.

    python benchmarks/eopm_step.py [--network resnet18] [--generator ConvL] [--batch 64] [--maps 10] [--threads 1]

Both sides run in this process on the same images, labels and fault maps (paper-compatible, 1% of the cells) and end
with the same gradient, which is compared: ours folds BatchNorm into the weights, and rounding then decides otherwise
about the few ReLUs that are all but zero (without `fold=True` they agree to 3e-6). The published schedule, rebuilt
from its description: for each of the N maps, draw and pack the map, quantise every weight, write the faults into the
words, quantise again, then run the generator, the clean and the faulty network forward, the faulty network a second
time for the log, and backward with gradients of all weights. Rebuilt in whole-array operations, it perturbs several
times faster than the original's 1.0 s a map: the ratio printed is the smaller for it. Times are CPU seconds (wall
seconds beside them), of one step after a short one to warm up. The last row is ours with `precision: bfloat16`, whose
gradient is compared, too.
"""

import argparse
import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse import networks
from neuralfuse.chips.sources import PaperMaps
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import dequantize, quantize, quantize_in_place, weight_parameters
from neuralfuse.training.eopm import eopm_backward
from neuralfuse.training.loop import computing_in
from neuralfuse.transforms import generators
from simulator import placement
from simulator.accelerator import accelerator
from simulator.readers.read import trace
from sram import paper

RATE, FIRST_SEED, LAMBDA = 0.01, 1_000_000, 5.0


def published_map(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes uint8[8192, 16] to OR and to AND-NOT, as the published code draws and packs them."""
    faulty = np.random.RandomState(seed).rand(8192, 128) < RATE
    one = np.random.RandomState(seed + 1).rand(8192, 128) < 0.5
    return tuple(np.packbits(part, axis=1, bitorder="little") for part in (faulty & one, faulty & ~one))  # type: ignore


def published_perturb(clean: nn.Module, seed: int) -> nn.Module:
    """A copy of the network whose words have been read through the map; every layer starts at row 0."""
    set_bits, clear_bits = (torch.from_numpy(part.reshape(-1)) for part in published_map(seed))
    faulty = copy.deepcopy(clean)
    for weight in weight_parameters(faulty).values():
        words, scale = quantize(weight)
        index = torch.arange(words.numel())
        byte = (index // 256 % 8192) * 16 + index % 16
        read = (words.flatten().view(torch.uint8) & ~clear_bits[byte]) | set_bits[byte]
        quantize(weight)  # the second quantisation, whose result the forward pass of the published code uses anew
        weight.data = dequantize(read.view(torch.int8).view(weight.shape), scale)
    return faulty


def published_step(clean: nn.Module, fuse: nn.Module, x: Tensor, y: Tensor, maps: int) -> float:
    """Gradients of the generator by the published schedule; returns the CPU seconds spent in perturbing."""
    perturbing = 0.0
    for i in range(maps):
        start = time.process_time()
        faulty = published_perturb(clean, FIRST_SEED + 2 * i)
        perturbing += time.process_time() - start
        protected = fuse(x)
        loss = F.cross_entropy(clean(protected), y) + LAMBDA * F.cross_entropy(faulty(protected), y)
        F.cross_entropy(faulty(protected), y)  # for the log, with a graph
        (loss / maps).backward()
        clean.zero_grad()
    return perturbing


class Timed:
    """An iterator's and a function's CPU time."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, function):
        def run(*arguments):
            start = time.process_time()
            result = function(*arguments)
            self.seconds += time.process_time() - start
            return result

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--generator", default="ConvL")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--maps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    clean = quantize_in_place(networks.build(given.network)).eval()
    frozen = FaultyNetwork(copy.deepcopy(clean), fold=True)
    ours, theirs, lower = (generators.NeuralFuse(generators.build(given.generator)) for _ in range(3))
    placed = placement.place(trace(clean, (3, 32, 32)), accelerator("paper"), paper.GEOMETRY, schedule="paper", bits=8)
    source = PaperMaps(placed, frozen.numbering(placed.tensors), (RATE,), FIRST_SEED)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(given.batch, 3, 32, 32, generator=random) * 2 - 1
    y = torch.randint(0, 10, (given.batch,), generator=random)

    def our_step(fuse: nn.Module, precision: str, x: Tensor, y: Tensor, maps: int) -> float:
        timed = Timed()
        draw, write = timed(source), timed(FaultyNetwork.set_faults)
        frozen.set_faults = lambda *faults: write(frozen, *faults)  # type: ignore[method-assign]
        with computing_in(precision, x.device):
            eopm_backward(frozen, fuse, x, y, (draw(i) for i in range(maps)), maps, LAMBDA)
        return timed.seconds

    rows = []
    for name, step, fuse in (
        ("published schedule", lambda x, y, n: published_step(clean, theirs, x, y, n), theirs),
        ("one pass per map", lambda x, y, n: our_step(ours, "float32", x, y, n), ours),
        ("the same in bfloat16", lambda x, y, n: our_step(lower, "bfloat16", x, y, n), lower),
    ):
        step(x[:2], y[:2], 1)
        fuse.zero_grad()
        wall, cpu = time.perf_counter(), time.process_time()
        perturbing = step(x, y, given.maps)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        rows.append((name, cpu, wall, perturbing))
        print(f"{name:20} {cpu:8.2f} s CPU {wall:8.2f} s wall; perturbing {perturbing:6.2f} s, {perturbing / cpu:5.1%}")
    one, other, rough = (
        torch.cat([p.grad.flatten() for p in fuse.parameters() if p.grad is not None]) for fuse in (ours, theirs, lower)
    )
    error, rounding = float((one - other).norm() / other.norm()), float((rough - one).norm() / one.norm())
    setting = f"{given.network} + {given.generator}, batch {given.batch}, N = {given.maps}, {given.threads} thread(s)"
    print(f"{setting}, torch {torch.__version__}: {rows[0][1] / rows[1][1]:.2f} times faster in CPU time")
    print(f"gradients agree to {error:.1e}")
    print(f"in bfloat16 {rows[1][1] / rows[2][1]:.2f} times faster than in float32; gradients agree to {rounding:.1e}")


if __name__ == "__main__":
    main()
