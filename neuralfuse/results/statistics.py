"""Statistics over chips. The chip is the statistical unit: its thousand test images share one fault map and are not
independent.

Every function takes one accuracy per chip (fractions in 0..1) and says in its name or docstring which interval it
gives.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
from scipy.special import bdtr, bdtrc, betaincinv, stdtrit  # scipy.stats takes a second to load

CONFIDENCE = 0.95
FEW_CHIPS = 20  # below, intervals are printed with a warning
# What 95% intervals hold in fact, per cent of simulated lots of each kind, by the number of chips measured
# (tests/neuralfuse/results/test_coverage.py). No interval knows of bad chips that are not among them.
LOTS = ("near-normal", "skewed", "two humps, 80:20", "one bad in ten", "one bad in twenty")
COVERAGE: dict[str, dict[int, tuple[int, ...]]] = {
    "mean accuracy": {
        **{5: (95, 92, 67, 45, 41), 10: (95, 94, 89, 65, 41)},
        **{20: (96, 95, 98, 87, 64), 50: (95, 95, 98, 98, 91)},
    },
    "paired gain": {
        **{5: (95, 92, 68, 47, 52), 10: (95, 93, 89, 65, 43)},
        **{20: (95, 94, 98, 87, 64), 50: (95, 95, 98, 98, 91)},
    },
    "lowest supply within 5 points": {
        **{5: (89, 80, 67, 41, 43), 10: (92, 87, 88, 65, 47)},
        **{20: (94, 91, 97, 87, 64), 50: (94, 94, 98, 98, 91)},
    },
    "lowest supply within 1 point": {
        **{5: (86, 67, 67, 41, 24), 10: (89, 74, 88, 65, 40)},
        **{20: (92, 82, 97, 87, 63), 50: (93, 89, 98, 97, 91)},
    },
    "energy saving at equal accuracy": {
        **{5: (91, 90, 90, 89, 91), 10: (90, 92, 90, 86, 91)},
        **{20: (89, 91, 93, 86, 91), 50: (85, 94, 94, 91, 94)},
    },
}


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


def keeps(correct: np.ndarray, clean: np.ndarray, total: np.ndarray, points: float, per_score: int = 100) -> np.ndarray:
    """Whether so many right answers of `total` are within so many accuracy points of `clean` ones, bool[...] of
    int64[...]; counted, so that what is at the very margin is within it. Of another scale scores float64[...], which
    are exact, and a margin in units of which a score of 1 has `per_score`.

    >>> 0.36 >= 0.37 - 1 / 100, keeps(np.array([36, 35]), np.array(37), np.array(100), 1.0).tolist()
    (True, [True, False])
    """
    share = Fraction(str(points))
    return per_score * share.denominator * (clean - correct) <= share.numerator * total


def mean_over_chips(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis; where all chips agree it is their very number, which a sum divided by n need not be.

    >>> mean_over_chips(np.array([[0.1, 0.25], [0.1, 0.5], [0.1, 0.75]])).tolist()
    [0.1, 0.5]
    """
    if len(values) == 0:
        return np.full(values.shape[1:], np.nan)
    alike = (values == values[0]).all(axis=0)
    return values[0] if alike.all() else np.where(alike, values[0], values.mean(axis=0))[()]


SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # what an accuracy, and a difference of two, can be
UNBOUNDED = (-math.inf, math.inf)


