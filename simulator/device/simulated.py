"""A chip that is not there: words in an array, faults from a fault map, cycles from the closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.accelerator import Accelerator, accelerator
from simulator.array.dataflow import gemm_cycles
from simulator.device.board import Board, BoardMemory, unpack_weights
from simulator.device.protocol import Counters, DeviceInfo
from simulator.device.silicon import Silicon
from sram.errors import InputError
from sram.faultmap import FaultMap


class SimulatedMemory(BoardMemory):
    """A memory with the cells of `fault_map`."""

    def __init__(self, fault_map: FaultMap, memory: str, voltage_step: float = 0.01, **board: Any):
        super().__init__(chip_info("simulated", fault_map, voltage_step, memory), **board)
        self.silicon = Silicon(fault_map)
        self.stored = np.zeros(self.info.words, np.uint64)

    def store(self, address: int, words: NDArray[np.uint64]) -> None:
        self.stored[address : address + len(words)] = words

    def fetch(self, address: int, count: int) -> NDArray[np.uint64]:
        return self.silicon.read(self.stored, address, count)

    def supply(self, voltage: float) -> float:
        self.silicon.set_voltage(voltage)
        return voltage


class SimulatedChip(SimulatedMemory, Board):
    """The chip of `fault_map`, with the array of `machine`, and its `others`. Its supply moves in steps down to the
    map's floor.

    Nominal voltage: that of the map's curve, or, where a cell of this chip fails there, the next step at which none
    does. No cell fails at nominal, as on any chip that passed its test.

    >>> from sram import faultmap, geometry
    >>> weak = faultmap.generate(1, geometry.Geometry(1), "ibm14", voltage_floor=0.75)
    >>> with SimulatedChip(weak) as chip:
    ...     chip.write(0, np.zeros(512, np.uint64))
    ...     chip.set_voltage(0.804), int((chip.read(0, 512) != 0).sum()) > 100
    (0.8, True)
    """

    def __init__(
        self,
        fault_map: FaultMap,
        machine: Accelerator | str = "paper",
        voltage_step: float = 0.01,
        others: Sequence[BoardMemory] = (),
    ):
        super().__init__(fault_map, "weights", voltage_step, others=others)
        self.machine = accelerator(machine) if isinstance(machine, str) else machine

    def multiply(self, activations: NDArray[np.int8], address: int, n: int) -> tuple[NDArray[np.int32], Counters]:
        m, k = activations.shape
        lanes = self.info.word_bits // 8
        first, last = address // lanes, -(-(address + n * k) // lanes)
        weights = unpack_weights(self.fetch(first, last - first), self.info.word_bits)
        weights = weights[address - first * lanes :][: n * k].reshape(n, k)
        # A BLAS multiplies floating point only. Partial sums of k products of int8 are whole numbers up to k * 2**14:
        # exact in single precision up to 2**24, in double up to 2**53.
        exact = np.float32 if k <= 1 << 10 else np.float64
        sums = activations.astype(exact) @ weights.T.astype(exact)
        return sums.astype(np.int32), product_counters(self.machine, m, k, n)


def chip_info(kind: str, fault_map: FaultMap, voltage_step: float, memory: str = "weights") -> DeviceInfo:
    """DeviceInfo of a chip, or of another memory of one, made from a fault map."""
    geometry, curve = fault_map.geometry, fault_map.curve
    if not 0 < voltage_step < curve.nominal:
        raise InputError("device", "voltage_step", voltage_step, f"above 0, below {curve.nominal} {curve.unit}")
    weakest = float(fault_map.critical_voltage[0]) if len(fault_map) else 0.0
    above = max(0, math.ceil((weakest - curve.nominal) / voltage_step))
    nominal = round(curve.nominal + above * voltage_step, 12)
    steps = math.floor((nominal - fault_map.voltage_floor) / voltage_step + 1e-9)
    return DeviceInfo(
        name=f"{kind} chip {fault_map.chip}",
        **geometry.fields(),
        voltage_unit=curve.unit,
        voltage_nominal=nominal,
        voltage_lowest=round(nominal - steps * voltage_step, 12),
        voltage_step=voltage_step,
        memory=memory,
    )


@dataclass(frozen=True)
class _Accesses:
    weight_reads: int
    activation_reads: int
    output_writes: int
    output_reads: int


def _accesses(dataflow: str, machine: Accelerator, m: int, k: int, n: int) -> _Accesses:
    rows, cols = machine.array_rows, machine.array_cols
    if dataflow == "os":
        return _Accesses(-(-m // rows) * k * n, -(-n // cols) * m * k, m * n, 0)
    folds = -(-k // rows)  # the sums of each but the first are added to what is there
    if dataflow == "ws":
        return _Accesses(k * n, -(-n // cols) * m * k, folds * m * n, (folds - 1) * m * n)
    return _Accesses(-(-m // cols) * k * n, m * k, folds * m * n, (folds - 1) * m * n)


def product_counters(machine: Accelerator, m: int, k: int, n: int) -> Counters:
    """Cycles and accesses of one product (m x k) @ (k x n) by the closed form; operands are never late.

    >>> product_counters(accelerator("paper"), 32, 100, 64)
    Counters(cycles=388, weight_reads=6400, activation_reads=6400, output_writes=2048, output_reads=0, energy_pj=None)
    """

    def cycles(dataflow: str) -> int:
        shape = (m, k, n, machine.array_rows, machine.array_cols)
        return int(gemm_cycles(dataflow, *shape, machine.double_buffered_registers, machine.skip_idle_rows))

    dataflow = min(("os", "ws", "is"), key=cycles) if machine.dataflow == "best" else machine.dataflow
    return Counters(cycles(dataflow), **vars(_accesses(dataflow, machine, m, k, n)))
