"""Words a second through the remote backend on loopback against the simulated one in process; calls a second.

python -m benchmarks.speed.device_link
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simulator.device.protocol import Device
from simulator.device.remote import RemoteDevice
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.geometry import Geometry

REPEATS = 9


def seconds(work: Callable[[], object]) -> float:
    """Median of REPEATS runs after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def rates(device: Device, count: int) -> tuple[float, float]:
    """Words a second written and read, `count` words a call."""
    words = np.random.default_rng(0).integers(0, 1 << 63, count, dtype=np.uint64)
    calls = min(1000, max(1, (1 << 18) // count))
    device.set_voltage(0.8)

    def write() -> None:
        for _ in range(calls):
            device.write(0, words)

    def read() -> None:
        for _ in range(calls):
            device.read(0, count)

    return calls * count / seconds(write), calls * count / seconds(read)


def main() -> None:
    chip = faultmap.generate(0, Geometry.of_capacity(256 * 1024), "ibm14", "column", voltage_floor=0.75)
    with tempfile.TemporaryDirectory() as folder:
        path = faultmap.save(chip, Path(folder) / "chip.npz")
        command = [sys.executable, "-m", "neuralfuse", "device", "serve", f"simulated:{path}", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            print(f"{'words a call':>12} {'':>7} {'in process':>14} {'loopback':>14} {'ratio':>7}")
            with SimulatedChip(chip) as local, RemoteDevice(address) as remote:
                for count in (1, 64, 4096, 32768):
                    for what, here, there in zip(
                        ("write", "read"), rates(local, count), rates(remote, count), strict=True
                    ):
                        print(f"{count:>12,} {what:>7} {here:>12,.0f}/s {there:>12,.0f}/s {there / here:>7.1%}")
            server.terminate()


if __name__ == "__main__":
    main()
