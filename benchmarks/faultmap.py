"""Fault maps against the same in numpy, both sides in one process: dense, sparse over a sweep, another voltage, memory.

python benchmarks/faultmap.py [--cells-log2 30] [--repeats 3]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numba
import numpy as np

from sram import failure, faultmap
from sram.geometry import Geometry


def median_s(repeats, work):
    """Median seconds of `work()`, after one call to warm up (compilation, page tables)."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


THREADS = sorted({1, numba.config.NUMBA_NUM_THREADS})  # one, and all


def dense(curve, repeats):
    """A bool for every cell, against numpy's `rand(n) < p`; 2^26 cells, numpy in pieces that stay in cache."""
    geometry = Geometry(2048)
    for rate in (1e-2, 1e-3):
        voltage = float(curve.voltage(rate))

        def numpy_side(rate=rate):
            out = np.empty(geometry.cells, np.bool_)
            for start in range(0, geometry.cells, 1 << 16):
                out[start : start + (1 << 16)] = np.random.rand(1 << 16) < rate  # noqa: NPY002 the call that is compared with
            return out

        theirs = median_s(repeats, numpy_side)
        for threads in THREADS:
            for structure in ("iid", "column"):
                ours = median_s(
                    repeats,
                    lambda s=structure, v=voltage, t=threads: faultmap.dense(
                        1, geometry, curve, s, voltage=v, threads=t
                    ),
                )
                print(
                    f"dense map, rate {rate:g}, {structure}, {threads} thread(s): {geometry.cells / ours:.3g} cells/s, "
                    f"numpy rand(n) < p {geometry.cells / theirs:.3g} cells/s: {theirs / ours:.1f}x"
                )


def sparse(curve, cells_log2, repeats):
    """All weak cells at rate 1e-3 with their critical voltages, sorted: every voltage of a sweep at once."""
    geometry = Geometry((1 << cells_log2) // (512 * 64))
    floor = float(curve.voltage(1e-3))

    def numpy_side():
        random, parts = np.random.default_rng(0), []
        for start in range(0, geometry.cells, 1 << 18):
            weakness = random.random(1 << 18)
            cell = np.flatnonzero(weakness < 1e-3)
            parts.append(
                (cell + start, curve.voltage(weakness[cell]).astype(np.float32), random.random(len(cell)) < 0.5)
            )
        cell, critical, kind = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(-critical)
        return cell[order], critical[order], kind[order]

    theirs = median_s(1, numpy_side)
    for threads in THREADS:
        for structure in ("iid", "column"):
            ours = median_s(
                repeats,
                lambda s=structure, t=threads: faultmap.generate(1, geometry, curve, s, voltage_floor=floor, threads=t),
            )
            print(
                f"sparse map, {geometry.cells / 2**30:g} Gbit at rate 1e-3, {structure}, {threads} thread(s): "
                f"{ours * 1e3:.0f} ms, numpy {theirs * 1e3:.0f} ms: {theirs / ours:.1f}x"
            )


def another_voltage(curve, repeats):
    """The map in hand, a million weak cells: the faults at another voltage."""
    fault_map = faultmap.generate(1, Geometry(3200), curve, voltage_floor=float(curve.voltage(1e-2)))
    voltages = np.linspace(fault_map.voltage_floor, curve.nominal, 100)
    each = median_s(repeats, lambda: [fault_map.at(v) for v in voltages]) / len(voltages)
    print(f"another voltage, map of {len(fault_map):,} weak cells: {each * 1e6:.0f} us")


def memory(curve):
    """Peak memory of a process that makes a 1 Gbit map at 1%, above what it held before."""
    code = (
        "import resource; from sram import failure, faultmap; from sram.geometry import Geometry;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "curve = failure.curve('ibm14'); faultmap.generate(0, Geometry(1), curve, voltage_floor=0.85); before = peak();"
        f"m = faultmap.generate(0, Geometry(32768), curve, voltage_floor={float(curve.voltage(1e-2))});"
        "print(len(m), before / 1024, peak() / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cells, before, after = done.stdout.split()
    unit = "MB" if sys.platform != "darwin" else "kB"
    print(
        f"memory, 1 Gbit at 1% ({int(cells):,} weak cells): {float(after) - float(before):.0f} {unit} above "
        f"{float(before):.0f} {unit} of interpreter and libraries"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells-log2", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    curve = failure.curve("ibm14")
    memory(curve)
    another_voltage(curve, arguments.repeats)
    dense(curve, arguments.repeats)
    sparse(curve, arguments.cells_log2, arguments.repeats)
    print(f"peak memory of all this: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
