"""Fault maps on disk: an .npz of plain arrays and a JSON header, nothing pickled. Foreign files are refused."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sram import archive
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.geometry import Geometry
from sram.structure import Structure
from sram.weakcells import NOISE_REACH, FaultMap, lowest_critical, noise_width

FORMAT, VERSION = "neuralfuse fault map", 1
ARRAYS = {"cell": np.int64, "critical_voltage": np.float32, "kind": np.uint8, "noise": np.float32}


def header(fault_map: FaultMap) -> dict:
    """Everything but the arrays, as plain data for JSON."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "geometry": fault_map.geometry.fields(),
        "curve": fault_map.curve.to_dict(),
        "structure": {key: x for key, x in vars(fault_map.structure).items() if key != "run" or x},  # as before runs
        "chip": fault_map.chip,
        "seed": fault_map.seed,
        "voltage_floor": fault_map.voltage_floor,
        **({"first_bank": fault_map.first_bank} if fault_map.first_bank else {}),
    }


def from_header(fields: Any, arrays: dict[str, Any], where: object) -> FaultMap:
    """The map of a header and its arrays; `where` names the source in errors. Raises InputError."""
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InputError(where, "format", getattr(fields, "get", lambda _: None)("format"), repr(FORMAT))
    fields = dict(fields)
    del fields["format"]
    if (version := fields.pop("version", None)) != VERSION:
        raise InputError(where, "version", version, str(VERSION))
    geometry = read_geometry(fields, where)
    del fields["geometry"]
    for key in ("curve", "structure"):
        if not isinstance(fields.get(key), dict):
            raise InputError(where, key, fields.get(key), f"the {key} of a fault map, by key")
    try:
        curve, structure = FailureCurve.from_dict(fields.pop("curve")), Structure(**fields.pop("structure"))
        fault_map = FaultMap(geometry, curve, structure, **fields, **arrays)
    except InputError as error:
        raise InputError(where, f"{error.where} {error.key}", error.value, error.allowed) from None
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(where, "header", str(error)[:80], "the fields of a fault map") from None
    check(fault_map, where)
    return fault_map


def read_geometry(fields: dict, where: object) -> Geometry:
    """The geometry that a header names. Raises InputError."""
    try:
        return Geometry(**fields["geometry"])
    except InputError as error:
        raise InputError(where, f"{error.where} {error.key}", error.value, error.allowed) from None
    except (TypeError, KeyError):
        names = ", ".join(Geometry.__dataclass_fields__)
        raise InputError(where, "geometry", fields.get("geometry"), names) from None


def check(fault_map: FaultMap, where: object) -> None:
    """Refuse arrays that are no fault map of their geometry. Raises InputError."""
    n = fault_map.cell.size
    for name, dtype in ARRAYS.items():
        array = getattr(fault_map, name)
        if name == "noise" and array is None:
            continue
        if array.dtype != dtype or array.shape != (n,):
            raise InputError(where, name, f"{array.dtype}{list(array.shape)}", f"{np.dtype(dtype)}[{n}]")
    for name in ("chip", "seed", "first_bank"):
        value = getattr(fault_map, name)
        if not (isinstance(value, int) and 0 <= value < 2**32):
            raise InputError(where, name, value, "an integer in [0, 2**32)")
    floor = fault_map.voltage_floor
    if not (isinstance(floor, float) and 0 < floor < np.inf):
        raise InputError(where, "voltage_floor", floor, "a positive voltage")
    if n:
        _check_cells(fault_map, where)
        _check_voltages(fault_map, where)


def _check_cells(fault_map: FaultMap, where: object) -> None:
    cell, cells = fault_map.cell, fault_map.geometry.cells
    if cell.min() < 0 or cell.max() >= cells:
        raise InputError(where, "cell", int(cell.min() if cell.min() < 0 else cell.max()), f"0 to {cells - 1}")
    ordered = np.sort(cell)
    if (twice := ordered[1:] == ordered[:-1]).any():
        raise InputError(where, "cell", int(ordered[1:][twice][0]), "each cell once")
    if fault_map.kind.max() > 2:
        raise InputError(where, "kind", int(fault_map.kind.max()), "0, 1 or 2")


def _check_voltages(fault_map: FaultMap, where: object) -> None:
    cell, critical, lowest = fault_map.cell, fault_map.critical_voltage, fault_map.voltage_floor
    falling = (critical[1:] < critical[:-1]) | ((critical[1:] == critical[:-1]) & (cell[1:] > cell[:-1]))
    if not falling.all() or not np.isfinite(critical).all():
        raise InputError(where, "critical_voltage", "out of order", "finite, falling, ties by cell")
    if fault_map.noise is not None:
        if not (np.isfinite(fault_map.noise).all() and fault_map.noise.min() >= 0):
            raise InputError(where, "noise", float(fault_map.noise.min()), "finite and not negative")
        lowest = _lowest(fault_map)
    if not float(critical[-1]) > lowest:
        raise InputError(where, "critical_voltage", float(critical[-1]), f"above {lowest}, where the map ends")


def _lowest(fault_map: FaultMap) -> float:
    """Below this no cell of an intermittent map can lie, with a little room for float32."""
    noise, curve, floor = fault_map.noise, fault_map.curve, fault_map.voltage_floor
    assert noise is not None
    # The reach may be the same in volts for all cells (measured maps) or in the latent (generated ones, whose widths
    # follow the slope of the curve: where it bends, cells just above the floor do not tell how far it goes below).
    share = float((noise / noise_width(curve, fault_map.critical_voltage, 1.0)).max())
    in_volts = floor - NOISE_REACH * float(noise.max()) * (1 + 1e-6)
    return min(in_volts, lowest_critical(curve, floor, share * (1 + 1e-6)))


def save(fault_map: FaultMap, path: str | os.PathLike) -> Path:
    """Write a map to `path` (.npz); the same map gives the same bytes."""
    arrays = {name: array for name in ARRAYS if (array := getattr(fault_map, name)) is not None}
    text = np.frombuffer(json.dumps(header(fault_map)).encode(), np.uint8)
    return write_atomic(path, lambda file: np.savez(file, header=text, **arrays))


def load(path: str | os.PathLike) -> FaultMap:
    """Read a map that `save` wrote. Raises InputError on files that are missing, corrupt, truncated or foreign."""
    path = Path(path)
    whole = "a whole fault map (.npz) written by this program"
    try:
        arrays = archive.arrays(path)
        fields = json.loads(arrays.pop("header").tobytes())
    except zipfile.BadZipFile:
        raise InputError(path, "file", "not an .npz archive", whole) from None
    except OSError as error:
        raise InputError(path, "file", error.strerror or str(error), "a fault map (.npz) that can be read") from None
    except Exception as error:  # of damaged bytes the readers of zip and npy raise whatever they stumble over
        raise InputError(path, "file", str(error)[:80] or type(error).__name__, whole) from None
    if not {"cell", "critical_voltage", "kind"} <= arrays.keys() <= ARRAYS.keys():
        raise InputError(path, "arrays", sorted(arrays), ", ".join(ARRAYS))
    return from_header(fields, arrays, path)
