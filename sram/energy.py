"""Energy, leakage and speed of an SRAM macro: from the CACTI table at its own supply, scaled to other supplies.

Energy of any access goes with the square of the supply, reads and writes alike; leakage and speed with the transistors.
"""

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from sram.cell.technology import BOLTZMANN_OVER_CHARGE
from sram.errors import InputError

SOURCE = "CACTI 7, RAM mode, 1 read/write port, direct-mapped, 64-bit word, no ECC, 350 K; supply from its tech_params"
COLUMNS = ("read_pj", "write_pj", "leakage_mw", "access_ns", "area_mm2")


@dataclass(frozen=True)
class MacroEnergy:
    """One SRAM macro at its nominal supply `voltage_v`: energy of an access of one word, leakage, access time, area.

    `threshold_v` is that of the transistors whose speed and leakage these are.
    """

    read_pj: float
    write_pj: float
    leakage_mw: float
    access_ns: float
    word_bits: int
    node_nm: int
    voltage_v: float
    capacity_bytes: float
    source: str
    cell: str = "itrs-lstp"
    temperature_k: float = 350.0
    threshold_v: float = 0.5
    area_mm2: float = 0.0


@dataclass(frozen=True)
class MinimumEnergy:
    """The supply at which an access costs least when the clock is as fast as the supply allows."""

    voltage_v: float
    energy_pj: float
    cycle_ns: float


