"""How many chips must be measured to know how rare a bad one is: drawn where failures are, against counting.

    python -m benchmarks.speed.rare [--count N --kept FOLDER] [--voltage V] [--points P ...] [--maps N] [--measured N]

ResNet8 on 128 digits; a chip fails that loses more than so many accuracy points. Counted chips are numbered from 0, and
kept in a folder five hundred at a time, so that a run that was killed goes on; those of estimates from 10 million on.
"""

import argparse
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np

from benchmarks.speed.report_speed import processor
from neuralfuse.analysis.rare import Rare, estimate
from neuralfuse.analysis.rare_chips import GLANCE, Chips
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.bench import Bench
from sram.files import write_atomic
from sram.progress import silent

FIRST, BLOCK, IMAGES = 10_000_000, 500, 128


def study_of(voltage: float) -> StudyConfig:
    """One network, columns that share most of their variation."""
    content = {"name": "rare", "networks": ["resnet8"], "voltages": [voltage], "sram": {"structures": ["column"]}}
    return parse_study(content | {"dataset": {"name": "digits", "test_images": IMAGES}}, "rare")


def counted(chips: Chips, count: int, kept: Path) -> np.ndarray:
    """Images that each chip loses, of the first so many (count,)."""
    kept.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, BLOCK):
        file = kept / f"{first:07d}.npy"
        if not file.is_file():
            buffer = BytesIO()
            np.save(buffer, np.array([chips.lost(chip) for chip in range(first, first + BLOCK)], np.int16))
            write_atomic(file, buffer.getvalue())
    return np.concatenate([np.load(kept / f"{first:07d}.npy") for first in range(0, count, BLOCK)])[:count]


def images_of(found: Rare) -> int:
    """What a network answered to, for an estimate."""
    return found.measured * IMAGES + found.glances * GLANCE


def line(name: str, found: Rare, seconds: float) -> str:
    shared = f"{found.share:.2e} | {100 * found.error:.0f}"
    images = images_of(found)
    spent = f"{found.maps:,} | {found.glances:,} | {found.measured:,} | {found.failed} | {images:,} | {seconds:,.0f}"
    return f"| {name} | {shared} | {spent} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=0, help="chips that are counted, all measured")
    parser.add_argument("--kept", type=Path, help="folder of what is counted")
    parser.add_argument("--voltage", type=float, default=0.895)
    parser.add_argument("--points", type=float, nargs="*", default=[20.0])
    parser.add_argument("--maps", type=int, default=10_000)
    parser.add_argument("--glances", type=int, default=2000)
    parser.add_argument("--measured", type=int, default=350)
    parser.add_argument("--estimates", type=int, default=3)
    asked = parser.parse_args()
    print(processor())
    print("| chips, points | share that loses more | its error (%) | maps | glances | measured | failed | images | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as where:
        folder = StudyFolder(Path(where) / "out", study_of(asked.voltage))
        prepare(folder, silent)
        bench = Bench(folder)
        for points in asked.points:
            chips = Chips(bench, "resnet8", "column", asked.voltage, points)
            if asked.count:
                start = time.process_time()
                lost = counted(chips, asked.count, asked.kept or Path(where))
                failed = int((lost > points * len(bench.labels) / 100).sum())
                share, n = failed / len(lost), len(lost)
                error = ((1 - share) / failed) ** 0.5 if failed else np.nan
                spent = time.process_time() - start
                print(line(f"counted, {points:g}", Rare(share, error, n, failed, 0, n), spent), flush=True)
            drawn: list[float] = []
            for k in range(asked.estimates):
                start = time.process_time()
                found = estimate(chips, asked.maps, asked.glances, asked.measured, FIRST + k * asked.maps)
                print(line(f"drawn, {points:g}", found, time.process_time() - start), flush=True)
                if found.failed:
                    whole = IMAGES * (1 - found.share) / found.share / found.error**2  # counting, to the same error
                    drawn.append(whole / images_of(found))
            if drawn:
                print(f"counting takes {min(drawn):.0f} to {max(drawn):.0f} times the images to the errors stated")


if __name__ == "__main__":
    main()
