"""Processor time to an interval of a point to either side (95%): chips and images chosen, against chips on all test
images; of the mean accuracy, and of what a hardened top bit wins on the same chips.

    python -m benchmarks.speed.interval [--cifar10 FOLDER] [--images N] [digits resnet14 resnet18]

The sampled side is a whole adaptive study on one core, its chips included. The other is timed on a few chips, and
multiplied: so many chips as their spread takes for the same interval, each on all images; ResNet18 on 10,000 of them
would take hours.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.speed.report_speed import processor
from neuralfuse.results.rows import added
from neuralfuse.results.statistics import student
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.bench import bench_of, run_chunk, stamp_of
from neuralfuse.sweep.collect import collect
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.plan import plan
from neuralfuse.sweep.run import chip_costs
from neuralfuse.sweep.sampling import Variance
from neuralfuse.sweep.task import Task
from sram.progress import silent

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
GOAL = 1.0  # points
CHIPS = 3  # on which the fixed design is timed


def study_of(name: str, goal: str, cifar10: str | None, images: int | None) -> StudyConfig:
    """One network at one supply, where its chips lose accuracy."""
    content: dict = {"name": name, "chips": {"evaluation": 5000}, "adaptive": {goal: GOAL}}
    content["protections"] = ["none"] if goal == "half_width_points" else ["none", "hardened_msb:1"]
    if name == "digits":
        content |= {"networks": ["resnet8"], "voltages": [0.825], "sram": {"structures": ["column"]}}
    else:
        network: dict = {"name": name, "checkpoint": str(CHECKPOINTS / f"cifar10-{name}.safetensors")}
        network["options"] = {"width": 32, "first_stride": 2} if name == "resnet14" else {}
        content |= {"networks": [network], "cell_fault_rates": [0.01], "sram": {"structures": ["column"]}}
        content |= {"dataset": {"name": "cifar10", "root": cifar10, "test_images": images}}
    return parse_study(content, name)


def compare(name: str, goal: str, cifar10: str | None, images: int | None = None) -> str:
    """A line of the table."""
    study = study_of(name, goal, cifar10, images)
    with tempfile.TemporaryDirectory() as where:
        folder = StudyFolder(Path(where) / "out", study)
        points, costs = prepare(folder, silent), chip_costs(folder)
        bench = bench_of(str(folder.path), stamp_of(str(folder.path)))
        wanted = partial(plan, study, points, costs=costs)
        first = wanted({})[0]
        bench.measure(first)  # what is compiled and loaded, and the answers without faults, are of both sides
        start = time.process_time()
        collect(folder.rows, wanted, partial(run_chunk, str(folder.path)), choose(workers=1))
        sampled, rows = time.process_time() - start, folder.rows.read()
        parts: dict[str, dict[int, list]] = {}
        for task in wanted(rows):
            parts.setdefault(task.point.protection, {}).setdefault(task.chip, []).append(rows[task.key])
        bare, *ours = [[added(found) for found in chips.values()] for chips in parts.values()]
        start = time.process_time()
        for chip in range(CHIPS):
            for point in points:
                bench.measure(Task(point, 4_000 + chip, first.at))
        a_chip = (time.process_time() - start) / CHIPS
    spread = Variance.of_gains(ours[0], bare) if ours else Variance.of(bare)
    accuracy, n = np.array([row.accuracy for row in bare]), len(bare)
    found = np.array([row.accuracy for row in ours[0]]) - accuracy if ours else accuracy
    apart = spread.between**0.5
    half = 100 * student(0.975, n - 1) * found.std(ddof=1) / n**0.5
    fixed = next(k for k in range(2, 10**6) if student(0.975, k - 1) * apart / k**0.5 <= half / 100)
    every, took = bare[0].test_images, fixed * a_chip
    mine = f"{n} x {bare[0].total} | {sampled:.1f} | {half:.2f}"
    theirs = f"{fixed} x {every:,} | {took:,.1f} | {took / sampled:.1f}"
    return f"| {name} | {'gain' if ours else 'mean'} | {every:,} | {100 * apart:.1f} | {mine} | {theirs} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["digits"], help="of digits, resnet14, resnet18")
    parser.add_argument("--cifar10", help="folder of its binary version, for the ResNets")
    parser.add_argument("--images", type=int, help="so many test images of it; all 10,000 without")
    asked = parser.parse_args()
    if unknown := set(asked.networks) - {"digits", "resnet14", "resnet18"}:
        parser.error(f"{unknown.pop()}: none of digits, resnet14, resnet18")
    print(processor())
    print(
        "| network | of | test images | chips differ by (points) | chips x images, sampled | processor s | half-width "
        "| chips x images, fixed | processor s (chips timed x as many) | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in asked.networks:
        for goal in ("half_width_points", "gain_half_width_points"):
            print(compare(name, goal, asked.cifar10, asked.images), flush=True)


if __name__ == "__main__":
    main()
