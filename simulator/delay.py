"""Delay of a path against its supply: the alpha-power law, fits of it, and what an accelerator says of its paths.

delay = k V / (V - threshold)^alpha (Sakurai and Newton, JSSC 1990). Of all the numbers only ratios to the delay at the
nominal supply are used, so k does not enter. `delay_fits.csv` has the fits that come with the package.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, Literal

import numpy as np
from scipy.optimize import minimize_scalar

from sram.errors import InputError

RANGES = {"threshold_v": (0.001, 100), "alpha": (0.5, 4)}
MOST_NS = 1e9


@dataclass(frozen=True)
class AlphaPower:
    """delay = k V / (V - threshold_v)^alpha. `nominal_ns`: of the path at the rail's nominal supply, where known.

    >>> path = AlphaPower(0.4, 1.5, "a library")
    >>> round(path.relative(0.7, nominal_v=1.0), 3)
    1.98
    """

    threshold_v: float
    alpha: float
    source: str
    nominal_ns: float | None = None

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for key, (least, most) in RANGES.items():
            if not least <= getattr(self, key) <= most:  # NaN is not
                raise InputError("delay", key, getattr(self, key), f"{least} to {most}")
        if self.nominal_ns is not None and not 0 < self.nominal_ns <= MOST_NS:
            raise InputError("delay", "nominal_ns", self.nominal_ns, f"more than 0, at most {MOST_NS:g}")

    def relative(self, volts: float, nominal_v: float) -> float:
        """Delay at a supply over that at the nominal one. InputError at or below threshold, where nothing switches."""
        if not self.threshold_v < nominal_v:
            raise InputError("delay", "threshold_v", self.threshold_v, f"less than the nominal {nominal_v:g} V")
        if not volts > self.threshold_v:
            raise InputError(
                "operating point", "supply in V", volts, f"above the threshold of {self.threshold_v:.4g} V"
            )
        overdrive = (nominal_v - self.threshold_v) / (volts - self.threshold_v)
        return volts / nominal_v * math.pow(overdrive, self.alpha)


@dataclass(frozen=True)
class Delay:
    """How the paths of an accelerator slow down with their supplies.

    `margin`: at nominal supplies a path takes 1 / (1 + margin) of the clock's period. `corner`: the process corner that
    the clock is signed off at. `logic`: of the array's critical path; left out, that of a MAC of 130 nm cells with its
    threshold in proportion to the nominal supply (`mac_path`). `sram`: of an access; left out, that of the SRAM table's
    transistors at the node, as `sram.energy.cycle_ns` has it.
    """

    margin: float = 0.1
    corner: Literal["ss", "ff"] = "ss"
    logic: AlphaPower | None = None
    sram: AlphaPower | None = None

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise InputError("delay", "margin", self.margin, "0 to 1, of the delay of a path")
        if self.corner not in ("ss", "ff"):
            raise InputError("delay", "corner", self.corner, "ss, ff")


@dataclass(frozen=True)
class Fit:
    """A row of delay_fits.csv: a path, at nominal_v of its library, from volts_low to volts_high."""

    path: AlphaPower
    nominal_v: float
    volts_low: float
    volts_high: float


@cache
def published(corner: str = "ss") -> Fit:
    """The MAC's critical path at -40 C in a process corner of the package's library.

    >>> published().path.threshold_v, published().path.alpha
    (1.0269, 1.7868)
    """
    text = resources.files("simulator").joinpath("delay_fits.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    row = next(row for row in rows if row["process"] == corner)
    path = AlphaPower(float(row["threshold_v"]), float(row["alpha"]), row["source"])
    return Fit(path, *(float(row[key]) for key in ("nominal_v", "volts_low", "volts_high")))


def mac_path(nominal_v: float, corner: str = "ss") -> AlphaPower:
    """The MAC's path at another nominal supply: the same alpha, and a threshold that is the same share of the supply.

    That share is an assumption where the node is another: supplies and thresholds were lowered together, but not at the
    same rate in every process. An accelerator that knows better says so in its file.

    >>> round(mac_path(0.8).threshold_v, 4), round(mac_path(0.8).relative(0.72, 0.8), 3)
    (0.4564, 1.445)
    """
    fit = published(corner)
    share = nominal_v / fit.nominal_v
    source = f"{fit.path.source}; {fit.path.threshold_v} V of {fit.nominal_v:g} V, in proportion to {nominal_v:g} V"
    return AlphaPower(fit.path.threshold_v * share, fit.path.alpha, source)


def fit(volts: Sequence[float], delays: Sequence[float], source: str) -> AlphaPower:
    """The alpha-power law of delays (any unit) at supplies in volts: least squares of the logarithms.

    InputError for fewer than four points, or one that is not above 0.

    >>> found = fit([0.6, 0.7, 0.8, 0.9], [v / (v - 0.3) ** 1.4 for v in (0.6, 0.7, 0.8, 0.9)], "made up")
    >>> round(found.threshold_v, 4), round(found.alpha, 4)
    (0.3, 1.4)
    """
    v, d = np.asarray(volts, dtype=np.float64), np.asarray(delays, dtype=np.float64)
    if len(v) < 4 or len(v) != len(d) or not (min(v) > 0 and min(d) > 0):
        raise InputError("delay", "points", f"{len(v)} supplies, {len(d)} delays", "four or more of each, all above 0")

    def line(threshold: float) -> tuple[float, float]:
        """(alpha, sum of squared errors) at a threshold."""
        columns = np.column_stack([np.ones_like(v), -np.log(v - threshold)])
        wanted = np.log(d / v)
        found = np.linalg.lstsq(columns, wanted)[0]
        return float(found[1]), float(np.sum((columns @ found - wanted) ** 2))

    bounds = (RANGES["threshold_v"][0], float(min(v)) - 1e-6)
    threshold = minimize_scalar(lambda t: line(t)[1], bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    return AlphaPower(float(threshold), line(threshold)[0], source)
