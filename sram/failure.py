"""Supply voltage to cell failure probability, and back.

Everything happens in z = probit(p), where published curves are nearly straight: p = Phi(z(v)), z falling strictly in v.
A cell with standard normal latent strength x fails at v iff x > -z(v), that is iff its critical voltage
`curve.critical_voltage(x)` lies above v.
"""

import json
import math
import os
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from numbers import Real
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from sram.errors import InputError
from sram.names import check_names

Array = NDArray[np.float64]
UNITS = ("V", "Vmin")
RATE = "cell_fault_rate"


@dataclass(frozen=True)
class Probit:
    """z(v) = (mu - v) / sigma + quadratic (v - centre)^2 between low and high around their centre; beyond, straight.

    mu and sigma belong to the tangent in the middle of the data, `quadratic` bends it there (per unit of voltage
    squared). A parabola must turn somewhere: the straight continuation is why z falls strictly at every voltage.
    """

    mu: float
    sigma: float
    quadratic: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mu) and 0 < self.sigma < math.inf):
            raise InputError("failure curve", "sigma", self.sigma, "a positive number, with a finite mu")
        if not self.low < self.high:
            raise InputError("failure curve", "low", self.low, f"below high = {self.high}")
        if self.quadratic and not abs(self.quadratic) * (self.high - self.low) * self.sigma < 1:
            allowed = "one with which z still falls at both ends: |quadratic| (high - low) sigma < 1"
            raise InputError("failure curve", "quadratic", self.quadratic, allowed)

    @property
    def centre(self) -> float:
        """Middle of the data, where the tangent touches."""
        return (self.low + self.high) / 2

    def z(self, v: Array) -> Array:
        """probit(p) at voltages v, any shape."""
        z = (self.mu - v) / self.sigma
        if not self.quadratic:
            return z
        inside = np.clip(v, self.low, self.high) - self.centre
        return z + self.quadratic * inside * (2 * (v - self.centre) - inside)

    def voltage(self, z: Array) -> Array:
        """Voltages at which probit(p) is z, any shape; the inverse of `z`."""
        if not self.quadratic:
            return self.mu - self.sigma * z
        fall = (self.mu - self.centre) / self.sigma - z  # below z at the centre
        ends = np.array([self.high, self.low]) - self.centre
        top, bottom = ends / self.sigma - self.quadratic * ends**2
        inside = np.clip(fall, bottom, top)
        # The root on the falling branch, in the form that does not cancel for a small quadratic term.
        d = 2 * inside / (1 / self.sigma + np.sqrt(1 / self.sigma**2 - 4 * self.quadratic * inside))
        return self.centre + d + (fall - inside) / (1 / self.sigma - 2 * self.quadratic * d)


@dataclass(frozen=True)
class Interpolated:
    """Through measured points exactly: monotone cubic in z, straight beyond the ends.

    Slopes by Fritsch and Butland (SIAM J. Sci. Stat. Comput. 5, 1984), end slopes the end secants, so that the
    continuation is strict too.
    """

    voltages: tuple[float, ...]
    zs: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(x, Real) for x in (*self.voltages, *self.zs)):
            raise InputError("failure curve", "points", (self.voltages, self.zs), "numbers")
        v, z = np.array(self.voltages), np.array(self.zs)
        if len(v) < 2 or len(v) != len(z) or not np.isfinite(v).all() or not np.isfinite(z).all():
            raise InputError("failure curve", "points", len(v), "at least two finite (voltage, z)")
        if (np.diff(v) <= 0).any() or (np.diff(z) >= 0).any():
            raise InputError(
                "failure curve", "points", self.voltages, "voltages rising, probabilities falling strictly"
            )

    @property
    def low(self) -> float:
        """The lowest voltage measured."""
        return self.voltages[0]

    @property
    def high(self) -> float:
        """The highest voltage measured."""
        return self.voltages[-1]

    def _cubic(self) -> tuple[Array, Array, Array]:
        v, z = np.array(self.voltages), np.array(self.zs)
        h, secant = np.diff(v), np.diff(z) / np.diff(v)
        w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        inner = (w1 + w2) / (w1 / secant[:-1] + w2 / secant[1:])
        return v, z, np.concatenate([secant[:1], inner, secant[-1:]])

    @staticmethod
    def _evaluate(t: Array, h: Array, z0: Array, z1: Array, d0: Array, d1: Array) -> tuple[Array, Array]:
        """Cubic Hermite value and slope (in v) at t in [0, 1] of an interval of width h."""
        rise = z1 - z0
        c2, c3 = 3 * rise - h * (2 * d0 + d1), h * (d0 + d1) - 2 * rise
        return z0 + t * (h * d0 + t * (c2 + t * c3)), (h * d0 + t * (2 * c2 + 3 * t * c3)) / h

    def z(self, v: Array) -> Array:
        """probit(p) at voltages v float64[n]."""
        knots, zs, slopes = self._cubic()
        i = np.clip(np.searchsorted(knots, v, side="right") - 1, 0, len(knots) - 2)
        h, inside = knots[i + 1] - knots[i], np.clip(v, knots[0], knots[-1])
        value, _ = self._evaluate((inside - knots[i]) / h, h, zs[i], zs[i + 1], slopes[i], slopes[i + 1])
        return value + np.where(v < knots[0], slopes[0], slopes[-1]) * (v - inside)

    def voltage(self, z: Array) -> Array:
        """Voltages at which probit(p) is z float64[n]; the inverse of `z`."""
        knots, zs, slopes = self._cubic()
        i = np.clip(len(zs) - 1 - np.searchsorted(zs[::-1], z, side="left"), 0, len(zs) - 2)
        h, inside = knots[i + 1] - knots[i], np.clip(z, zs[-1], zs[0])
        # Newton kept inside a shrinking bracket: always converges, six or seven steps in practice.
        a, b = np.zeros_like(inside), np.ones_like(inside)
        t = (inside - zs[i]) / (zs[i + 1] - zs[i])
        for _ in range(60):
            value, slope = self._evaluate(t, h, zs[i], zs[i + 1], slopes[i], slopes[i + 1])
            above = value > inside
            a, b = np.where(above, t, a), np.where(above, b, t)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = t - (value - inside) / (slope * h)
            new = np.where((step >= a) & (step <= b), step, (a + b) / 2)
            moved = np.abs(new - t).max(initial=0.0)
            t = new
            if moved < 1e-15:
                break
        return knots[i] + t * h + (z - inside) / np.where(z > zs[0], slopes[0], slopes[-1])


