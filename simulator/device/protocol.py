"""What every chip in the loop can do: keep words, change its supplies, run a network. Standard library and NumPy only.

Words travel as uint64[n], each below 2**word_bits. Network inputs and outputs are float32. A `Device` is its weight
memory; others that the host can reach have a name and words of their own. It is a context manager: on the way out,
after an exception or Ctrl-C too, the supplies go back to nominal before the device is closed.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.device.program import Program
from sram.errors import InputError
from sram.geometry import Geometry

VERSION = 3


class VoltageOutOfRange(InputError):
    """A supply voltage that the device cannot give."""


class WordOutOfRange(InputError):
    """An address outside the memory, or a word that does not fit the word width."""


class DeviceError(Exception):
    """The device, or the way to it, failed; the input was right."""


class DeviceTimeout(DeviceError):
    """No answer in time."""


class LinkLost(DeviceError):
    """The connection is gone. The server has brought the voltage back to nominal, or will when it notices."""


class VersionMismatch(DeviceError):
    """The two sides speak different versions of the protocol."""


class Refused(DeviceError):
    """The server is serving somebody else, or the secret is wrong."""


@dataclass(frozen=True)
class DeviceInfo:
    """What a device is, or another `memory` of one. Physical organisation as in `sram.geometry.Geometry`; voltages in
    `voltage_unit`.

    The supply takes the values voltage_nominal - i * voltage_step within [voltage_lowest, voltage_nominal].

    >>> info = DeviceInfo("chip", banks=1, rows=512, columns=64, word_bits=64, voltage_unit="V",
    ...                   voltage_nominal=0.9, voltage_lowest=0.5, voltage_step=0.01)
    >>> info.words, info.reached(0.7349)
    (512, 0.73)
    """

    name: str
    banks: int
    rows: int
    columns: int
    word_bits: int
    voltage_unit: str
    voltage_nominal: float
    voltage_lowest: float
    voltage_step: float
    protocol: int = VERSION
    memory: str = "weights"

    def __post_init__(self) -> None:
        if not isinstance(self.memory, str) or not re.fullmatch("[a-z]{1,20}", self.memory):
            raise InputError("device info", "memory", str(self.memory)[:40], "1 to 20 small letters")
        for key in ("banks", "rows", "columns", "word_bits", "protocol"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 40:
                raise InputError("device info", key, value, "a positive integer")
        if self.word_bits not in (8, 16, 32, 64) or self.columns % self.word_bits:
            raise InputError("device info", "word_bits", self.word_bits, "8, 16, 32 or 64, and a divisor of columns")
        for key in ("voltage_nominal", "voltage_lowest", "voltage_step"):
            value = getattr(self, key)
            if not isinstance(value, float | int) or not math.isfinite(value) or value <= 0:
                raise InputError("device info", key, value, "a positive number")
        if self.voltage_lowest > self.voltage_nominal:
            raise InputError("device info", "voltage_lowest", self.voltage_lowest, "at most voltage_nominal")

    @property
    def title(self) -> str:
        """The device, and the memory where it is not that of the weights."""
        return self.name if self.memory == "weights" else f"{self.name}, {self.memory}"

    @property
    def geometry(self) -> Geometry:
        """The memory as it is cut into banks, rows and columns. Raises InputError beyond 2^32 cells."""
        return Geometry(self.banks, self.rows, self.columns, self.word_bits)

    @property
    def words(self) -> int:
        """Words in the memory."""
        return self.banks * self.rows * self.columns // self.word_bits

    @property
    def capacity_bytes(self) -> int:
        """Bytes in the memory; a program's weights are addressed by byte."""
        return self.words * self.word_bits // 8

    @property
    def steps(self) -> int:
        """Steps of the supply below nominal that lie within the range (a billionth of a step is forgiven)."""
        return math.floor((self.voltage_nominal - self.voltage_lowest) / self.voltage_step + 1e-9)

    def reached(self, voltage: float) -> float:
        """The step nearest to `voltage`. VoltageOutOfRange outside the range (half of a billionth of a step is
        forgiven)."""
        slack = 1e-9 * self.voltage_step
        if not self.voltage_lowest - slack <= voltage <= self.voltage_nominal + slack:  # NaN fails too
            allowed = f"{self.voltage_lowest:g} to {self.voltage_nominal:g} {self.voltage_unit}"
            raise VoltageOutOfRange(self.name, "voltage", voltage, allowed)
        steps = min(round((self.voltage_nominal - voltage) / self.voltage_step), self.steps)
        return round(self.voltage_nominal - steps * self.voltage_step, 12)


