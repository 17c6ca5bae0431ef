"""The base of everything that is a chip: checks what is asked, and leaves five small verbs to the driver, of which
three are those of a memory.

A lab that has a board writes a Board with these verbs (docs/tutorials/chip.md shows one) and puts it behind `neuralfuse
device serve`, or `python -m simulator.device.serve` on a board that has only Python and NumPy.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.device.program import InArray, Program, ReadBack, execute
from simulator.device.protocol import Counters, Device, DeviceInfo, DeviceMemory, Run, as_words, check_span
from sram.errors import InputError


class BoardMemory(DeviceMemory):
    """A memory at hand. The driver's verbs get arguments that are already checked. `voltage` is what was reached
    last."""

    def __init__(self, info: DeviceInfo):
        self._info = info
        self.voltage = info.voltage_nominal

    # The driver's part.

    @abstractmethod
    def store(self, address: int, words: NDArray[np.uint64]) -> None:
        """Write words[n] to the memory from word address on."""

    @abstractmethod
    def fetch(self, address: int, count: int) -> NDArray[np.uint64]:
        """Read count words from word address on, at the present voltage."""

    @abstractmethod
    def supply(self, voltage: float) -> float:
        """Move the supply to a step within the range; returns the voltage reached, as measured if there is a meter."""

    # The protocol.

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def write(self, address: int, words: ArrayLike) -> None:
        self.store(address, as_words(self.info, address, words))

    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        check_span(self.info, address, count)
        return self.fetch(address, count)

    def set_voltage(self, voltage: float) -> float:
        self.voltage = self.supply(self.info.reached(voltage))
        return self.voltage


class Board(BoardMemory, Device):
    """A chip at hand: its weight memory, an array, and `others`, memories with names of their own.

    `read_back` is the activation memory of a program with units: what its stored words become, in place. Where one of
    the others is named "activations", they are written to it and read again, each image's tensor from byte 0 on, in
    parts of the memory's size where it is larger. `in_array`: what sums become inside the array.
    """

    def __init__(self, info: DeviceInfo, others: Sequence[BoardMemory] = ()):
        super().__init__(info)
        self._memories: dict[str, BoardMemory] = {"weights": self, **{other.info.memory: other for other in others}}
        names = [info.memory, *(other.info.memory for other in others)]
        if names != list(self._memories):
            raise InputError(info.name, "memories", names, "weights, and others of names of their own")
        self.read_back: ReadBack = lambda tensor, words: None
        if "activations" in self._memories:
            self.read_back = self._through_memory
        self.in_array: InArray = lambda place, words, sums: None
        self._program: Program | None = None
        self._closed = False

    # The driver's part.

    @abstractmethod
    def multiply(self, activations: NDArray[np.int8], address: int, n: int) -> tuple[NDArray[np.int32], Counters]:
        """Sums int32[m, n] of activations[m, k] with the weights int8[n, k] at byte address, read at the present
        voltage."""

    def release(self) -> None:
        """Let go of the hardware."""

    # The protocol.

    @property
    def memories(self) -> Mapping[str, BoardMemory]:
        return self._memories

    def load(self, program: Program) -> None:
        if program.weight_bytes > self.info.capacity_bytes:
            allowed = f"at most {self.info.capacity_bytes}, the weight memory of {self.info.name}"
            raise InputError("program", "weight_bytes", program.weight_bytes, allowed)
        self._program = program

    def run(self, batch: ArrayLike) -> Run:
        if self._program is None:
            raise InputError(self.info.name, "run", "no network", "a network loaded before it is run")
        spent = Counters()

        def matmul(activations: NDArray[np.int8], address: int, n: int) -> NDArray[np.int32]:
            nonlocal spent
            sums, counters = self.multiply(activations, address, n)
            spent += counters
            return sums

        outputs = execute(self._program, np.asarray(batch, dtype=np.float32), matmul, self.read_back, self.in_array)
        return Run(outputs, spent)

    def _through_memory(self, tensor: int, words: NDArray[np.int8]) -> None:
        """Words int8[images, elements] of a stored tensor as the activation memory reads them, in place."""
        memory = self._memories["activations"]
        for image in words:
            for start in range(0, len(image), memory.info.capacity_bytes):
                part = image[start : start + memory.info.capacity_bytes]
                packed = pack_weights(part, memory.info.word_bits)
                memory.store(0, packed)
                part[:] = unpack_weights(memory.fetch(0, len(packed)), memory.info.word_bits)[: len(part)]

    def reset(self) -> None:
        self.to_nominal()
        for memory in self._memories.values():
            memory.store(0, np.zeros(memory.info.words, np.uint64))
        self._program = None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.release()


def pack_weights(weights: ArrayLike, word_bits: int = 64) -> NDArray[np.uint64]:
    """Words for `Device.write` of weights int8[n], the first in the lowest byte; the last word is filled with 0.

    >>> [hex(word) for word in pack_weights([1, -1, 2], word_bits=16)]
    ['0xff01', '0x2']
    """
    bytes_each = word_bits // 8
    flat = np.asarray(weights, np.int8).ravel()
    padded = np.zeros(-(-flat.size // bytes_each) * bytes_each, np.int8)
    padded[: flat.size] = flat
    return padded.view(f"<u{bytes_each}").astype(np.uint64)


def unpack_weights(words: ArrayLike, word_bits: int = 64) -> NDArray[np.int8]:
    """The weights in words uint64[n]: inverse of `pack_weights`, filling included.

    >>> unpack_weights(pack_weights([1, -1, 2, 3], word_bits=16), word_bits=16)
    array([ 1, -1,  2,  3], dtype=int8)
    """
    return np.asarray(words, np.uint64).astype(f"<u{word_bits // 8}").view(np.int8)
