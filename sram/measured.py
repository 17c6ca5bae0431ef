"""Measured maps in and out as CSV: one faulty cell a line, with the highest voltage at which it fails.

Columns, in any order: bank, row, column (or col), voltage, and if known polarity (0 stuck at 0, 1 stuck at 1, 2 reads
the opposite) and noise (width of the critical voltage from access to access). Case and a byte order mark do not matter;
semicolons may part the columns, then with decimal commas; voltage_mv is in millivolts. Read-backs at several voltages
are the same with a line for every voltage at which the cell failed. A cell that fails at V has a critical voltage just
above V: the next float32, so that what is written comes back bit for bit.
"""

import json
import os
import re
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from sram import failure, mapfile
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.faultmap import FaultMap
from sram.files import write_atomic
from sram.geometry import Geometry
from sram.inject import FLIP
from sram.memory import polarities
from sram.structure import structure

NEEDED, OPTIONAL = ("bank", "row", "column", "voltage"), ("polarity", "noise")
SAME = {"col": "column", "voltage_v": "voltage"}
MILLIVOLTS = "voltage_mv"
MOST_VOLTS = 10


@dataclass(frozen=True)
class Inclusion:
    """Of the cells that fail at a tested voltage, how many also fail at the next lower one (98 to 100% on silicon)."""

    voltage: float
    failing: int
    still_failing: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """An imported map, how well its read-backs nest (one step per tested voltage but the lowest, from the top), and
    whether the file said what its cells read."""

    fault_map: FaultMap
    steps: tuple[Inclusion, ...]
    polarity_known: bool

    @property
    def inclusion(self) -> float:
        """Share over all steps; nan where each cell was listed once."""
        failing = sum(step.failing for step in self.steps)
        return sum(step.still_failing for step in self.steps) / failing if failing else float("nan")


def export(fault_map: FaultMap, path: str | os.PathLike) -> Path:
    """Write a map as CSV; a first comment line of JSON carries geometry, curve and the rest of the map's header."""
    bank, row, column = fault_map.geometry.bank_row_column(fault_map.cell)
    fails_at = np.nextafter(fault_map.critical_voltage, np.float32(-np.inf))
    fields = [bank, row, column, fails_at.astype("U16"), fault_map.kind]  # the shortest text that reads back
    names = [*NEEDED, "polarity"]
    if fault_map.noise is not None:
        fields.append(fault_map.noise.astype("U16"))
        names.append("noise")
    lines = [f"# {json.dumps(mapfile.header(fault_map))}", ",".join(names)]
    lines += [",".join(map(str, line)) for line in zip(*(field.tolist() for field in fields), strict=True)]
    return write_atomic(path, "\n".join(lines) + "\n")


def read(
    path: str | os.PathLike,
    *,
    geometry: Geometry | None = None,
    curve: FailureCurve | str | None = None,
    unit: str = "V",
    nominal: float = 1.0,
    voltage_floor: float | None = None,
    chip: int = 0,
    readbacks: bool = False,
) -> Measurement:
    """Read a map from CSV.

    A file that `export` wrote knows its geometry and the rest; for any other, `geometry` is needed. Without a `curve`
    the map gets one of its own through its rates (`own_curve`), in `unit`. The floor is the lowest voltage in the file
    unless a lower one was tested (`voltage_floor`) and showed nothing new. Raises InputError, which names the file and
    the line. Cells of unknown polarity read the opposite, the worst that they can; see `stuck_by_chance`.
    """
    path = Path(path)
    header, table = _table(path, NEEDED, OPTIONAL)
    if header:
        geometry = mapfile.read_geometry(header, path)
    if geometry is None:
        raise InputError(path, "geometry", None, "banks, rows and columns of the memory, which this file does not tell")
    cell, voltage, kind = _cells(path, table, geometry)
    steps = _inclusion(cell, voltage) if readbacks else ()
    order = np.lexsort((-voltage, cell))
    first = order[np.diff(cell[order], prepend=-1) != 0]  # of each cell the highest voltage
    if len(first) < len(cell) and not readbacks:
        raise InputError(path, "cell", "listed twice", "each cell once, or a line for every voltage (read-backs)")
    if len(first) == len(cell) and readbacks:
        allowed = "a line for every voltage at which a cell failed"
        raise InputError(path, "read-backs", "every cell listed once", allowed)
    critical = np.nextafter(voltage.astype(np.float32), np.float32(np.inf))
    order = first[np.lexsort((cell[first], -critical[first]))]
    arrays = {"cell": cell[order], "critical_voltage": critical[order], "kind": kind[order]}
    if "noise" in table:
        arrays["noise"] = table["noise"][order].astype(np.float32)
    if header:
        return Measurement(mapfile.from_header(header, arrays, path), steps, "polarity" in table)
    if not len(cell):
        raise InputError(path, "faults", 0, "at least one, or the header of an exported map")
    lowest = float(voltage.min())
    floor = lowest if voltage_floor is None else float(voltage_floor)
    if not 0 < floor <= lowest:
        raise InputError(path, "voltage_floor", floor, f"positive, at most {lowest}, the lowest voltage of the file")
    if curve is None:
        curve = own_curve(voltage[order], geometry, path, unit, nominal)
    fault_map = FaultMap(geometry, failure.curve(curve), structure("iid"), chip, 0, floor, **arrays)
    mapfile.check(fault_map, path)
    return Measurement(fault_map, steps, "polarity" in table)


def stuck_by_chance(fault_map: FaultMap) -> FaultMap:
    """The map with every cell stuck, at 0 or 1 as drawn for cell and chip: for polarities that nobody knows.

    On balanced data half as many bits read wrong as where cells read the opposite.
    """
    kind = np.empty_like(fault_map.kind)
    polarities(fault_map.cell, fault_map.chip, kind, fault_map.seed)
    return replace(fault_map, kind=kind)


