"""One Device protocol; simulated, remote and RTL chips; characterisation.

Importing this package loads neither Numba nor pandas, so that a board with only Python and NumPy can serve.
"""

import re
from typing import TYPE_CHECKING

from sram.errors import InputError

if TYPE_CHECKING:
    from simulator.device.protocol import Device


def open_device(spec: str, machine: str = "paper", voltage_step: float = 0.01, secret: str | None = None) -> "Device":
    """The device that `spec` names: simulated:MAP.npz, rtl:MAP.npz, tcp:HOST:PORT, or driver:MODULE:CLASS.

    The map is that of the weight memory; of a simulated or RTL chip others follow as ,NAME=MAP.npz, such as
    simulated:w.npz,activations=a.npz. `machine` (accelerator preset or file) and `voltage_step` are of the first two,
    `secret` of the third.
    InputError; DeviceError where it does not answer.
    """
    kind, _, rest = spec.partition(":")
    if kind == "tcp":
        from simulator.device.remote import RemoteDevice

        return RemoteDevice(rest, secret)
    if kind == "driver":
        from simulator.device.serve import load_driver

        return load_driver(rest)
    if kind not in ("simulated", "rtl") or not rest:
        raise InputError("device", "spec", spec, "simulated:MAP.npz, rtl:MAP.npz, tcp:HOST:PORT, driver:MODULE:CLASS")
    from simulator.device.simulated import SimulatedChip, SimulatedMemory
    from sram import faultmap

    weights, *named = re.split(",([a-z]+)=", rest)
    fault_map, maps = faultmap.load(weights), zip(named[::2], named[1::2], strict=True)
    others = [SimulatedMemory(faultmap.load(path), name, voltage_step) for name, path in maps]
    if kind == "rtl":
        from simulator.device.rtl.chip import RtlChip

        return RtlChip(fault_map, machine, voltage_step, others)
    return SimulatedChip(fault_map, machine, voltage_step, others)
