"""A chip in SystemVerilog: every cycle of the array and every access of its memories is simulated by Verilator."""

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from simulator.accelerator import Accelerator, accelerator
from simulator.device.board import Board, BoardMemory
from simulator.device.protocol import Counters
from simulator.device.rtl import build
from simulator.device.silicon import Silicon
from simulator.device.simulated import chip_info
from sram.errors import InputError
from sram.faultmap import FaultMap

ACTIVATION_BYTES, OUTPUT_WORDS = 1 << 22, 1 << 20
SLICE_CYCLES = 2_000_000  # between two slices Python sees a Ctrl-C


class RtlChip(Board):
    """The chip of `fault_map` with the array of `machine`, which must be output or weight stationary.

    Faults go through the fault port of the weight memory; everything the array reads passes it. Those of partial sums
    go through that of the output memory (`fault_sums`). The first use of an array builds a library (seconds for 8 x 8,
    minutes for 32 x 32). DeviceError without Verilator.
    """

    def __init__(
        self,
        fault_map: FaultMap,
        machine: Accelerator | str = "paper",
        voltage_step: float = 0.01,
        others: Sequence[BoardMemory] = (),
    ):
        super().__init__(chip_info("rtl", fault_map, voltage_step), others)
        self.machine = accelerator(machine) if isinstance(machine, str) else machine
        if self.machine.dataflow not in ("os", "ws"):
            raise InputError(self.machine.name, "dataflow", self.machine.dataflow, "os or ws for the RTL device")
        self.silicon = Silicon(fault_map)
        self._library = _load(
            self.machine.array_rows,
            self.machine.array_cols,
            self.machine.dataflow == "ws",
            self.machine.double_buffered_registers,
            self.machine.skip_idle_rows,
            self.info.words,
            self.info.word_bits,
        )
        self._chip = self._library.chip_new()

    def store(self, address: int, words: NDArray[np.uint64]) -> None:
        self._library.chip_write(self._chip, address, np.ascontiguousarray(words), len(words))

    def fetch(self, address: int, count: int) -> NDArray[np.uint64]:
        self._fault(self.silicon.access(address, count))
        words = np.empty(count, np.uint64)
        self._library.chip_read(self._chip, address, words, count)
        return words

    def supply(self, voltage: float) -> float:
        self._fault(self.silicon.set_voltage(voltage))
        return voltage

    def multiply(self, activations: NDArray[np.int8], address: int, n: int) -> tuple[NDArray[np.int32], Counters]:
        m, k = activations.shape
        if m * k > ACTIVATION_BYTES or m * n > OUTPUT_WORDS:
            allowed = f"at most {ACTIVATION_BYTES} activations and {OUTPUT_WORDS} sums a layer: a smaller batch"
            raise InputError(self.info.name, "batch", (m * k, m * n), allowed)
        lanes = self.info.word_bits // 8
        first, last = address // lanes, -(-(address + n * k) // lanes)
        self._fault(self.silicon.access(first, last - first))
        self._library.chip_start(self._chip, np.ascontiguousarray(activations), m, k, n, address)
        while self._library.chip_step(self._chip, SLICE_CYCLES):
            pass
        sums, counted = np.empty((m, n), np.int32), np.empty(5, np.uint64)
        self._library.chip_finish(self._chip, sums, counted)
        return sums, Counters(*(int(each) for each in counted))

    def fault_sums(self, word: NDArray[np.int64], masks: NDArray[np.uint32]) -> None:
        """What partial sums in words int64[k] of the output memory, sum by sum of a product row-major, read when the
        next fold comes to them: masks uint32[3, k] of bits that read 0, read 1, and read what was not stored. They stay
        until they are set anew."""
        planes = [np.ascontiguousarray(plane, np.uint32) for plane in masks]
        self._library.chip_fault_sums(self._chip, np.ascontiguousarray(word, np.uint32), *planes, len(word))

    def release(self) -> None:
        self._library.chip_free(self._chip)
        self._chip = None

    def _fault(self, words: NDArray[np.int64]) -> None:
        if len(words):
            masks = [np.ascontiguousarray(plane[words]) for plane in self.silicon.planes]
            self._library.chip_fault(self._chip, words.astype(np.uint32), *masks, len(words))


@cache
def _load(rows: int, cols: int, ws: bool, overlap: bool, skip_idle: bool, words: int, word_bits: int) -> ctypes.CDLL:
    parameters = {
        "ROWS": rows,
        "COLS": cols,
        "WEIGHT_STATIONARY": int(ws),
        "OVERLAP": int(overlap),
        "SKIP_IDLE": int(skip_idle),
        "WORDS": words,
        "WORD_BITS": word_bits,
        "ACTIVATIONS": ACTIVATION_BYTES,
        "OUTPUTS": OUTPUT_WORDS,
    }
    library = ctypes.CDLL(str(build.library(parameters)))
    chip, number, long = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64

    def array(dtype: type) -> type:
        return np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS")

    words64, words32 = array(np.uint64), array(np.uint32)
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "chip_new": (chip, []),
        "chip_free": (None, [chip]),
        "chip_write": (None, [chip, number, words64, number]),
        "chip_read": (None, [chip, number, words64, number]),
        "chip_fault": (None, [chip, words32, words64, words64, words64, number]),
        "chip_fault_sums": (None, [chip, words32, words32, words32, words32, number]),
        "chip_start": (None, [chip, array(np.int8), number, number, number, number]),
        "chip_step": (ctypes.c_int, [chip, long]),
        "chip_finish": (None, [chip, array(np.int32), words64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
