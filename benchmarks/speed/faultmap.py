"""Fault maps against the same in numpy, both sides in one process and in turns: dense, sparse, another voltage, memory.

    python -m benchmarks.speed.faultmap [--gbit 1] [--repeats 5]

One thread is compared in seconds of processor time, which other work on the machine stretches least; all threads in
seconds of the clock on the wall. Medians of the repeats.
"""

import argparse
import statistics
import subprocess
import sys
import time

import numba
import numpy as np

from sram import failure, faultmap
from sram.geometry import Geometry
from sram.memory import Chip, Memory
from sram.structure import structure as structure_of

THREADS = sorted({1, numba.config.NUMBA_NUM_THREADS})  # one, and all
MEMORY = """
import resource, sys
from sram import failure, faultmap
from sram.geometry import Geometry
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
faultmap.generate(0, Geometry(1), "ibm14", voltage_floor=0.85)
before = peak()
fault_map = faultmap.generate(0, Geometry(32768), "ibm14", voltage_floor=float(failure.curve("ibm14").voltage(1e-2)))
print(len(fault_map), before, peak())
"""


def race(title, unit, ours, theirs, repeats):
    """Print how much faster `ours(threads)` is than `theirs()`, which knows no threads."""
    ours(1)  # compiles
    for threads in THREADS:
        clock = time.process_time if threads == 1 else time.perf_counter
        seconds = {ours: [], theirs: []}
        for _ in range(repeats):
            for side, arguments in ((theirs, ()), (ours, (threads,))):
                start = clock()
                side(*arguments)
                seconds[side].append(clock() - start)
        a, b = statistics.median(seconds[ours]), statistics.median(seconds[theirs])
        print(f"{title}, {threads} thread(s): {unit(a)}, numpy {unit(b)}: {b / a:.0f}x", flush=True)


def dense(curve, repeats):
    """A bool for every cell of 2^24, against numpy's `rand(n) < p`."""
    geometry = Geometry(512)
    for rate in (1e-2, 1e-3):
        voltage = float(curve.voltage(rate))
        race(
            f"dense map, rate {rate:g}",
            lambda seconds: f"{geometry.cells / seconds:.3g} cells/s",
            lambda threads, v=voltage: Chip(1).dense(Memory(geometry, curve), v, threads=threads),
            lambda rate=rate: np.random.rand(geometry.cells) < rate,  # noqa: NPY002  the yardstick
            repeats,
        )


def numpy_map(curve, geometry, structure, rate):
    """Every weak cell of a chip, its critical voltage and polarity, sorted: the same model cell by cell in numpy."""
    random, parts, eight = np.random.default_rng(0), [], geometry.cells_per_bank * 8
    shape = (8, geometry.rows, geometry.columns)
    for start in range(0, geometry.cells, eight):  # in pieces that stay in cache
        if structure == "iid":
            weakness = random.random(eight)  # failure probability at which the cell begins to fail
            cell = np.flatnonzero(weakness < rate)
            critical = curve.voltage(weakness[cell])
        else:
            shares = structure_of(structure)
            z = random.standard_normal((8, 1, geometry.columns))
            latent = shares.cell**0.5 * random.standard_normal(shape)
            latent += shares.bank**0.5 * random.standard_normal((8, 1, 1))
            latent += shares.column_scale * z * np.exp(shares.tail * z * z / 2)
            latent = latent.reshape(-1)
            cell = np.flatnonzero(latent > -curve.z(curve.voltage(rate)))
            critical = curve.critical_voltage(latent[cell])
        parts.append((cell + start, critical.astype(np.float32), random.random(len(cell)) < 0.5))
    cell, critical, kind = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-critical)
    return cell[order], critical[order], kind[order]


def sparse(curve, gbit, repeats):
    """All weak cells at rate 1e-3 with their critical voltages, sorted: every voltage of a sweep at once."""
    geometry = Geometry(round(gbit * 2**30) // (512 * 64))
    floor = float(curve.voltage(1e-3))
    for structure in ("iid", "column"):
        race(
            f"sparse map, {gbit:g} Gbit at rate 1e-3, {structure}",
            lambda seconds: f"{seconds * 1e3:.0f} ms",
            lambda threads, s=structure: Chip(1).fault_map(Memory(geometry, curve, s), floor, threads=threads),
            lambda s=structure: numpy_map(curve, geometry, s, 1e-3),
            repeats,
        )


def another_voltage(curve, repeats):
    """The map in hand, a million weak cells: the faults at another voltage."""
    fault_map = faultmap.generate(1, Geometry(3200), curve, voltage_floor=float(curve.voltage(1e-2)))
    voltages, seconds = np.linspace(fault_map.voltage_floor, curve.nominal, 100), []
    for voltage in voltages.tolist() * repeats:
        start = time.perf_counter()
        fault_map.at(voltage)
        seconds.append(time.perf_counter() - start)
    print(f"another voltage, map of {len(fault_map):,} weak cells: {statistics.median(seconds) * 1e6:.0f} us")


def memory():
    """Peak memory of a process that makes a 1 Gbit map at 1%, above what it held before."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    cells, before, after = map(float, done.stdout.split())
    print(
        f"memory, 1 Gbit at 1% ({cells:,.0f} weak cells): {after - before:.0f} MB at the peak, "
        f"above {before:.0f} MB of interpreter and libraries"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbit", type=float, default=1.0, help="size of the sparse map")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    curve = failure.curve("ibm14")
    memory()
    another_voltage(curve, arguments.repeats)
    dense(curve, arguments.repeats)
    sparse(curve, arguments.gbit, arguments.repeats)


if __name__ == "__main__":
    main()
