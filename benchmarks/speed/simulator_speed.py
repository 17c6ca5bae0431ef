"""How long does a network take in closed form, with its schedules searched, and how long a sweep over 10,000
accelerators with theirs searched?

python -m benchmarks.speed.simulator_speed [--points 10000]
"""

import argparse
import os
import time
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from neuralfuse import networks
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.designsweep import sweep
from simulator.readers.read import trace

KB = 1024


def designs(points: int) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
    """Array shapes and buffer capacities; with three dataflows at least `points` combinations."""
    sides = (8, 12, 16, 24, 32, 48, 64, 96, 128)
    arrays = [(rows, cols) for rows in sides for cols in sides if 1 / 4 <= rows / cols <= 4]
    sizes = (32, 48, 64, 96, 128, 192, 256)
    buffers = [(a * KB, b * KB, c * KB) for a in sizes for b in sizes for c in sizes]
    keep = -(-points // (3 * len(arrays)))
    return arrays, buffers[:: max(1, len(buffers) // keep)][:keep]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    points = parser.parse_args().points
    console = Console(soft_wrap=True)
    machine = accelerator("paper")
    for name, side, classes in (("resnet18", 32, 10), ("resnet18", 224, 1000), ("vgg16", 224, 1000)):
        network = networks.build(name, num_classes=classes, in_channels=3)
        workload = trace(network, (3, side, side), name=name)
        ideal = replace(machine, dram_bytes_per_cycle=float("inf"), dram_latency_cycles=0)
        searched = replace(machine, schedule="search")
        for label, each in (("closed form", ideal), ("with DRAM stalls", machine), ("schedules searched", searched)):
            times = []
            for _ in range(6):
                begin = time.perf_counter()
                counts = simulate(workload, each)
                times.append(time.perf_counter() - begin)
            what = f"{name} at {side}x{side}, {len(workload.layers)} layers, {label}"
            first, best = times[0] * 1e3, min(times[1:]) * 1e3
            print(f"{what}: best of 5 {best:.1f} ms (first call {first:.0f} ms), {counts.cycles:,} cycles")

    workload = trace(networks.build("resnet18", num_classes=10, in_channels=3), (3, 32, 32), name="resnet18")
    arrays, buffers = designs(points)
    begin, spent = time.perf_counter(), time.process_time()
    with Progress(console=console) as bar:
        task = bar.add_task("design sweep", total=len(arrays) * len(buffers) * 3)
        base = replace(machine, schedule="search")
        found = sweep(workload, base, arrays, buffers, progress=lambda done, _: bar.update(task, completed=done))
    seconds, spent = time.perf_counter() - begin, time.process_time() - spent
    console.print(
        f"{len(arrays)} arrays x {len(buffers)} sets of buffers x 3 dataflows: schedules, cycles, energy of ResNet18"
    )
    each = 1e3 * seconds / len(found)
    cores = f"{os.cpu_count()} cores, {spent:.1f} CPU seconds"
    print(f"{len(found):,} designs in {seconds:.1f} s on {cores}, {each:.2f} ms a design")


if __name__ == "__main__":
    main()
