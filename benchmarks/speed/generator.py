"""CPU seconds until a generator wins so many points: EOPM alone, at the best of some rates, against stages before it.

    python -m benchmarks.speed.generator [--data digits|cifar10] [--points 10] [--limit 300] [--rates 0.001 0.003 0.01]

The gain is that over the bare network, mean over held-out chips that no training draws, on test images. `digits`:
resnet8, a cell of its own for every stored bit, 2% of the cells, ConvS of width 16. `cifar10` (in data/cifar10): the
committed resnet14 in the published code's mapping, 0.75% of the cells, UNetS. EOPM alone begins at the identity, one
chip a step; looks are not counted. A training that is not there when `limit` seconds are over is
stopped, and the ratio is a lower bound.
"""

import argparse
import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.report_speed import processor
from neuralfuse import data, networks
from neuralfuse.chips.sources import IndependentCells, PaperMaps, Source
from neuralfuse.data import Dataset
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import quantize_in_place
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.generator import train_generator
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import GeneratorSettings, NetworkSettings
from neuralfuse.transforms import generators
from neuralfuse.transforms.generators import NeuralFuse
from simulator.accelerator import accelerator
from simulator.placement import place
from simulator.readers.read import trace
from sram import paper

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "cifar10-resnet14.safetensors"
HELD_OUT = 10**8  # the first draw that no training makes
MOST_STEPS = 10**6


@dataclass(frozen=True)
class Case:
    """A network, its chips, what stands before it, and the stages that are tried."""

    dataset: Dataset
    faulty: FaultyNetwork
    source: Source
    generator: str
    width: int | None
    stages: dict[str, int]
    flip: bool


class Enough(Exception):
    """The gain is there, or the time is over."""


def digits() -> Case:
    """A network that is trained here."""
    dataset, network = data.load("digits"), networks.build("resnet8", 10, 1)
    train_network(network, dataset, NetworkSettings(epochs=12, flip=False, shift=2))
    faulty = FaultyNetwork(network, fold=True)
    source = IndependentCells(faulty.words.size, (0.02,))
    stages = {"class_steps": 200, "pattern_steps": 50, "paint_steps": 200}
    return Case(dataset, faulty, source, "ConvS", 16, stages, flip=False)


def cifar10() -> Case:
    """The committed network, in the mapping of the paper's published code."""
    network = networks.build("resnet14", width=32, first_stride=2)
    checkpoint.load_network(network, CHECKPOINT)
    faulty = FaultyNetwork(copy.deepcopy(network), fold=True)
    placed = place(trace(network, (3, 32, 32)), accelerator("paper"), paper.GEOMETRY, schedule="paper", bits=8)
    source = PaperMaps(placed, faulty.numbering(placed.tensors), (0.0075,), 0)
    stages = {"class_steps": 900, "pattern_steps": 100, "paint_steps": 600}
    return Case(data.load("cifar10"), faulty, source, "UNetS", None, stages, flip=True)


def accuracies(case: Case, fuse: NeuralFuse | None, chips: int, images: int) -> np.ndarray:
    """Of each held-out chip, behind a copy of the transform whose words are rounded; or bare."""
    chosen = torch.randperm(len(case.dataset.test_y), generator=torch.Generator().manual_seed(0))[:images]
    x, y = case.dataset.test_x[chosen], case.dataset.test_y[chosen]
    if fuse is not None:
        x = transform(quantize_in_place(copy.deepcopy(fuse)).eval(), x)
    found = []
    for chip in range(chips):
        case.faulty.set_faults(*case.source(HELD_OUT + chip))
        found.append(correct(case.faulty, x, y) / len(y))
    case.faulty.restore()
    return np.array(found)


def seconds(
    case: Case, settings: GeneratorSettings, bare: np.ndarray, given: argparse.Namespace
) -> tuple[float, float]:
    """CPU seconds of training until the gain is there (infinite: not within the limit), and the best gain seen."""
    identity = settings.one_stage
    fuse = NeuralFuse(generators.build(case.generator, case.dataset.in_channels, case.width, identity=identity))
    start, looking, best, reached = time.process_time(), 0.0, -math.inf, math.inf

    def look(step: int, steps: int, figures: dict[str, float]) -> None:
        nonlocal looking, best, reached
        spent = time.process_time() - start - looking
        if step % given.every == 0 and ("paint_loss" in figures or "faulty_loss" in figures):
            before = time.process_time()
            training = fuse.training
            best = max(best, 100 * float((accuracies(case, fuse, given.chips, given.images) - bare).mean()))
            fuse.train(training)
            looking += time.process_time() - before
            if best >= given.points:
                reached = spent
        if reached < math.inf or spent > given.limit:
            raise Enough

    try:
        train_generator([(case.faulty, case.source)], fuse, case.dataset, settings, run=Run(progress=look))
    except Enough:
        case.faulty.restore()
    return reached, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--points", type=float, default=10)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2], help="of EOPM alone")
    parser.add_argument("--limit", type=float, default=300, help="CPU seconds of one training")
    parser.add_argument("--every", type=int, default=25, help="steps between looks")
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--images", type=int, default=300)
    given = parser.parse_args()
    case = {"digits": digits, "cifar10": cifar10}[given.data]()
    bare = accuracies(case, None, given.chips, given.images)
    print(f"{given.data}, bare: {100 * bare.mean():.1f}% on {given.chips} chips; wanted: {given.points:+g} points")
    common = {"batch": 64, "maps": 1, "shift": 2, "flip": case.flip}
    tried = [
        (f"EOPM alone, {rate:g}", GeneratorSettings(MOST_STEPS, learning_rate=rate, **common)) for rate in given.rates
    ]
    tried.append(("in stages", GeneratorSettings(MOST_STEPS, learning_rate=1e-4, **case.stages, **common)))
    found = []
    for name, settings in tried:
        took, best = seconds(case, settings, bare, given)
        found.append(took)
        text = f"{took:8.1f} s CPU" if took < math.inf else f"not in {given.limit:g} s CPU"
        print(f"{name:18} {text}; best gain seen {best:+.1f} points", flush=True)
    alone, staged = min(found[:-1]), found[-1]
    if staged < math.inf:
        least = "at least " * (alone == math.inf)
        print(f"in stages {least}{min(alone, given.limit) / staged:.1f} times faster, {processor()}, one thread")


if __name__ == "__main__":
    main()
