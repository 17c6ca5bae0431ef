"""Time to characterise a 256 KB SRAM at 8 voltages: the simulated chip, and the same chip through loopback TCP.

python -m benchmarks.speed.device_characterize
"""

import threading
import time

import numpy as np

from simulator.device.characterize import characterize
from simulator.device.protocol import Device
from simulator.device.readings import PATTERNS
from simulator.device.remote import RemoteDevice
from simulator.device.serve import Server
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.geometry import Geometry

VOLTAGES = np.linspace(0.89, 0.75, 8)
REPEATS = 8


def timed(name: str, device: Device) -> None:
    begin = time.perf_counter()
    found = characterize(device, VOLTAGES, REPEATS, stop_rate=1.0)
    read = time.perf_counter() - begin
    cells = len(found.fault_map())
    whole = time.perf_counter() - begin
    bits = found.geometry.cells * len(found.voltages) * len(PATTERNS) * REPEATS
    rate = bits / read / 1e9
    print(f"{name:<10} read {read:6.2f} s ({rate:.2f} Gbit/s), map of {cells:,} weak cells {whole - read:6.2f} s")


def main() -> None:
    chip = faultmap.generate(0, Geometry.of_capacity(256 * 1024), "ibm14", "column", voltage_floor=0.75)
    print(f"256 KB, {len(VOLTAGES)} voltages, {len(PATTERNS)} patterns, {REPEATS} reads of each")
    with SimulatedChip(chip) as device:
        characterize(device, VOLTAGES[:1], 1)  # what compiles, compiles
        timed("in process", device)
        server = Server(device)
        thread = threading.Thread(target=server.run)
        thread.start()
        with RemoteDevice(f"127.0.0.1:{server.address[1]}") as remote:
            timed("loopback", remote)
        server.stop()
        thread.join()


if __name__ == "__main__":
    main()