@dataclass(frozen=True)
class FailureCurve:
    """Probability that a cell is faulty, against the supply voltage in `unit` ("V", or "Vmin": multiples of Vmin).

    `rate` says what the probability counts: "cell_fault_rate", the share of cells that are faulty, and nothing else
    (where cells are stuck, a rate of flipped bits is half of that); `nominal` is the nominal voltage in the same unit,
    `low` and `high` the voltages between which the curve rests on data. Immutable, hashable, picklable, and equal when
    everything in it is equal. Raises InputError.

    >>> ibm = curve("ibm14")
    >>> round(float(ibm.probability(0.8333)), 4), round(float(ibm.log10_probability(1.0)), 2)
    (0.0104, -7.3)
    >>> round(float(ibm.voltage(1e-9)), 4)
    1.0372
    """

    name: str
    shape: Probit | Interpolated
    unit: str
    nominal: float
    source: str = field(metadata={"hashed": False})
    node_nm: float | None = None
    rate: str = RATE

    def __post_init__(self) -> None:
        for key in ("name", "source"):
            if not isinstance(getattr(self, key), str):
                raise InputError("failure curve", key, getattr(self, key), "a text")
        check_names("failure curve", [self.name])
        for key, value in (("nominal", self.nominal), ("node_nm", 1.0 if self.node_nm is None else self.node_nm)):
            if not (isinstance(value, Real) and 0 < value < math.inf):
                raise InputError(self.name, key, value, "a positive number")
        if self.unit not in UNITS:
            raise InputError(self.name, "unit", self.unit, " or ".join(UNITS))
        if self.rate != RATE:
            raise InputError(self.name, "rate", self.rate, f"{RATE}: the share of cells that are faulty")

    @property
    def low(self) -> float:
        """The lowest voltage of the data."""
        return self.shape.low

    @property
    def high(self) -> float:
        """The highest voltage of the data."""
        return self.shape.high

    def extrapolates(self, voltage: float) -> bool:
        """Whether the curve is believed at this voltage, not measured: it lies outside `low` to `high`.

        >>> [curve("ibm14").extrapolates(v) for v in (0.7, 0.8, 1.0)]
        [True, False, True]
        """
        return not self.low <= voltage <= self.high

    def z(self, v: ArrayLike) -> Array:
        """probit(p) at voltage v; any shape. Strictly falling in v."""
        return self.shape.z(np.asarray(v, dtype=np.float64))

    def probability(self, v: ArrayLike) -> Array:
        """Probability at voltage v; any shape. Full relative precision down to 1e-300."""
        return ndtr(self.z(v))

    def log10_probability(self, v: ArrayLike) -> Array:
        """log10 of the probability, also where the probability itself would underflow."""
        return log_ndtr(self.z(v)) / math.log(10)

    def voltage_at_z(self, z: ArrayLike) -> Array:
        """Voltage at which probit(p) is z; the inverse of `z`."""
        return self.shape.voltage(np.asarray(z, dtype=np.float64))

    def voltage(self, probability: ArrayLike) -> Array:
        """Voltage at which the probability is this one; the inverse of `probability`.

        Raises InputError unless 0 < probability < 1.
        """
        p = np.asarray(probability, dtype=np.float64)
        if not ((p > 0) & (p < 1)).all():
            raise InputError(self.name, "probability", probability, "between 0 and 1, both excluded")
        return self.voltage_at_z(ndtri(p))

    def critical_voltage(self, latent: ArrayLike) -> Array:
        """Voltage below which a cell of this standard normal latent weakness fails (weak cells have a large latent)."""
        return self.voltage_at_z(-np.asarray(latent, dtype=np.float64))

    def to_dict(self) -> dict:
        """Plain data for JSON; `FailureCurve.from_dict` is the inverse."""
        shape = {k: list(x) if isinstance(x, tuple) else x for k, x in vars(self.shape).items()}
        shape = {k: x for k, x in shape.items() if x not in (math.inf, -math.inf)}  # JSON has no infinity
        return {
            "name": self.name,
            **shape,
            "unit": self.unit,
            "nominal": self.nominal,
            "source": self.source,
            "node_nm": self.node_nm,
            "rate": self.rate,
        }

    @staticmethod
    def from_dict(data: dict) -> "FailureCurve":
        """The curve that `to_dict` described. Raises InputError on unknown or missing keys and on wrong values."""
        if not isinstance(data, dict):
            raise InputError("failure curve", "keys", data, "those of a failure curve")
        data = dict(data)
        name = data.get("name", "failure curve")
        kind = Interpolated if "voltages" in data else Probit
        shape = {key: data.pop(key) for key in kind.__dataclass_fields__ if key in data}
        shape = {key: tuple(x) if isinstance(x, list) else x for key, x in shape.items()}
        try:
            return FailureCurve(shape=kind(**shape), **data)
        except TypeError as error:
            raise InputError(name, "keys", sorted({*shape, *data}), f"those of a failure curve ({error})") from None


