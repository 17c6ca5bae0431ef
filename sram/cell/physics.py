"""From transistor variation to a failure curve: the 6T cell and its rare failures.

Thresholds of the six transistors are independent normals (Pelgrom), and so is the offset of the sense amplifier that
reads the cell; a cell fails at a supply if it cannot be read in time, cannot be written in time, is disturbed by
reading, or does not hold (Mukhopadhyay, Mahmoodi, Roy, TCAD 2005). The probability of that is found by importance
sampling around the most probable failure points of all mechanisms (mixture importance sampling: Kanj, Joshi, Nassif,
DAC 2006), which costs the same at 1e-9 as at 1e-3.

The curve is that of one cell with an amplifier drawn for it, so it holds for the cells of many columns together. The
cells of a column share their amplifier, which is one cause of faulty columns; a map gets that from its `structure`.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from sram import random
from sram.cache import cache_folder
from sram.cell import bitcell_kernels as kernels
from sram.cell.bitcell_kernels import Transistors
from sram.cell.technology import Conditions, Technology, current_scale, technology, threshold_shifts
from sram.errors import InputError
from sram.failure import FailureCurve, Interpolated
from sram.files import write_atomic

MECHANISMS = ("access", "write", "read", "hold")
MODEL = 3  # raise when the model changes: cached curves of another model are not used
STREAM = 64  # of random numbers, beyond those of fault maps
_FARTHEST = 9.0  # failure points beyond this many standard deviations are rarer than 1e-19
_WIDE = 2.0  # standard deviations of the wide samples
_LOWEST, _HIGHEST = 0.03, 2.0  # V: every cell fails below, none is asked about above


@dataclass(frozen=True, eq=False)
class Cell:
    """What kernels need: mean and sigma, float64[7] in volts, of the thresholds and the sense amplifier's offset, and
    the rest."""

    mean: np.ndarray
    sigma: np.ndarray
    transistors: Transistors


@dataclass(frozen=True)
class SampledRate:
    """A probability with its standard error over itself, from so many samples."""

    probability: float
    relative_error: float
    samples: int


def cell(tech: Technology | int | str, conditions: Conditions | None = None) -> Cell:
    """The cell of a technology under conditions, in the units of the kernels."""
    tech, conditions = technology(tech), conditions or Conditions()
    n, p = threshold_shifts(tech, conditions)
    widths = np.array([tech.pull_down_nm, tech.access_nm, tech.pull_up_nm])
    thresholds = np.array([tech.threshold_n_v + n, tech.threshold_n_v + n, tech.threshold_p_v + p])
    specific_ua = np.array([tech.specific_current_n_ua, tech.specific_current_n_ua, tech.specific_current_p_ua])
    pull_down, access, pull_up = specific_ua * 1e-6 * widths / tech.length_nm * current_scale(conditions)
    clock_s = 1e-9 * (conditions.clock_ns or tech.clock_ns)
    transistors = Transistors(
        pull_down=float(pull_down),
        access=float(access),
        pull_up=float(pull_up),
        slope_factor=tech.slope_factor,
        dibl=tech.dibl,
        thermal_v=conditions.thermal_v,
        read_ohm=tech.sense_window * clock_s / (tech.bitline_ff * 1e-15),
        write_conductance=tech.node_ff * 1e-15 / (0.5 * clock_s),
        bit_line_low=tech.bit_line_low_mv * 1e-3,
    )
    sigma = [tech.sigma_mv(width) * 1e-3 for width in widths]
    mean = np.append(np.repeat(thresholds, 2), 0.0)
    return Cell(mean, np.append(np.repeat(sigma, 2), tech.offset_sigma_mv * 1e-3), transistors)


def _wanted(mechanisms: Iterable[str]) -> np.ndarray:
    names = tuple(mechanisms)
    if not names or not set(names) <= set(MECHANISMS):
        raise InputError("physics", "mechanisms", names, ", ".join(MECHANISMS))
    return np.array([name in names for name in MECHANISMS])


def _normals(samples: int, seed: int) -> np.ndarray:
    return random.normals(kernels.DEVIATIONS * samples, STREAM, seed=seed).reshape(samples, kernels.DEVIATIONS)


def critical_voltages(
    tech: Technology | int | str,
    conditions: Conditions | None = None,
    *,
    samples: int,
    seed: int = 0,
    mechanisms: Iterable[str] = MECHANISMS,
) -> tuple[np.ndarray, np.ndarray]:
    """Monte Carlo: (voltage float64[samples] below which each cell fails, int8[samples] index of the mechanism).

    >>> voltage, cause = critical_voltages(28, samples=200)
    >>> bool(0.2 < voltage.min() < voltage.max() < 0.8)
    True
    """
    return _critical_voltages(cell(tech, conditions), samples, seed, _wanted(mechanisms))


def _critical_voltages(c: Cell, samples: int, seed: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    voltage, cause = np.empty(samples), np.empty(samples, np.int8)
    normal = _normals(samples, seed)
    kernels.critical_voltages(normal, c.mean, c.sigma, _LOWEST, _HIGHEST, wanted, c.transistors, voltage, cause)
    return voltage, cause


def monte_carlo(
    tech: Technology | int | str,
    voltage: float,
    conditions: Conditions | None = None,
    *,
    samples: int,
    seed: int = 0,
    mechanisms: Iterable[str] = MECHANISMS,
) -> SampledRate:
    """Share of cells that fail at `voltage`, by brute force."""
    c, wanted = cell(tech, conditions), _wanted(mechanisms)
    failed = np.empty(samples, np.bool_)
    kernels.failures(_normals(samples, seed), c.mean, c.sigma, voltage, wanted, c.transistors, failed)
    k = int(np.count_nonzero(failed))
    return SampledRate(k / samples, (1 / k - 1 / samples) ** 0.5 if k else float("inf"), samples)


def failure_points(c: Cell, voltage: float, wanted: np.ndarray) -> np.ndarray:
    """Most probable failure points of the wanted mechanisms in both states, float64[m, 7], in standard deviations."""
    points = []
    for mechanism in np.flatnonzero(wanted):
        for state in range(2):
            point = np.empty(kernels.DEVIATIONS)
            args = (int(mechanism), state, voltage, c.mean, c.sigma, c.transistors, _FARTHEST)
            if 0 < kernels.closest_failure(*args, point) < _FARTHEST:
                points.append(point)
    return np.array(points).reshape(-1, kernels.DEVIATIONS)


def probability(
    tech: Technology | int | str,
    voltage: float,
    conditions: Conditions | None = None,
    *,
    samples: int = 20_000,
    seed: int = 0,
    mechanisms: Iterable[str] = MECHANISMS,
) -> SampledRate:
    """Probability that a cell fails at `voltage`, by mixture importance sampling.

    Samples are drawn from normals around the origin, narrow and wide (15% each), and around each most probable failure
    point, in proportion to how probable it is, and weighted by the ratio of densities. The wide ones are for failures
    that no point is near: without them a rare sample of large weight would spoil an estimate.
    """
    return _estimate(cell(tech, conditions), voltage, samples, seed, _wanted(mechanisms))


def _estimate(c: Cell, voltage: float, samples: int, seed: int, wanted: np.ndarray) -> SampledRate:
    points = failure_points(c, voltage, wanted)
    centres = np.vstack([np.zeros((2, kernels.DEVIATIONS)), points])
    spread = np.append([1.0, _WIDE], np.ones(len(points)))
    share = np.array([0.5, 0.5])
    if len(points):
        likely = ndtr(-np.linalg.norm(points, axis=1))
        share = np.append([0.15, 0.15], 0.7 * likely / likely.sum())
    # Strata: each centre gets its share of the samples exactly; the density is that of the mixture as drawn.
    count = np.maximum(np.round(share * samples).astype(np.int64), 100)
    strata = np.repeat(np.arange(len(count)), count)
    x = spread[strata, None] * _normals(len(strata), seed) + centres[strata]
    failed = np.empty(len(x), np.bool_)
    kernels.failures(x, c.mean, c.sigma, voltage, wanted, c.transistors, failed)
    weight = np.zeros(len(x))
    weight[failed] = 1 / (_density_ratios(x[failed], centres, spread) @ (count / count.sum()))
    mean = weight.mean()
    within = sum((strata == k).sum() * weight[strata == k].var() for k in range(len(count)))
    error = within**0.5 / len(x)
    return SampledRate(float(mean), float(error / mean) if mean else float("inf"), len(x))


def _density_ratios(x: np.ndarray, centres: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Densities of the mixture's components over the standard normal one: float64[n, k] at x float64[n, d]."""
    apart = np.stack([((x - centre) ** 2).sum(axis=1) for centre in centres], axis=1)
    log_ratio = 0.5 * ((x**2).sum(axis=1)[:, None] - apart / spread**2)
    return np.exp(log_ratio) / spread ** x.shape[1]


