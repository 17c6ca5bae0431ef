"""The fault maps of the NeuralFuse paper's published code, cell for cell (Sun et al., NeurIPS 2024).

One array of 8192 rows x 128 cells for the whole network. numpy's legacy generator draws a number per cell: below the
fault rate the cell is faulty; a second draw, seeded one higher, makes it stuck at 1 below one half, else stuck at 0.
"""

import numpy as np

from sram import failure
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.structure import structure

GEOMETRY = Geometry(banks=1, rows=8192, columns=128, word_bits=128)


def fault_map(seed: int, cell_fault_rate: float, curve: FailureCurve | str = "ibm14") -> FaultMap:
    """The paper's map of this seed, with the voltage axis of `curve`: its floor is where the curve has this rate.

    At the floor the faulty cells are exactly the paper's. Above it they are the paper's for the curve's rate, but for
    the rounding of critical voltages to float32. Raises InputError.

    >>> m = fault_map(0, 0.01)
    >>> m.count(m.voltage_floor), int(m.kind.sum())
    (10400, 5206)
    """
    curve = failure.curve(curve)
    if not 0 < cell_fault_rate < 1:
        raise InputError("paper's fault map", "cell_fault_rate", cell_fault_rate, "between 0 and 1")
    if not 0 <= seed < 2**32 - 1:
        raise InputError("paper's fault map", "seed", seed, "an integer in [0, 2**32 - 1)")
    draw = np.random.RandomState(seed).rand(GEOMETRY.cells)
    cell = np.flatnonzero(draw < cell_fault_rate)
    stuck_at_one = np.random.RandomState(seed + 1).rand(GEOMETRY.cells)[cell] < 0.5
    floor = float(curve.voltage(cell_fault_rate))
    lowest = np.nextafter(np.float32(floor), np.float32(np.inf))
    critical = np.maximum(curve.voltage(np.maximum(draw[cell], 1e-300)).astype(np.float32), lowest)
    order = np.lexsort((cell, -critical))
    arrays = cell[order].astype(np.int64), critical[order], stuck_at_one[order].astype(np.uint8)
    return FaultMap(GEOMETRY, curve, structure("iid"), seed, 0, floor, *arrays)
