"""Energy, leakage and speed of an SRAM macro: from the CACTI table at its own supply, scaled to other supplies."""

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sram.errors import InputError

BOLTZMANN_OVER_CHARGE = 8.617333262e-5  # V/K, CODATA 2018
SOURCE = "CACTI 7, RAM mode, 1 read/write port, direct-mapped, 64-bit word, 350 K; supply from its tech_params"


@dataclass(frozen=True)
class MacroEnergy:
    """One SRAM macro at its nominal supply `voltage_v`: energy per access of one word, leakage, access time."""

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
    (29.8885, 1.1, 1.70505)
    """
    rows = _table().get((node_nm, cell))
    if rows is None:
        known = ", ".join(f"{node} nm {kind}" for node, kind in _table())
        raise InputError(
            "SRAM macro", "node and cell", f"{node_nm} nm {cell}", f"{known} (the rows of the CACTI table)"
        )
    capacities = [row["capacity_bytes"] for row in rows]
    if not capacities[0] <= capacity_bytes <= capacities[-1]:
        allowed = f"{capacities[0]:.0f} to {capacities[-1]:.0f}, the range of the CACTI table at {node_nm} nm {cell}"
        raise InputError("SRAM macro", "capacity_bytes", capacity_bytes, allowed)

    def between(column: str) -> float:
        values = [row[column] for row in rows]
        if capacity_bytes in capacities:  # a row of the table comes back to the last digit
            return values[capacities.index(capacity_bytes)]
        return math.exp(np.interp(math.log(capacity_bytes), np.log(capacities), np.log(values)))

    return MacroEnergy(
        read_pj=between("read_pj"),
        write_pj=between("write_pj"),
        leakage_mw=between("leakage_mw"),
        access_ns=between("access_ns"),
        word_bits=int(rows[0]["word_bits"]),
        node_nm=node_nm,
        voltage_v=rows[0]["voltage_v"],
        capacity_bytes=capacity_bytes,
        source=SOURCE,
        cell=cell,
        temperature_k=rows[0]["temperature_k"],
    )


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
