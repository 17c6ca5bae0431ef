"""Statistics over chips. The chip is the statistical unit: its thousand test images share one fault map and are not
independent.

Every function takes one accuracy per chip (fractions in 0..1) and says in its name or docstring which interval it
gives.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over chips with its interval."""

    mean: float
    std: float  # over chips, ddof = 1; NaN for one chip
    low: float  # NaN for one chip, as is `high`; for none the mean is NaN too
    high: float
    chips: int

    @property
    def half_width(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2


def mean_over_chips(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis; where all chips agree it is their very number, which a sum divided by n need not be.

    >>> mean_over_chips(np.array([[0.1, 0.25], [0.1, 0.5], [0.1, 0.75]])).tolist()
    [0.1, 0.5]
    """
    if len(values) == 0:
        return np.full(values.shape[1:], np.nan)
    alike = (values == values[0]).all(axis=0)
    return values[0] if alike.all() else np.where(alike, values[0], values.mean(axis=0))[()]


def t_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of `values` (chips,) with Student's t interval; NaN bounds for a single chip, which has no spread, and NaN
    throughout for none.

    >>> e = t_interval(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> round(e.mean, 3), round(e.low, 3), round(e.high, 3)
    (0.25, 0.045, 0.455)
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), float("nan"), n)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)
    return Estimate(mean, std, mean - half, mean + half, n)


def bootstrap_indices(chips: int, resamples: int, seed: int) -> np.ndarray:
    """Chip numbers of each resample, shape (resamples, chips); the same chips are drawn for every quantity: paired."""
    return np.random.default_rng(seed).integers(0, chips, size=(resamples, chips))


def bootstrap_interval(
    values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = 4000, seed: int = 0
) -> Estimate:
    """Mean of `values` (chips,) with the percentile bootstrap interval over chips.

    >>> e = bootstrap_interval(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> bool(0.1 <= e.low < e.mean < e.high <= 0.4)
    True
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return t_interval(values)
    means = values[bootstrap_indices(len(values), resamples, seed)].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(values.mean()), float(values.std(ddof=1)), float(low), float(high), len(values))


def paired_difference(treated: np.ndarray, control: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of treated - control on the same chips, in the same order, with a t interval of the differences.

    >>> paired_difference(np.array([0.5, 0.7]), np.array([0.4, 0.6])).half_width < 1e-9
    True
    """
    return t_interval(np.asarray(treated, dtype=float) - np.asarray(control, dtype=float), confidence)


def chip_yield(values: np.ndarray, threshold: float, confidence: float = CONFIDENCE) -> Estimate:
    """Share of chips with at least `threshold`, with the exact (Clopper-Pearson) binomial interval.

    >>> e = chip_yield(np.array([0.9, 0.9, 0.2, 0.95]), 0.85)
    >>> e.mean, round(e.low, 3), round(e.high, 3)
    (0.75, 0.194, 0.994)
    """
    values = np.asarray(values)
    good, n = int((values >= threshold).sum()), len(values)
    interval = stats.binomtest(good, n).proportion_ci(confidence, method="exact")
    return Estimate(good / n, float("nan"), float(interval.low), float(interval.high), n)


def crossing(voltages: np.ndarray, accuracy: np.ndarray, threshold: float) -> tuple[float, bool]:
    """Lowest voltage at which accuracy still holds, coming down from the top, linear between swept voltages.

    `voltages` (n,) falling, `accuracy` (n,). Returns (voltage, reached): `reached` False means that accuracy held down
    to the lowest swept voltage, so that the true answer lies at or below it; NaN that it does not hold even at the top.
    An accuracy of NaN, of no chip, holds nowhere.

    >>> crossing(np.array([1.0, 0.9, 0.8]), np.array([0.9, 0.9, 0.7]), 0.85)
    (0.875, True)
    >>> crossing(np.array([1.0, 0.9]), np.array([0.9, 0.9]), 0.85)
    (0.9, False)
    """
    fails = np.flatnonzero(~(np.asarray(accuracy) >= threshold))
    if len(fails) == 0:
        return float(voltages[-1]), False
    i = int(fails[0])
    if i == 0:
        return float("nan"), True
    share = (accuracy[i - 1] - threshold) / (accuracy[i - 1] - accuracy[i])
    return round(float(voltages[i - 1] + share * (voltages[i] - voltages[i - 1])), 12), True


def crossings(voltages: np.ndarray, accuracy: np.ndarray, threshold: float) -> np.ndarray:
    """`crossing` of every row of accuracy (n, v) at once; a row that holds nowhere counts as the highest voltage."""
    fails = accuracy < threshold
    first = np.where(fails.any(axis=1), fails.argmax(axis=1), len(voltages) - 1)
    above = np.maximum(first - 1, 0)
    rows = np.arange(len(accuracy))
    high, low = accuracy[rows, above], accuracy[rows, first]
    share = np.where(fails[rows, first] & (first > 0), (high - threshold) / np.where(high > low, high - low, 1.0), 1.0)
    return voltages[above] + share * (voltages[first] - voltages[above])


@dataclass(frozen=True)
class Margin:
    """Lowest voltage, and energy saving there, at which mean accuracy stays within `points` of clean."""

    points: float
    voltage: float  # NaN where accuracy holds at no swept voltage, and where there is no chip
    voltage_low: float  # the bounds are NaN for fewer than two chips
    voltage_high: float
    saving: float  # share of the unprotected network's energy at nominal voltage
    saving_low: float
    saving_high: float
    censored: bool  # held down to the lowest swept voltage: the true voltage is at or below `voltage`
    chips: int


def margin(
    voltages: np.ndarray,
    accuracy: np.ndarray,
    saving: np.ndarray,
    clean: float,
    points: float,
    confidence: float = CONFIDENCE,
    resamples: int = 4000,
    seed: int = 0,
) -> Margin:
    """The headline: `voltages` (v,) falling, `accuracy` (chips, v), `saving` (v,), `clean` accuracy of the bare
    network.

    Intervals: percentile bootstrap over chips of the crossing itself. A resample that holds nowhere counts as the
    highest swept voltage and its saving (which may be negative for a generator): the user would have to stay there.
    """
    threshold = clean - points / 100
    accuracy = np.asarray(accuracy, dtype=float)
    chips, nan = len(accuracy), float("nan")
    if chips == 0:
        return Margin(points, nan, nan, nan, nan, nan, nan, censored=False, chips=0)
    voltage, reached = crossing(voltages, accuracy.mean(axis=0), threshold)
    low = high = nan
    if chips > 1:  # a chip drawn from itself again and again would claim an interval without width
        means = accuracy[bootstrap_indices(chips, resamples, seed)].mean(axis=1)
        samples = crossings(np.asarray(voltages, dtype=float), means, threshold)
        low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    rising = np.argsort(voltages)

    def at(v: float) -> float:
        return float("nan") if np.isnan(v) else float(np.interp(v, voltages[rising], np.asarray(saving)[rising]))

    return Margin(points, voltage, float(low), float(high), at(voltage), at(high), at(low), not reached, chips)
