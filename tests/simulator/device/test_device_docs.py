"""Does the driver in docs/tutorials/chip.md work? Its board is played by NumPy arrays behind a module named pynq."""

import re
import struct
import sys
import types

import numpy as np

from simulator.device.board import pack_weights
from simulator.device.protocol import Device
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "tutorials" / "chip.md"


class Buffer(np.ndarray):
    """A contiguous buffer with an address of its own."""

    known: dict = {}  # noqa: RUF012

    def flush(self):
        pass

    invalidate = flush

    @property
    def device_address(self):
        Buffer.known[id(self) & 0xFFFFFFFF] = self
        return id(self) & 0xFFFFFFFF


class Fabric:
    """The registers of the array, and what pulsing start does."""

    window = np.zeros(64 * 512 * 64 // 32, np.uint32)

    def __init__(self, base, length):
        self.array = self.window if base == 0x4000_0000 else None
        self.values = {}

    def write(self, register, value):
        self.values[register] = value
        if register == 0:
            m, k, n, weights, given, sums = (self.values[4 * i] for i in range(2, 8))
            stored = self.window.view(np.int8)[weights : weights + n * k].reshape(n, k)
            Buffer.known[sums][:] = Buffer.known[given].astype(np.int32) @ stored.T.astype(np.int32)
            self.values[32] = m * n * k

    def read(self, register):
        return self.values.get(register, 0)


class Rail:
    """A PMBus regulator with steps of 2^-9 V on the other end of an I2C file."""

    reply, code = b"", 512

    def write(self, data):
        if len(data) == 3:
            self.code = struct.unpack("<H", data[1:])[0]
        self.reply = {0x20: bytes([32 - 9]), 0x8B: struct.pack("<H", self.code)}.get(data[0], b"")

    def read(self, count):
        return self.reply[:count]


def test_the_driver_on_the_page_drives_a_board(monkeypatch):
    source = next(
        code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class PynqChip" in code
    )
    pynq = types.ModuleType("pynq")
    freed = []
    pynq.Overlay = lambda bitstream: types.SimpleNamespace(free=lambda: freed.append(bitstream))
    pynq.MMIO = Fabric
    pynq.allocate = lambda shape, dtype: np.zeros(shape, dtype).view(Buffer)
    monkeypatch.setitem(sys.modules, "pynq", pynq)
    monkeypatch.setattr("fcntl.ioctl", lambda *_: 0)
    rail = Rail()
    page = {"open": lambda *_, **__: rail}
    exec(compile(source, str(PAGE), "exec"), page)
    rng = np.random.default_rng(0)
    with page["PynqChip"]() as chip:
        assert isinstance(chip, Device)
        weights = rng.integers(-128, 128, (5, 7)).astype(np.int8)
        chip.write(0, pack_weights(weights))
        assert (chip.read(0, 5) == pack_weights(weights)).all()
        assert chip.set_voltage(0.753) == 0.75
        assert abs(chip.set_voltage(0.73) - 0.73) < 2**-9
        activations = rng.integers(-128, 128, (3, 7)).astype(np.int8)
        sums, counters = chip.multiply(activations, 0, 5)
        assert (sums == activations.astype(int) @ weights.T.astype(int)).all()
        assert counters.cycles == 105
    assert rail.code == 512
    assert freed == ["chip.bit"]