def through(
    name: str,
    voltages: ArrayLike,
    probabilities: ArrayLike,
    *,
    unit: str = "V",
    nominal: float = 1.0,
    source: str = "",
    node_nm: float | None = None,
) -> FailureCurve:
    """The curve that passes exactly through measured points, in any order, and monotonically between them.

    Raises InputError unless there is one probability to each voltage, in (0, 1) and rising as the voltage falls.

    >>> through("mine", [0.6, 0.5, 0.4], [1e-6, 1e-3, 0.1]).log10_probability([0.6, 0.5]).round(12)
    array([-6., -3.])
    """
    v, p = np.asarray(voltages, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if v.ndim != 1 or v.shape != p.shape:
        raise InputError(name, "length", (v.size, p.size), "as many probabilities as voltages")
    if not ((p > 0) & (p < 1)).all():
        raise InputError(name, "probability", probabilities, "between 0 and 1, both excluded")
    order = np.argsort(v)
    shape = Interpolated(tuple(v[order].tolist()), tuple(ndtri(p[order]).tolist()))
    return FailureCurve(name, shape, unit, nominal, source, node_nm)


def read(path: str | os.PathLike) -> FailureCurve:
    """The curve in a JSON file that holds `FailureCurve.to_dict`. Raises InputError if there is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            path, "file", str(error)[:80], "a failure curve in JSON, as `neuralfuse curve fit` writes it"
        ) from None
    if not isinstance(data, dict):
        raise InputError(path, "file", type(data).__name__, "a failure curve in JSON")
    try:
        return FailureCurve.from_dict(data)
    except InputError as error:
        raise InputError(path, f"{error.where} {error.key}", error.value, error.allowed) from None


@cache
def _presets() -> dict[str, FailureCurve]:
    text = resources.files("sram").joinpath("data/curves.json").read_text(encoding="utf-8")
    return {name: FailureCurve.from_dict({"name": name, **entry}) for name, entry in json.loads(text).items()}


def curve_names() -> list[str]:
    """Names of the published curves.

    >>> curve_names()
    ['ibm14', 'kc705b', 'vc707']
    """
    return list(_presets())


def curve(name: str | FailureCurve) -> FailureCurve:
    """The published curve of this name, or the one in a .json file (a FailureCurve is returned as it is).

    Raises InputError on unknown names.
    """
    if isinstance(name, FailureCurve):
        return name
    if name.endswith(".json"):
        return read(name)
    if name not in _presets():
        raise InputError("failure curve", "name", name, ", ".join(curve_names()) + ", or a .json file")
    return _presets()[name]