@cache
def _table() -> dict[tuple[int, str], list[dict[str, float]]]:
    """(node, cell) -> rows in rising capacity."""
    text = resources.files("sram").joinpath("data/cacti7.csv").read_text(encoding="utf-8")
    table: dict[tuple[int, str], list[dict[str, float]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        cell = row.pop("cell")
        table.setdefault((int(row["node_nm"]), cell), []).append({key: float(x) for key, x in row.items()})
    return table


def macro(capacity_bytes: float, node_nm: int, cell: str = "itrs-lstp") -> MacroEnergy:
    """Energy of a macro of this capacity, straight between the table's rows in log value against log capacity.

    `cell`: "itrs-lstp" (low standby power) or "itrs-hp" (high performance); `node_nm`: 65, 45, 32 or 22. Outside the
    table, InputError: energies are never extrapolated. The supply is the one that CACTI assumes for node and cell.

    >>> m = macro(64 * 1024, 45)
    >>> m.read_pj, m.voltage_v, m.access_ns
    (25.8695, 1.1, 1.66341)
    """
    rows = _rows(node_nm, cell)
    capacities = [row["capacity_bytes"] for row in rows]
    if not capacities[0] <= capacity_bytes <= capacities[-1]:
        allowed = f"{capacities[0]:.0f} to {capacities[-1]:.0f}, the range of the CACTI table at {node_nm} nm {cell}"
        raise InputError("SRAM macro", "capacity_bytes", capacity_bytes, allowed)

    source = SOURCE
    if capacity_bytes in capacities:  # a row of the table comes back to the last digit
        found = {column: rows[capacities.index(capacity_bytes)][column] for column in COLUMNS}
    else:
        found = {column: _between(rows, column, capacity_bytes) for column in COLUMNS}
        error = left_out_error(node_nm, cell, "read_pj")
        source += f"; between its rows (a row left out of it is missed by {error:.0%} of a read, root mean square)"
    return MacroEnergy(
        **found,
        word_bits=int(rows[0]["word_bits"]),
        node_nm=node_nm,
        voltage_v=rows[0]["voltage_v"],
        capacity_bytes=capacity_bytes,
        source=source,
        cell=cell,
        temperature_k=rows[0]["temperature_k"],
        threshold_v=rows[0]["threshold_v"],
    )


def smallest_macro(node_nm: int, cell: str = "itrs-lstp") -> MacroEnergy:
    """The smallest macro of the table at a node.

    >>> smallest_macro(45).capacity_bytes
    4096.0
    """
    return macro(_rows(node_nm, cell)[0]["capacity_bytes"], node_nm, cell)


def _rows(node_nm: int, cell: str) -> list[dict[str, float]]:
    rows = _table().get((node_nm, cell))
    if rows is None:
        known = ", ".join(f"{node} nm {kind}" for node, kind in _table())
        raise InputError(
            "SRAM macro", "node and cell", f"{node_nm} nm {cell}", f"{known} (the rows of the CACTI table)"
        )
    return rows


def _between(rows: list[dict[str, float]], column: str, capacity_bytes: float) -> float:
    """Straight in log value against log capacity."""
    capacities = np.log([row["capacity_bytes"] for row in rows])
    return math.exp(np.interp(math.log(capacity_bytes), capacities, np.log([row[column] for row in rows])))


@cache
def left_out_error(node_nm: int, cell: str, column: str) -> float:
    """Root mean square of the relative errors with which the table's inner rows are found from their neighbours alone:
    what interpolation is good for. `column`: read_pj, write_pj, leakage_mw, access_ns or area_mm2.

    >>> round(left_out_error(22, "itrs-lstp", "read_pj"), 3), round(left_out_error(22, "itrs-lstp", "leakage_mw"), 3)
    (0.095, 0.026)
    """
    rows = _table()[node_nm, cell]
    found = [_between(rows[:i] + rows[i + 1 :], column, rows[i]["capacity_bytes"]) for i in range(1, len(rows) - 1)]
    return float(np.sqrt(np.mean([(f / row[column] - 1) ** 2 for f, row in zip(found, rows[1:-1], strict=True)])))


def dynamic_scale(v: ArrayLike, v_nominal: float) -> NDArray[np.float64]:
    """Energy per access at v over that at v_nominal, both in the same unit: (v / v_nominal)^2.

    Exact for the published IBM 14 nm arrays (Chandramoorthy et al., HPCA 2019), where v counts multiples of Vmin.

    >>> round(float(dynamic_scale(20 / 24, 1.0)), 4)
    0.6944
    """
    return (np.asarray(v, dtype=np.float64) / v_nominal) ** 2


def leakage_scale(
    v: ArrayLike,
    v_nominal: float,
    nominal_volts: float | None = None,
    dibl: float = 0.126,
    slope_factor: float = 1.3,
    temperature_k: float = 300.0,
) -> NDArray[np.float64]:
    """Leakage power at v over that at v_nominal: (v / v0) exp(dibl (v - v0) / (n kT/q)).

    The exponent needs volts: where v counts multiples of Vmin, `nominal_volts` says how many volts v_nominal is; left
    out, v is in volts. The default `dibl` lies between the two measurements of Yang and Murmann (ISQED 2017, 28 nm
    FD-SOI), 4.8 times less leakage power for 280 mV less and 5.4 times for 310 mV, from a nominal 0.74 V: the voltage
    at which the 2.6 and 2.9 times less access power that they report beside them are squares of voltage ratios.

    >>> round(1 / float(leakage_scale(0.74 - 0.28, 0.74)), 1), round(1 / float(leakage_scale(0.74 - 0.31, 0.74)), 1)
    (4.6, 5.5)
    """
    ratio = np.asarray(v, dtype=np.float64) / v_nominal
    volts = v_nominal if nominal_volts is None else nominal_volts
    return ratio * np.exp(dibl * volts * (ratio - 1) / (slope_factor * BOLTZMANN_OVER_CHARGE * temperature_k))


def delay_scale(
    v: ArrayLike,
    v_nominal: float,
    threshold_v: float,
    nominal_volts: float | None = None,
    dibl: float = 0.126,
    slope_factor: float = 1.3,
    temperature_k: float = 300.0,
) -> NDArray[np.float64]:
    """Delay at v over that at v_nominal: C v / I(v), I the EKV current of an nMOS with gate and drain at v.

    One expression from above threshold, where delay grows slowly as v falls, to below, where it grows exponentially
    (Enz, Krummenacher, Vittoz 1995). Without velocity saturation, so rather too slow well above threshold. Units of v
    as in `leakage_scale`.

    >>> [round(float(delay_scale(v, 1.0, threshold_v=0.4)), 1) for v in (1.0, 0.7, 0.5, 0.3)]
    [1.0, 2.4, 9.3, 314.0]
    """
    ratio = np.asarray(v, dtype=np.float64) / v_nominal
    nominal = v_nominal if nominal_volts is None else nominal_volts
    two_ut = 2 * BOLTZMANN_OVER_CHARGE * temperature_k

    def current(volts: NDArray[np.float64]) -> NDArray[np.float64]:
        pinch_off = ((1 + dibl) * volts - threshold_v) / slope_factor
        return np.logaddexp(0, pinch_off / two_ut) ** 2 - np.logaddexp(0, (pinch_off - volts) / two_ut) ** 2

    return ratio * current(np.array(nominal)) / current(ratio * nominal)


def cycle_ns(macro: MacroEnergy, voltage_v: ArrayLike) -> NDArray[np.float64]:
    """Shortest clock period at a supply in volts: the table's access time, stretched as delays are.

    >>> m = macro(64 * 1024, 45)
    >>> round(float(cycle_ns(m, m.voltage_v)), 3), round(1e3 / float(cycle_ns(m, 0.8)))  # ns; MHz at 0.8 V
    (1.663, 243)
    """
    stretch = delay_scale(voltage_v, macro.voltage_v, macro.threshold_v, temperature_k=macro.temperature_k)
    return macro.access_ns * stretch


def access_energy_pj(
    macro: MacroEnergy, voltage_v: ArrayLike, clock_ns: float | None = None, accesses_per_cycle: float = 1.0
) -> NDArray[np.float64]:
    """Energy of a read at a supply in volts with its share of leakage: dynamic + leakage power x period / accesses.

    `clock_ns`: the period if it is fixed; left out, it follows the supply (`cycle_ns`). With a fixed clock the energy
    falls with the supply all the way down; with a clock that follows it rises again, leaking over ever longer cycles.
    """
    period = cycle_ns(macro, voltage_v) if clock_ns is None else clock_ns
    leakage_mw = macro.leakage_mw * leakage_scale(voltage_v, macro.voltage_v, temperature_k=macro.temperature_k)
    return macro.read_pj * dynamic_scale(voltage_v, macro.voltage_v) + leakage_mw * period / accesses_per_cycle


def minimum_energy(macro: MacroEnergy, accesses_per_cycle: float = 1.0) -> MinimumEnergy:
    """The minimum-energy point of reads when the clock follows the supply, to a microvolt.

    >>> point = minimum_energy(macro(64 * 1024, 45))
    >>> 0.1 < point.voltage_v < 0.5, point.energy_pj < 8
    (True, True)
    """
    grid = np.linspace(0.05, macro.voltage_v, 400)  # one minimum, but flat tails: bracket it first
    i = int(np.argmin(access_energy_pj(macro, grid, accesses_per_cycle=accesses_per_cycle)))
    bounds = (grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda v: float(access_energy_pj(macro, v, accesses_per_cycle=accesses_per_cycle)),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return MinimumEnergy(float(found.x), float(found.fun), float(cycle_ns(macro, found.x)))