@dataclass(frozen=True)
class Counters:
    """What a run cost. `energy_pj` is a measurement (None where the device has no meter), never a model.

    Array cycles and accesses: words of 8-bit weights and activations read, and 32-bit sums written to (and, where sums
    of several folds are added, read from) the output memory.
    """

    cycles: int = 0
    weight_reads: int = 0
    activation_reads: int = 0
    output_writes: int = 0
    output_reads: int = 0
    energy_pj: float | None = None

    def __add__(self, other: "Counters") -> "Counters":
        energies = [e for e in (self.energy_pj, other.energy_pj) if e is not None]
        return Counters(
            self.cycles + other.cycles,
            self.weight_reads + other.weight_reads,
            self.activation_reads + other.activation_reads,
            self.output_writes + other.output_writes,
            self.output_reads + other.output_reads,
            sum(energies) if energies else None,
        )


@dataclass(frozen=True)
class Run:
    """Outputs float32[b, classes] of a batch, and what it cost."""

    outputs: NDArray[np.float32]
    counters: Counters


class DeviceMemory(ABC):
    """A memory of a device, with a supply: what is characterised, and watched for drift."""

    @property
    @abstractmethod
    def info(self) -> DeviceInfo:
        """Geometry, word width, voltage range and step, protocol version."""

    @abstractmethod
    def write(self, address: int, words: ArrayLike) -> None:
        """Store words uint64[n] at word addresses address .. address + n - 1. WordOutOfRange."""

    @abstractmethod
    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        """The words at address .. address + count - 1 as they read at the present voltage. WordOutOfRange."""

    @abstractmethod
    def set_voltage(self, voltage: float) -> float:
        """Move the memory's supply; returns the voltage reached, a step of the supply. VoltageOutOfRange."""


class Device(DeviceMemory):
    """The protocol. `simulator.device.board.Board` is the base of everything that is a chip; `remote.RemoteDevice`
    is one elsewhere."""

    @property
    def memories(self) -> Mapping[str, DeviceMemory]:
        """By name: "weights", which is the device itself, and others, of which "activations" holds what a program with
        units stores between layers."""
        return {"weights": self}

    def memory(self, name: str) -> DeviceMemory:
        """The memory of this name. InputError where there is none."""
        if name not in self.memories:
            raise InputError(self.info.name, "memory", name[:40], ", ".join(self.memories))
        return self.memories[name]

    def to_nominal(self) -> None:
        """Bring every supply back to nominal: all are asked, whatever goes wrong with one."""
        errors = []
        for memory in self.memories.values():
            try:
                if not math.isfinite(reached := float(memory.set_voltage(memory.info.voltage_nominal))):
                    raise DeviceError(f"the driver reads a supply of {reached}")
            except Exception as error:  # a driver may raise anything
                errors.append(error)
        if errors:
            raise errors[0]

    @abstractmethod
    def load(self, program: Program) -> None:
        """The network that `run` runs; its weights are whatever the memory holds. InputError where it does not fit."""

    @abstractmethod
    def run(self, batch: ArrayLike) -> Run:
        """A batch float[b, c, h, w] through the loaded network, weights read at the present voltage."""

    @abstractmethod
    def reset(self) -> None:
        """Nominal voltages, memories all 0, no network."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. More than once is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.to_nominal()
        except LinkLost:  # the server restores the voltage itself; what broke the link is the error to show
            if kind is None:
                raise
        finally:
            self.close()


def as_words(info: DeviceInfo, address: int, words: ArrayLike) -> NDArray[np.uint64]:
    """`words` as uint64[n], checked against width and memory; WordOutOfRange names the first that does not fit."""
    array = np.atleast_1d(np.asarray(words))
    if array.dtype.kind not in "ui" or array.ndim != 1:
        raise WordOutOfRange(info.name, "words", f"{array.dtype} of shape {array.shape}", "one row of integers")
    check_span(info, address, len(array))
    bad = (array < 0) | (array.astype(np.uint64) > np.uint64((1 << info.word_bits) - 1))
    if bad.any():
        i = int(bad.argmax())
        raise WordOutOfRange(info.name, f"words[{i}]", int(array[i]), f"0 to 2**{info.word_bits} - 1")
    return array.astype(np.uint64, copy=False)


def check_span(info: DeviceInfo, address: int, count: int) -> None:
    """WordOutOfRange unless address .. address + count - 1 are words of the memory."""
    if not 0 <= address <= info.words:
        raise WordOutOfRange(info.name, "address", address, f"0 to {info.words - 1}")
    if not 0 <= count <= info.words - address:
        raise WordOutOfRange(info.name, "count", count, f"0 to {info.words - address} from address {address}")
