"""Process nodes as rows of numbers, and the conditions under which a memory works. The nodes are illustrative."""

import csv
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from sram.errors import InputError

BOLTZMANN_OVER_CHARGE = 8.617333262e-5  # V/K, CODATA 2018
REFERENCE_K = 300.0
CORNERS = {"tt": (0, 0), "ss": (1, 1), "ff": (-1, -1), "sf": (1, -1), "fs": (-1, 1)}  # threshold shift of nMOS, pMOS


_RANGES = {
    "dibl": (0, 0.5),
    "nbti_mv": (0, 300),
    "pbti_mv": (0, 300),
    "bit_line_low_mv": (-300, 0),
    "slope_factor": (1, 3),
    "sense_window": (1e-3, 0.5),
}


@dataclass(frozen=True)
class Technology:
    """A 6T cell and its surroundings in one process; `sram/data/technology.csv` says what each number is."""

    name: str
    node_nm: int
    supply_v: float
    threshold_n_v: float
    threshold_p_v: float
    slope_factor: float
    dibl: float
    specific_current_n_ua: float
    specific_current_p_ua: float
    length_nm: float
    pull_down_nm: float
    access_nm: float
    pull_up_nm: float
    mismatch_mv_um: float
    corner_mv: float
    threshold_mv_per_k: float
    nbti_mv: float
    pbti_mv: float
    bitline_ff: float
    sense_nm: float
    sense_window: float
    node_ff: float
    bit_line_low_mv: float
    clock_ns: float
    source: str = "illustrative"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _RANGES.get(field.name, (1e-9, np.inf))
            if field.type is not str and not low <= value <= high:
                raise InputError(f"technology {self.name}", field.name, value, f"{low:g} to {high:g}")

    def sigma_mv(self, width_nm: float) -> float:
        """Standard deviation of the threshold of a transistor of this width: Pelgrom, A_vt / sqrt(W L)."""
        return self.mismatch_mv_um / (width_nm * self.length_nm * 1e-6) ** 0.5

    @property
    def offset_sigma_mv(self) -> float:
        """Standard deviation of the sense amplifier's offset: the difference of its input pair's thresholds."""
        return 2**0.5 * self.sigma_mv(self.sense_nm)


@dataclass(frozen=True)
class Conditions:
    """Temperature, corner (nMOS then pMOS: slow, typical, fast), age and clock period (None: the technology's)."""

    temperature_k: float = REFERENCE_K
    corner: str = "tt"
    age_years: float = 0.0
    clock_ns: float | None = None

    def __post_init__(self) -> None:
        if not 200 <= self.temperature_k <= 450:
            raise InputError("conditions", "temperature_k", self.temperature_k, "200 to 450 K")
        if self.corner not in CORNERS:
            raise InputError("conditions", "corner", self.corner, ", ".join(CORNERS))
        if not 0 <= self.age_years <= 100:
            raise InputError("conditions", "age_years", self.age_years, "0 to 100")
        if self.clock_ns is not None and not 0 < self.clock_ns < np.inf:
            raise InputError("conditions", "clock_ns", self.clock_ns, "a positive number")

    @property
    def thermal_v(self) -> float:
        """kT/q."""
        return BOLTZMANN_OVER_CHARGE * self.temperature_k


@cache
def _table() -> dict[int, Technology]:
    text = resources.files("sram").joinpath("data/technology.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    nodes = [int(column) for column in rows[0] if column.isdecimal()]
    table = {}
    for node in nodes:
        numbers: dict[str, Any] = {row["parameter"]: float(row[str(node)]) for row in rows}
        table[node] = Technology(name=f"{node}nm", node_nm=node, **numbers)
    return table


def technology_names() -> list[str]:
    """Names of the illustrative nodes.

    >>> technology_names()
    ['65nm', '45nm', '28nm', '14nm', '7nm']
    """
    return [tech.name for tech in _table().values()]


def technology(node: int | str | Technology) -> Technology:
    """The illustrative technology of a node, by number or name (a Technology is returned as it is).

    >>> round(technology(28).sigma_mv(technology("28nm").access_nm), 1)
    35.0
    """
    if isinstance(node, Technology):
        return node
    number = int(node.removesuffix("nm")) if isinstance(node, str) and node.removesuffix("nm").isdecimal() else node
    if number not in _table():
        raise InputError("technology", "node", node, ", ".join(technology_names()))
    return _table()[int(number)]


def threshold_shifts(tech: Technology, conditions: Conditions) -> tuple[float, float]:
    """(nMOS, pMOS) threshold shift in volts: temperature, corner, and ageing as (t / 10 years)^0.2."""
    drift = -tech.threshold_mv_per_k * (conditions.temperature_k - REFERENCE_K)
    age = (conditions.age_years / 10) ** 0.2
    n, p = CORNERS[conditions.corner]
    n_mv = drift + n * tech.corner_mv + tech.pbti_mv * age
    p_mv = drift + p * tech.corner_mv + tech.nbti_mv * age
    return n_mv * 1e-3, p_mv * 1e-3


def current_scale(conditions: Conditions) -> float:
    """Specific current over that at 300 K: mobility as T^-1.5 times UT^2."""
    return (conditions.temperature_k / REFERENCE_K) ** 0.5