def read_rates(path: str | os.PathLike, unit: str = "V", nominal: float = 1.0) -> FailureCurve:
    """The failure curve through a table of rates: CSV with the columns voltage and cell_fault_rate.

    Voltages at which nothing failed carry no point. Raises InputError. (For counts see `sram.curvefit`, which knows how
    sure they are.)
    """
    path = Path(path)
    _, table = _table(path, ("voltage", "cell_fault_rate"), ())
    rate = table["cell_fault_rate"]
    _refuse_first(path, "cell_fault_rate", rate, (rate >= 0) & (rate < 1), "0 or more, below 1: not every cell failed")
    seen = rate > 0
    return failure.through(path.stem, table["voltage"][seen], rate[seen], unit=unit, nominal=nominal, source=path.name)


def own_curve(voltage: np.ndarray, geometry: Geometry, path: Path, unit: str, nominal: float) -> FailureCurve:
    """The failure curve through a map's own rates; voltage float64[n] at which each cell first fails.

    At most 16 points, evenly spaced in faults on a logarithmic scale. Raises InputError if there is only one voltage,
    or one at which every cell fails.
    """
    levels, counts = np.unique(-voltage, return_counts=True)
    total = np.cumsum(counts)
    if len(levels) < 2:
        raise InputError(path, "voltages", len(levels), "two or more, or a curve given with the map")
    if total[-1] == geometry.cells:
        allowed = "one at which some cells do not fail, or a curve given with the map"
        raise InputError(path, "voltage", -float(levels[-1]), allowed)
    wanted = np.geomspace(total[0], total[-1], 16)
    points = np.unique(np.searchsorted(total, wanted).clip(max=len(total) - 1))
    rates = total[points] / geometry.cells
    return failure.through(path.stem, -levels[points], rates, unit=unit, nominal=nominal, source="measured map")


def _table(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> tuple[dict | None, dict[str, np.ndarray]]:
    """The JSON header if there is one, and the columns by name, float64[n]."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
            header = None
            if first.startswith("#"):
                try:
                    header = json.loads(first[1:])
                except ValueError:
                    header = None  # some other comment
                first = file.readline()
            while first.startswith("#"):
                first = file.readline()
            comma = ";" if ";" in first else ","
            names = [_column(name) for name in first.strip().split(comma)]
            given, names = names, ["voltage" if name == MILLIVOLTS else name for name in names]
            if len(set(names)) != len(names) or not set(needed) <= set(names) <= {*needed, *optional}:
                allowed = ", ".join(needed) + (f", and if known {', '.join(optional)}" if optional else "")
                raise InputError(path, "columns", first.strip()[:60], allowed)
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of an empty table
                lines = (line.replace(",", ".") for line in file) if comma == ";" else file
                values = np.loadtxt(lines, delimiter=comma, ndmin=2, comments="#")
    except InputError:
        raise
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a CSV file that can be read") from None
    except ValueError as error:  # also UnicodeDecodeError; numpy's message names the row of the table
        raise InputError(path, "table", str(error).split(";")[0][:100], "numbers only") from None
    if values.size == 0:
        values = values.reshape(0, len(names))
    if values.shape[1] != len(names):
        raise InputError(path, "table", f"{values.shape[1]} values in a line", f"{len(names)}, as in the first line")
    if header is not None and not (isinstance(header, dict) and isinstance(header.get("geometry"), dict)):
        header = None
    if MILLIVOLTS in given:
        values[:, names.index("voltage")] /= 1000
    return header, dict(zip(names, values.T, strict=True))


def _column(name: str) -> str:
    """A column by the name that it has here: `Col`, `voltage (mV)` and `Voltage [V]` are others' for the same.

    >>> [_column(name) for name in ("Bank", " col", "voltage (mV)", "Voltage [V]")]
    ['bank', 'column', 'voltage_mv', 'voltage']
    """
    plain = "_".join(re.findall(r"\w+", name.lower()))
    return SAME.get(plain, plain)


def _cells(path: Path, table: dict[str, np.ndarray], geometry: Geometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell numbers int64[n], voltages float64[n], kinds uint8[n]; checked."""
    limits = {"bank": geometry.banks, "row": geometry.rows, "column": geometry.columns, "polarity": 3}
    for name, limit in limits.items():
        values = table.get(name, np.zeros(0))
        _refuse_first(path, name, values, (values >= 0) & (values < limit) & (values % 1 == 0), f"0 to {limit - 1}")
    voltage = table["voltage"]
    allowed = f"above 0, below {MOST_VOLTS}; millivolts in a column voltage_mv"
    _refuse_first(path, "voltage", voltage, (voltage > 0) & (voltage < MOST_VOLTS), allowed)
    bank, row, column = (table[name].astype(np.int64) for name in ("bank", "row", "column"))
    cell = (bank * geometry.rows + row) * geometry.columns + column
    kind = table["polarity"].astype(np.uint8) if "polarity" in table else np.full(len(cell), FLIP, np.uint8)
    return cell, voltage, kind


def _refuse_first(path: Path, name: str, values: np.ndarray, good: np.ndarray, allowed: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise InputError(path, f"{name}, entry {at + 1}", float(values[at]), allowed)


def _inclusion(cell: np.ndarray, voltage: np.ndarray) -> tuple[Inclusion, ...]:
    levels = np.unique(voltage)[::-1]
    sets = [np.unique(cell[voltage == level]) for level in levels]
    return tuple(
        Inclusion(float(v), len(high), int(np.isin(high, low, assume_unique=True).sum()))
        for v, (high, low) in zip(levels, pairwise(sets), strict=False)
    )