def failure_curve(
    tech: Technology | int | str,
    conditions: Conditions | None = None,
    *,
    samples: int = 20_000,
    seed: int = 0,
    mechanisms: Iterable[str] = MECHANISMS,
    progress: Callable[[float], object] | None = None,
) -> FailureCurve:
    """The failure curve of a technology, z from about 1 to below -6.2 (1e-9 and rarer), cached on disk by its inputs.

    Points by `probability` at evenly spaced supplies, each with a relative standard error below 10 %. All share one set
    of random numbers, so that their errors go together and the curve stays smooth. Takes seconds: `progress` is told
    the share done. Raises InputError if `samples` are too few.
    """
    tech, conditions = technology(tech), conditions or Conditions()
    names = sorted(mechanisms)
    wanted = _wanted(names)
    inputs = {
        "model": MODEL,
        "technology": asdict(tech),
        "conditions": asdict(conditions),
        "samples": samples,
        "seed": seed,
        "mechanisms": names,
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "curves" / f"{digest}.json"
    cached = _cached(path)
    if cached is None:
        cached = _compute(tech, conditions, samples, seed, wanted, progress or (lambda _: None))
        with contextlib.suppress(OSError):  # no place for a cache: it is computed again
            write_atomic(path, json.dumps(cached.to_dict()))
    return cached


def _cached(path: Path) -> FailureCurve | None:
    """The curve of an earlier run; a file that is absent or damaged counts as none."""
    try:
        return FailureCurve.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _compute(
    tech: Technology,
    conditions: Conditions,
    samples: int,
    seed: int,
    wanted: np.ndarray,
    progress: Callable[[float], object],
) -> FailureCurve:
    c = cell(tech, conditions)
    middle = float(np.median(_critical_voltages(c, 1000, seed, wanted)[0]))
    high = _voltage_at_distance(c, wanted, middle, 6.4)
    low = middle - (_voltage_at_distance(c, wanted, middle, 2.0) - middle)
    supplies = np.linspace(max(low, _LOWEST), high, 14)
    voltages: list[float] = []
    zs: list[float] = []
    for i, v in enumerate(supplies):
        progress((i + 1) / (len(supplies) + 1))
        found = _estimate(c, float(v), samples, seed, wanted)
        if not found.relative_error < 0.1:
            allowed = f"more: the relative error at {v:.3f} V is {found.relative_error:.0%}"
            raise InputError(f"failure curve of {tech.name}", "samples", samples, allowed)
        z = float(ndtri(found.probability))
        if np.isfinite(z) and (not zs or z < zs[-1]):
            voltages.append(round(float(v), 9))
            zs.append(z)
    progress(1.0)
    clock = conditions.clock_ns or tech.clock_ns
    name = f"{tech.name} {conditions.temperature_k:g}K {conditions.corner} {conditions.age_years:g}y {clock:g}ns"
    source = (
        f"{tech.source} {tech.name} 6T cell, EKV currents and Pelgrom variation, importance sampling (sram.physics)"
    )
    shape = Interpolated(tuple(voltages), tuple(zs))
    return FailureCurve(name, shape, "V", tech.supply_v, source, node_nm=tech.node_nm)


def _voltage_at_distance(c: Cell, wanted: np.ndarray, middle: float, distance: float) -> float:
    """Supply at which the nearest failure point is this many standard deviations away, by bisection."""
    low, high = middle, _HIGHEST
    for _ in range(16):
        v = 0.5 * (low + high)
        points = failure_points(c, v, wanted)
        near = np.linalg.norm(points, axis=1).min() if len(points) else _FARTHEST
        low, high = (v, high) if near < distance else (low, v)
    return high
