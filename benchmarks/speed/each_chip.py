"""Each chip's own lowest supply: how many images it takes against all of them at all supplies, and whether it is the
same; and how many chips are not monotone, which a bisection takes for granted.

    python -m benchmarks.speed.each_chip [--chips N] [--within POINTS ...]

The whole grid is swept first; the descents then are those that a folder without it would make.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.speed.report_speed import processor
from neuralfuse.results.rows import Result
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.each_chip import Descent, ladders
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from neuralfuse.sweep.task import Task
from neuralfuse.training.loop import threads
from sram.progress import silent

VOLTAGES = [0.94, 0.93, 0.92, 0.91, 0.9, 0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.83, 0.82]


def study_of(chips: int) -> StudyConfig:
    """The digits at supplies from where nothing is lost to where no chip holds."""
    content = {"name": "each chip", "networks": ["resnet8"], "voltages": VOLTAGES, "chips": {"evaluation": chips}}
    return parse_study(content | {"sram": {"structures": ["column", "iid"]}}, "each chip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--within", type=float, nargs="*", default=[1.0, 2.0, 5.0], help="points of clean")
    asked = parser.parse_args()
    print(processor())
    print("| maps | within (points) | images measured (%) | same as by all images | not monotone (%) |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as where:
        folder = StudyFolder(Path(where) / "out", study_of(asked.chips))
        run_study(folder, choose(workers=1), silent)
        whole = dict(folder.rows.read())
        bench, parts = Bench(folder), {}
        for ladder in ladders(folder.study, points_of(folder)):
            for within in asked.within:
                print(compare(Descent(ladder, len(bench.labels), within, parts), bench, whole), flush=True)


def compare(descent: Descent, bench: Bench, whole: dict[str, Result]) -> str:
    """A line of the table; `descent.rows` grow."""
    ladder, every, chips = descent.ladder, descent.images, bench.study.chips.numbers
    rows: dict[str, Result] = descent.rows  # type: ignore[assignment]
    images, same, uneven = 0, 0, 0
    for chip in chips:
        while not (own := descent.own(chip)).settled:
            with threads(1):
                (task,) = {task.key: task for task in descent.wanted if task.key not in rows}.values()
                rows[task.key] = bench.measure(task)
        images += own.images
        counted = [whole[Task(ladder.point, chip, at).key] for at in ladder.supplies]
        lost = np.array([row.correct_clean - row.correct for row in counted])
        holds = 100 * lost <= descent.points * every
        uneven += bool((np.diff(holds.astype(int)) > 0).any())
        same += own.level == _bisected(holds)
    share = 100 * images / (len(chips) * len(ladder.supplies) * every)
    found = f"{same} of {len(chips)} | {100 * uneven / len(chips):.0f}"
    return f"| {ladder.point.structure} | {descent.points:g} | {share:.0f} | {found} |"


def _bisected(holds: np.ndarray) -> int:
    """Where a bisection ends that knows all images."""
    low, high = 0, len(holds) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds[middle - 1] else (low, middle)
    return low


if __name__ == "__main__":
    main()
