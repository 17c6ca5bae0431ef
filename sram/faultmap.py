"""Persistent fault maps: the weak cells of one chip, sorted by the voltage at which each begins to fail.

A cell fails at V iff its critical voltage lies above V, so the faulty cells at any voltage are a prefix of the map, and
maps are nested in voltage by construction. A map is a pure function of (seed, chip, geometry, curve, structure, mode):
banks can be made alone, threads never change it, and a lower `voltage_floor` only adds cells at the end.
"""

import io
import json
import os
import zipfile
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from sram import failure, faultmap_kernels, random
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.geometry import Geometry
from sram.random import Stream
from sram.structure import Structure
from sram.structure import structure as structure_of

FORMAT, VERSION = "neuralfuse fault map", 1
MODES = ("stuck", "flip")


class Faults(NamedTuple):
    """Faulty cells, the weakest first: cell int64[k], kind uint8[k] (0 stuck at 0, 1 stuck at 1, 2 flip)."""

    cell: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True, eq=False)
class FaultMap:
    """The weak cells of one chip down to `voltage_floor`.

    cell int64[n], critical_voltage float32[n] (falling; ties by cell) and kind uint8[n] belong together; `noise`
    float32[n] is the width of each cell's critical voltage from access to access, or None where cells are steady.
    Voltages are in `curve.unit`.
    """

    geometry: Geometry
    curve: FailureCurve
    structure: Structure
    chip: int
    seed: int
    voltage_floor: float
    cell: np.ndarray
    critical_voltage: np.ndarray
    kind: np.ndarray
    noise: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cell)

    def count(self, voltage: float) -> int:
        """Number of faulty cells at this voltage. Raises InputError below `voltage_floor`."""
        if not voltage >= self.voltage_floor:
            raise InputError(
                "fault map", "voltage", voltage, f"at least {self.voltage_floor} {self.curve.unit}, its floor"
            )
        return bisect_left(self.critical_voltage, -float(voltage), key=lambda critical: -float(critical))

    def at(self, voltage: float) -> Faults:
        """The faulty cells at this voltage: views of the map's first `count(voltage)` entries.

        Raises InputError below `voltage_floor`.
        """
        n = self.count(voltage)
        return Faults(self.cell[:n], self.kind[:n])

    def cell_fault_rate(self, voltage: float) -> float:
        """Share of all cells that are faulty at this voltage."""
        return self.count(voltage) / self.geometry.cells


def generate(
    chip: int,
    geometry: Geometry,
    curve: FailureCurve | str,
    structure: Structure | str = "iid",
    *,
    voltage_floor: float,
    seed: int = 0,
    mode: str = "stuck",
    stuck_at_one: float = 0.5,
    banks: range | None = None,
) -> FaultMap:
    """The fault map of chip number `chip` (0 <= chip < 2^32), down to `voltage_floor` in the curve's unit.

    mode "stuck": a faulty cell reads 1 with probability `stuck_at_one`, else 0, always the same; "flip": it reads the
    opposite of what was stored. `banks` makes a part of the chip only: the very cells that the whole map has there.
    Time and memory go with the number of weak cells (and of columns, where these differ). Raises InputError.

    >>> m = generate(3, Geometry.of_capacity(128 * 1024), "ibm14", voltage_floor=0.79)
    >>> m.count(0.79) > m.count(0.83) > 0
    True
    >>> round(m.cell_fault_rate(0.8333), 3)
    0.01
    """
    curve, shares = failure.curve(curve), structure_of(structure)
    key = random.key(seed, chip)
    if mode not in MODES:
        raise InputError("fault map", "mode", mode, " or ".join(MODES))
    if not 0 <= stuck_at_one <= 1:
        raise InputError("fault map", "stuck_at_one", stuck_at_one, "a probability in [0, 1]")
    if not 0 < voltage_floor < np.inf:
        raise InputError("fault map", "voltage_floor", voltage_floor, f"a positive voltage in {curve.unit}")
    packed = _weak_cells(key, geometry, curve, shares, voltage_floor, banks or range(geometry.banks))
    packed.sort()
    critical_voltage = np.empty(len(packed), np.float32)
    faultmap_kernels.unpack(packed, critical_voltage)
    cell = packed.view(np.int64)
    kind = np.full(len(cell), 2, np.uint8)
    if mode == "stuck":
        faultmap_kernels.polarity(cell, float(stuck_at_one), int(Stream.POLARITY), key, kind)
    return FaultMap(geometry, curve, shares, key[1], key[0], float(voltage_floor), cell, critical_voltage, kind)