def mean_interval(
    values: np.ndarray, confidence: float = CONFIDENCE, within: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """Mean of `values` (chips,) with Hall's interval: Student's t, transformed so that the lot's skewness drops out
    (P. Hall, J. R. Stat. Soc. B 54, 1992); NaN bounds for a single chip, NaN throughout for none. Bounds are cut to
    what a value can be, `within`.

    Accuracies pile up below the clean one with a tail of bad chips, and Student's own interval is then too narrow on
    that side: of such lots it covers 87 to 93% where this one covers 92 to 95, at the same width for normal lots.
    Neither knows of bad chips that are not among those measured (COVERAGE): `chip_margin` and `chip_yield` do.

    >>> e = mean_interval(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> round(e.mean, 3), round(e.low, 3), round(e.high, 3)
    (0.25, 0.045, 0.455)
    >>> e = mean_interval(np.array([0.1, 0.38, 0.39, 0.4]))
    >>> round(e.mean - e.low, 3), round(e.high - e.mean, 3)
    (0.745, 0.154)
    """
    values = np.asarray(values, dtype=float)
    low, high = map(float, mean_bounds(values[:, None], confidence, within)[:, 0])
    n = len(values)
    return Estimate(float(mean_over_chips(values)), float(values.std(ddof=1)) if n > 1 else math.nan, low, high, n)


def mean_bounds(
    values: np.ndarray, confidence: float = CONFIDENCE, within: tuple[float, float] = UNBOUNDED
) -> np.ndarray:
    """The bounds of `mean_interval`, low and high (2, v), of each column of `values` (chips, v)."""
    n = len(values)
    if n < 2:
        return np.full((2, values.shape[1]), np.nan)
    mean, deviation = mean_over_chips(values), values - values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    spread = np.sqrt((deviation**2).mean(axis=0))
    alike = spread <= 1e-12 * (1 + np.abs(mean))
    skewness = (deviation**3).mean(axis=0) / np.where(alike, 1.0, spread) ** 3
    a = np.where(np.abs(skewness) < 1e-9, 1e-9, skewness) / (3 * math.sqrt(n))
    # T + a T^2 + a^2 T^3 / 3 + a / 2 is normal to the second order; its inverse at Student's quantiles:
    quantile = student((1 + confidence) / 2, n - 1)
    bounds = [mean - error * (np.cbrt(1 + 3 * a * (q - a / 2)) - 1) / a for q in (quantile, -quantile)]
    return np.clip(np.where(alike, mean, np.array(bounds)), *within)


def sample_bounds(
    accuracy: np.ndarray,
    lost: np.ndarray,
    gained: np.ndarray,
    images: np.ndarray,
    confidence: float = CONFIDENCE,
    within: tuple[float, float] = SHARE,
) -> np.ndarray:
    """`mean_bounds` of accuracies (chips, v) that samples of images estimate, low and high (2, v): where few answers
    change, chips look alike that are not, so that the bounds are never closer than those of `images` (v,) independent
    ones of which so many were `lost` and `gained` (v,) (Clopper-Pearson, joined by MOVER: Zou and Donner, Stat. Med.
    27, 2008).

    >>> same = np.full((20, 1), 0.95)
    >>> sample_bounds(same, *(np.array([k]) for k in (0, 0, 640))).ravel().round(4).tolist()
    [0.9443, 0.9557]
    """
    tail = (1 - confidence) / 2
    down, up = [], []  # how far below and above what was counted the share of lost, and of gained, may lie
    for k in (lost, gained):
        down.append(k / images - np.nan_to_num(betaincinv(k, images - k + 1, tail)))
        up.append(np.nan_to_num(betaincinv(k + 1, images - k, 1 - tail), nan=1.0) - k / images)
    mean = mean_over_chips(accuracy)
    low, high = mean_bounds(accuracy, confidence, within)
    low, high = np.fmin(low, mean - np.hypot(up[0], down[1])), np.fmax(high, mean + np.hypot(down[0], up[1]))
    return np.clip([low, high], *within)


def sample_gain_bounds(gain: np.ndarray, images: np.ndarray) -> np.ndarray:
    """`sample_bounds` of paired differences (chips, v) on samples of `images` (chips, v): lost and gained is what chips
    differ by on balance.

    >>> sample_gain_bounds(np.zeros((20, 1)), np.full((20, 1), 32)).ravel().round(4).tolist()
    [-0.0057, 0.0057]
    """
    lost, gained = (np.maximum(sign * gain, 0) * images for sign in (-1, 1))
    counts = lost.sum(axis=0), gained.sum(axis=0), images.sum(axis=0)
    return sample_bounds(gain, *counts, within=DIFFERENCE)


@cache
def student(probability: float, freedom: int) -> float:
    """Quantile of Student's t."""
    return float(stdtrit(freedom, probability))


def paired_difference(
    treated: np.ndarray,
    control: np.ndarray,
    confidence: float = CONFIDENCE,
    within: tuple[float, float] = UNBOUNDED,
) -> Estimate:
    """Mean of treated - control on the same chips, in the same order, with `mean_interval` of the differences.

    >>> paired_difference(np.array([0.5, 0.7]), np.array([0.4, 0.6])).half_width < 1e-9
    True
    """
    return mean_interval(np.asarray(treated, dtype=float) - np.asarray(control, dtype=float), confidence, within)


def mean_differences(differences: np.ndarray, within: tuple[float, float] = DIFFERENCE) -> list[Estimate]:
    """`paired_difference` of accuracies, of each column of what chips differ by (chips, n), all at once.

    >>> [round(e.mean, 3) for e in mean_differences(np.array([[0.1, 0.2], [0.1, 0.4]]))]
    [0.1, 0.3]
    """
    n, means = len(differences), mean_over_chips(differences)
    spread = differences.std(axis=0, ddof=1) if n > 1 else np.full(differences.shape[1], math.nan)
    rows = zip(means, spread, *mean_bounds(differences, within=within), strict=True)
    return [Estimate(float(mean), float(std), float(low), float(high), n) for mean, std, low, high in rows]


def chip_yield(values: np.ndarray, threshold: float, confidence: float = CONFIDENCE) -> Estimate:
    """Share of chips with at least `threshold`, with the exact (Clopper-Pearson) binomial interval.

    >>> e = chip_yield(np.array([0.9, 0.9, 0.2, 0.95]), 0.85)
    >>> e.mean, round(e.low, 3), round(e.high, 3)
    (0.75, 0.194, 0.994)
    """
    values = np.asarray(values)
    good, n = int((values >= threshold).sum()), len(values)
    return Estimate(good / n, float("nan"), *exact_share(good, n, confidence), n)


@cache  # a study asks for the same few numbers of good chips at thousands of points
def exact_share(good: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bounds (Clopper-Pearson) of the share of all chips that are good, where `good` of `n` are."""
    tail = (1 - confidence) / 2
    low = betaincinv(good, n - good + 1, tail) if good else 0.0
    return float(low), float(betaincinv(good + 1, n - good, 1 - tail) if good < n else 1.0)


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

    def saving_of(self, voltages: np.ndarray, saving: np.ndarray) -> "Margin":
        """The same with another scope's savings (v,) at the swept `voltages` (v,), falling."""
        wanted = [self.voltage, self.voltage_high, self.voltage_low]
        at, low, high = np.interp(wanted, np.asarray(voltages)[::-1], np.asarray(saving)[::-1]).tolist()
        return replace(self, saving=at, saving_low=low, saving_high=high)


def margin(
    voltages: np.ndarray,
    accuracy: np.ndarray,
    saving: np.ndarray,
    clean: float,
    points: float,
    per_score: int = 100,
    confidence: float = CONFIDENCE,
) -> Margin:
    """The headline: `voltages` (v,) falling, `accuracy` (chips, v), `saving` (v,), `clean` accuracy of the bare
    network.

    The interval holds the voltages at which the band around the mean (`mean_interval`) does not rule the margin out;
    how often it holds the truth says COVERAGE (`chip_margin` is exact). Where the band rules the margin out at
    the highest voltage, the bound is that voltage and its saving (negative for a generator, maybe): the user would have
    to stay there.
    """
    threshold = clean - points / per_score
    accuracy, voltages, nan = np.asarray(accuracy, dtype=float), np.asarray(voltages, dtype=float), math.nan
    chips = len(accuracy)
    if chips == 0:
        return Margin(points, nan, nan, nan, nan, nan, nan, censored=False, chips=0)
    voltage, reached = crossing(voltages, mean_over_chips(accuracy), threshold)
    low = high = nan
    if chips > 1:  # a single chip would claim an interval without width
        high, low = crossings(voltages, mean_bounds(accuracy, confidence), threshold)
    found = Margin(points, voltage, float(low), float(high), nan, nan, nan, not reached, chips)
    return found.saving_of(voltages, saving)


@dataclass(frozen=True)
class ChipMargin:
    """Lowest swept voltage at which at least `share` of all chips stay within `points` of clean.

    The bounds are order statistics of the chips' own lowest voltages: whatever the lot looks like they hold the true
    voltage with `coverage`, computed from the binomial distribution; NaN where so few chips cannot tell.
    """

    points: float
    share: float
    voltage: float  # NaN where too few chips hold at any swept voltage
    voltage_low: float
    voltage_high: float  # at this supply at least `share` of all chips hold, unless the interval misses
    coverage: float
    chips: int


def chips_for_a_bound(share: float, confidence: float = CONFIDENCE) -> int:
    """How many chips it takes before `chip_margin` can say what `share` of all chips do.

    >>> chips_for_a_bound(0.5), chips_for_a_bound(0.9)
    (6, 36)
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(share))


def chip_margin(
    voltages: np.ndarray,
    accuracy: np.ndarray,
    clean: float,
    points: float,
    share: float,
    per_score: int = 100,
    confidence: float = CONFIDENCE,
) -> ChipMargin:
    """`voltages` (v,) falling, `accuracy` (chips, v). A chip holds at a voltage if it does there and at all above.

    Exact for any lot: of n chips the number whose own lowest voltage lies at or below the quantile is binomial
    (Conover, Practical Nonparametric Statistics, 1999, section 3.2).

    >>> rows = np.array([[0.9, 0.9, 0.8]] * 6 + [[0.9, 0.9, 0.9]] * 14)
    >>> found = chip_margin(np.array([1.0, 0.9, 0.8]), rows, 0.9, 5, share=0.8)
    >>> found.voltage, found.voltage_low, found.voltage_high, round(found.coverage, 3)
    (0.9, 0.8, 0.9, 0.978)
    """
    voltages, chips = np.asarray(voltages, dtype=float), len(accuracy)
    holds = np.logical_and.accumulate(np.asarray(accuracy) >= clean - points / per_score, axis=1).sum(axis=1)
    own = np.sort(np.append(voltages, np.inf)[np.where(holds, holds - 1, len(voltages))])  # rising; inf: at none

    def order(k: int) -> float:
        """The k-th lowest of the chips' own voltages; beyond the chips there is no telling."""
        return float(own[k - 1]) if 1 <= k <= chips and np.isfinite(own[k - 1]) else math.nan

    below, above, coverage = _order_statistics(chips, share, confidence)
    low, high = order(max(below, 1)) if below else float(voltages[-1]), order(above)
    return ChipMargin(points, share, order(math.ceil(share * chips - 1e-9)), low, high, coverage, chips)


@cache
def _order_statistics(chips: int, share: float, confidence: float) -> tuple[int, int, float]:
    """Which of the sorted chips bound the quantile, and how surely."""
    tail = (1 - confidence) / 2
    k = np.arange(chips + 1)
    at_most, more = bdtr(k, chips, share), bdtrc(k, chips, share)
    below = int((at_most >= tail).argmax())  # P(fewer) <= tail
    above = int((more <= tail).argmax()) + 1  # P(so many or more) <= tail
    return below, above, float(at_most[above - 1] - (at_most[below - 1] if below else 0.0))
