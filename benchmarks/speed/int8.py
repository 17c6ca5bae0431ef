"""Networks whose activations are 8-bit words (`activations: int8`) against networks of floats: time, and answers.

    python -m benchmarks.speed.int8 [--chips 20] [--root data/cifar10]

Time: one thread, processor time of a forward pass of 128 images on a chip with 1% faulty bits, giving the layers their
new words included; both sides as a sweep runs them, in turns, median. Weights as drawn, for they do not change it.

Answers: the same chips (independent cells, every stored bit in a cell of its own) read by the same network with both
kinds of activations: resnet8 on digits, trained here as in the demo, and with `--root` the resnet14 of
`benchmarks/checkpoints` on 500 test images of CIFAR-10. Differences are paired by chip; also how long a chip took.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork, integers_are_exact
from neuralfuse.quantized.program import compile_network
from neuralfuse.results.rows import Result
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.bench import run_chunk
from neuralfuse.sweep.task import Task
from sram.progress import silent

SHAPES = {"resnet8": (1, 16), "resnet14": (3, 32), "resnet18": (3, 32), "vgg19": (3, 32)}
RATES = [0, 0.0025, 0.005, 0.01, 0.0175, 0.03]


def timed(work, repeats: int) -> list[float]:
    seconds = []
    for i in range(repeats + 1):
        start = time.process_time()
        work(i)
        seconds.append(time.process_time() - start)
    return seconds[1:]


def speed(name: str, repeats: int = 5) -> None:
    channels, size = SHAPES[name]
    faulty = FaultyNetwork(networks.build(name, 10, channels), fold=True)
    x = torch.rand(128, channels, size, size) * 2 - 1
    words = IntegerNetwork(faulty, compile_network(faulty, x[:32]))
    random, count = np.random.default_rng(0), faulty.words.size * 8 // 100
    chips = [(random.integers(faulty.words.size, size=count), random.integers(8, size=count).astype(np.uint8),
              random.integers(2, size=count).astype(np.uint8)) for _ in range(2)]  # fmt: skip

    def forward(network):
        def work(i: int) -> None:
            faulty.set_faults(*chips[i % 2])
            with torch.inference_mode():
                network(x)

        return work

    pairs = [(timed(forward(faulty), 1)[0], timed(forward(words), 1)[0]) for _ in range(repeats)]
    floats, ints = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{name:10}{floats:10.1f}{ints:10.1f}{floats / ints:8.2f}", flush=True)


def study_of(dataset: dict, network: dict) -> StudyConfig:
    both = [{**network, "name": "float"}, {**network, "name": "int8", "activations": "int8"}]
    sram = {"structures": ["iid"], "schedule": "resident"}
    keys = {"name": "int8", "dataset": dataset, "networks": both, "sram": sram, "cell_fault_rates": RATES}
    return parse_study(keys, "benchmarks.speed.int8")


def answers(study: StudyConfig, chips: int, folder: Path) -> None:
    points = prepare(StudyFolder(folder, study), silent)
    rows: dict[str, list[list[Result]]] = {"float": [], "int8": []}
    took: dict[str, list[float]] = {"float": [], "int8": []}
    for point in points:
        for chip in range(chips):
            start = time.process_time()
            rows[point.network].append(
                run_chunk(str(folder), [Task(point, chip, at) for at in operating_points(study, point.accelerator)])
            )
            took[point.network].append(time.process_time() - start)
    for i, rate in enumerate(RATES):
        floats, ints = (np.array([100 * chip[i].accuracy for chip in rows[kind]]) for kind in ("float", "int8"))
        lost = mean_interval(ints - floats)
        interval = f"{lost.mean:+.1f} [{lost.low:+.1f}, {lost.high:+.1f}]" if rate else f"{lost.mean:+.1f}"
        print(f"{100 * rate:8.2f}%{floats.mean():9.1f}{ints.mean():9.1f}   {interval}", flush=True)
    seconds = [statistics.median(took[kind][1:]) for kind in ("float", "int8")]  # a first chip loads and compiles
    print(f"seconds a chip: {seconds[0]:.2f} float, {seconds[1]:.2f} int8, ratio {seconds[0] / seconds[1]:.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--root", help="folder of the CIFAR-10 files; left out: digits alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"integer convolutions exact here: {integers_are_exact()}")
    print("128 images, ms:  float      int8   ratio")
    for name in SHAPES:
        speed(name)
    studies = {
        "resnet8, digits": study_of({"name": "digits"}, {"build": "resnet8", "training": {"flip": False, "shift": 2}})
    }
    if given.root:
        cifar = {"name": "cifar10", "root": given.root, "test_images": 500}
        base: dict = {"build": "resnet14", "options": {"width": 32, "first_stride": 2}}
        base["checkpoint"] = "benchmarks/checkpoints/cifar10-resnet14.safetensors"
        studies["resnet14, CIFAR-10"] = study_of(cifar, base)
    for title, study in studies.items():
        print(
            f"\n{title}, {given.chips} chips: accuracy, %\n    faults    float     int8   int8 - float [95% over chips]"
        )
        with tempfile.TemporaryDirectory() as folder:
            answers(study, given.chips, Path(folder) / "study")


if __name__ == "__main__":
    main()
