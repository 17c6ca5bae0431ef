"""Cycles a second of the array in SystemVerilog, one core; the goal is a million on 8 x 8.

python -m benchmarks.speed.device_rtl
"""

import dataclasses
import statistics
import time

import numpy as np

from simulator.accelerator import accelerator
from simulator.device.rtl.chip import RtlChip
from sram import faultmap
from sram.geometry import Geometry

SIZES = ((8, 8), (32, 32))
REPEATS = 5


def main() -> None:
    chip_map = faultmap.generate(0, Geometry.of_capacity(256 * 1024), "ibm14", voltage_floor=0.75)
    rng = np.random.default_rng(0)
    for rows, cols in SIZES:
        for dataflow in ("os", "ws"):
            for overlap in (False, True):
                machine = dataclasses.replace(
                    accelerator("paper"),
                    array_rows=rows,
                    array_cols=cols,
                    dataflow=dataflow,
                    double_buffered_registers=overlap,
                    skip_idle_rows=True,
                )
                with RtlChip(chip_map, machine) as chip:
                    chip.write(0, rng.integers(0, 1 << 63, chip.info.words, dtype=np.uint64))
                    chip.set_voltage(0.8)
                    activations = rng.integers(-128, 128, (512, 8 * rows)).astype(np.int8)
                    rates = []
                    for _ in range(REPEATS):
                        begin = time.process_time()
                        _, counters = chip.multiply(activations, 0, 16 * cols)
                        rates.append(counters.cycles / (time.process_time() - begin))
                mode = "double-buffered" if overlap else "plain"
                rate = statistics.median(rates)
                print(f"{rows:>2} x {cols:<2} {dataflow} {mode:<15} {rate / 1e6:6.2f} Mcycles/s")


if __name__ == "__main__":
    main()