def _weak_cells(
    key: tuple[int, int], geometry: Geometry, curve: FailureCurve, shares: Structure, floor: float, banks: range
) -> np.ndarray:
    """uint64[n], see the kernel; blocks of banks go to threads, and come back in order."""
    low, per_step, voltages = _latent_table(curve, shares, floor)
    scale = np.array([shares.bank**0.5, shares.column_scale(), shares.tail, shares.row**0.5, shares.cell**0.5])
    streams = np.array([Stream.BANK, Stream.COLUMN, Stream.ROW, Stream.CELL], np.int64)
    die = 0.0
    if shares.die:
        die = shares.die**0.5 * float(random.normals(1, Stream.DIE, seed=key[0], chip=key[1])[0])
    by_column = shares.column + shares.row + shares.smooth > 0
    fixed = (
        geometry.rows,
        geometry.columns,
        by_column,
        die,
        scale,
        streams,
        key,
        low,
        per_step,
        voltages,
        float(floor),
    )

    def block(part: range) -> np.ndarray:
        return faultmap_kernels.weak_cells(part.start, part.stop, *fixed)

    threads = numba.get_num_threads()
    size = max(1, min(256, -(-len(banks) // threads)))
    parts = [banks[i : i + size] for i in range(0, len(banks), size)]
    if threads == 1 or len(parts) == 1:
        return np.concatenate([block(part) for part in parts])
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(block, parts)))


def _latent_table(curve: FailureCurve, shares: Structure, floor: float) -> tuple[float, float, np.ndarray]:
    """Critical voltage on a grid of latents: first latent, steps per unit, voltages.

    From just below the floor to where 1e-20 of the cells lie above; linear interpolation on a grid of 1/512 is within
    1e-8 of any smooth curve, less than the float32 that critical voltages are kept in, and exact for a probit.
    """
    per_step = 512.0
    low = np.floor(_raw_latent(float(-curve.z(floor)), shares)) - 1
    high = np.ceil(max(_raw_latent(9.5, shares), low + 2))
    raw = low + np.arange(int((high - low) * per_step) + 1) / per_step
    return float(low), per_step, np.ascontiguousarray(curve.critical_voltage(_standard_latent(raw, shares)))


def _standard_latent(raw: np.ndarray, shares: Structure) -> np.ndarray:
    """Sums of terms -> standard normal latents of the same rank over many chips; the identity for normal terms."""
    if not shares.tail:
        return raw
    # P(sum > raw) = E over the column's z of Phi((column term - raw) / sd of the rest), in logarithms for the tails.
    z = np.linspace(-9, 9, 721)
    log_weight = -0.5 * z**2 - np.log(np.sqrt(2 * np.pi)) + np.log(z[1] - z[0])
    term = shares.column_scale() * z * np.exp(shares.tail * z**2 / 2)
    log_tail = log_ndtr((term[None, :] - raw[:, None]) / np.sqrt(1 - shares.column)) + log_weight
    peak = log_tail.max(axis=1)
    log_p = np.minimum(peak + np.log(np.exp(log_tail - peak[:, None]).sum(axis=1)), -1e-300)
    return -ndtri_exp(log_p)


def _raw_latent(standard: float, shares: Structure) -> float:
    """Inverse of `_standard_latent` at one point, by bisection."""
    if not shares.tail:
        return standard
    low, high = -1e4, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _standard_latent(np.array([middle]), shares)[0] < standard else (low, middle)
    return (low + high) / 2


def save(fault_map: FaultMap, path: str | os.PathLike) -> Path:
    """Write a map to `path` as .npz: plain arrays and a JSON header; nothing in it is pickled."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "geometry": fault_map.geometry.fields(),
        "curve": fault_map.curve.to_dict(),
        "structure": vars(fault_map.structure),
        "chip": fault_map.chip,
        "seed": fault_map.seed,
        "voltage_floor": fault_map.voltage_floor,
    }
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "cell": fault_map.cell,
        "critical_voltage": fault_map.critical_voltage,
        "kind": fault_map.kind,
    }
    if fault_map.noise is not None:
        arrays["noise"] = fault_map.noise
    return write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load(path: str | os.PathLike) -> FaultMap:
    """Read a map that `save` wrote. Raises InputError on files that are missing, corrupt, truncated or foreign."""
    path = Path(path)

    def refuse(key: str, value: object, allowed: str) -> InputError:
        return InputError(path, key, value, allowed)

    try:
        content = path.read_bytes()
    except OSError as error:
        raise refuse("file", error.strerror, "a readable fault map (.npz)") from None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header.pop("format") != FORMAT:
            raise refuse("format", "something else", FORMAT)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise refuse(
            "file", str(error)[:80] or type(error).__name__, "a whole fault map written by this program"
        ) from None
    if header.pop("version", None) != VERSION:
        raise refuse("version", "another", str(VERSION))
    try:
        loaded = FaultMap(
            Geometry(**header.pop("geometry")),
            FailureCurve.from_dict(header.pop("curve")),
            Structure(**header.pop("structure")),
            **header,
            **arrays,
        )
    except TypeError as error:
        raise refuse("header", str(error)[:80], "the fields of a fault map") from None
    _check(loaded, path)
    return loaded


def _check(fault_map: FaultMap, where: object) -> None:
    """Refuse arrays that are not a fault map of their geometry."""
    n = len(fault_map.cell)
    expected = {"cell": np.int64, "critical_voltage": np.float32, "kind": np.uint8}
    if fault_map.noise is not None:
        expected["noise"] = np.float32
    for name, dtype in expected.items():
        array = getattr(fault_map, name)
        if array.dtype != dtype or array.shape != (n,):
            raise InputError(where, name, f"{array.dtype}{list(array.shape)}", f"{np.dtype(dtype)}[{n}]")
    if n == 0:
        return
    cell, critical = fault_map.cell, fault_map.critical_voltage
    if cell.min() < 0 or cell.max() >= fault_map.geometry.cells or len(np.unique(cell)) != n:
        raise InputError(where, "cell", "outside the geometry or twice", f"below {fault_map.geometry.cells}, once")
    step = np.diff(critical)
    if (
        not ((step < 0) | ((step == 0) & (np.diff(cell) > 0))).all()
        or not float(critical[-1]) > fault_map.voltage_floor
    ):
        raise InputError(where, "critical_voltage", "out of order", "falling, above voltage_floor; ties by cell")
    if fault_map.kind.max() > 2:
        raise InputError(where, "kind", int(fault_map.kind.max()), "0, 1 or 2")
