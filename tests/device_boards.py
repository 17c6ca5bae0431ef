"""Boards for the tests' servers: NumPy only, no faults. Also what a lab's driver module looks like to `serve`."""

import os
import time

import numpy as np

from simulator.device.board import Board, BoardMemory, unpack_weights
from simulator.device.protocol import Counters, DeviceInfo, LinkLost


class Words(BoardMemory):
    """Words in an array."""

    def __init__(self, info, **board):
        super().__init__(info, **board)
        self.words = np.zeros(self.info.words, np.uint64)

    def store(self, address, words):
        self.words[address : address + len(words)] = words

    def fetch(self, address, count):
        return self.words[address : address + count].copy()

    def supply(self, voltage):
        return voltage


class Plain(Words, Board):
    """Two memories. On release it writes its voltages to the file named by PLAIN_LOG, if there is one."""

    def __init__(self):
        supply = {"voltage_unit": "V", "voltage_nominal": 0.9, "voltage_lowest": 0.5, "voltage_step": 0.025}
        buffer = DeviceInfo("plain", 2, 16, 64, 32, **supply | {"voltage_lowest": 0.6}, memory="activations")
        super().__init__(DeviceInfo("plain", 1, 128, 32, 16, **supply), others=[Words(buffer)])

    def multiply(self, activations, address, n):
        k = activations.shape[1]
        weights = unpack_weights(self.words, self.info.word_bits)[address : address + n * k].reshape(n, k)
        return activations.astype(np.int32) @ weights.T.astype(np.int32), Counters(cycles=1, energy_pj=2.5)

    def release(self):
        if "PLAIN_LOG" in os.environ:
            with open(os.environ["PLAIN_LOG"], "w") as file:
                file.write("released at " + " and ".join(str(each.voltage) for each in self.memories.values()))


class Slow(Plain):
    """Reads take SLOW_S seconds."""

    def fetch(self, address, count):
        time.sleep(float(os.environ.get("SLOW_S", "30")))
        return super().fetch(address, count)


class Broken(Plain):
    """A driver with a bug: reading one word beyond the middle raises, as a bus error would."""

    def fetch(self, address, count):
        if address > self.info.words // 2:
            raise RuntimeError("bus error")
        return super().fetch(address, count)


class Lossy(Plain):
    """Loses its link after the reads of two voltages."""

    reads = 0

    def fetch(self, address, count):
        self.reads += 1
        if self.reads > 2 * 4 * 8:
            raise LinkLost("the link was cut")
        return super().fetch(address, count)
