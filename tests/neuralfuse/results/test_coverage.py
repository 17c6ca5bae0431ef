"""Do intervals over chips cover what they say, for lots of the shapes that chips have?

Each cell is 4000 simulated studies: coverage of 95% is found within 0.934..0.966 but by chance 1 in 300,000; with some
forty cells a false alarm is 1 in 7,000. Seeds are fixed. Lots: accuracies of chips, all below a clean 0.9.
"""

from collections.abc import Callable

import numpy as np
import pytest

from neuralfuse.results import statistics
from neuralfuse.results.pareto import Trade, saving_between
from neuralfuse.results.statistics import MARGIN_COVERAGE, MEAN_COVERAGE, chip_margin, margin

STUDIES = 4000
Lot = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SMOOTH: dict[str, Lot] = {
    "normal": lambda rng, size: rng.normal(0.8, 0.03, size),
    "gamma": lambda rng, size: 0.9 - 0.015 * rng.gamma(4, 1, size),
    "at the ceiling": lambda rng, size: 0.9 - 0.03 * rng.exponential(1, size),
    "half of them at the ceiling": lambda rng, size: 0.9 - 0.3 * rng.beta(0.5, 4, size),
}


def humps(good: float) -> Lot:
    return lambda rng, size: np.where(rng.random(size) < good, 0.88, 0.5) + rng.normal(0, 0.01, size)


def covered(lot: Lot, chips: int, seed: int = 1) -> float:
    rng = np.random.default_rng(seed)
    truth = lot(rng, (2_000_000,)).mean()
    low, high = statistics._bands(lot(rng, (chips, STUDIES)), 0.95)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("chips", list(MEAN_COVERAGE))
@pytest.mark.parametrize("lot", list(SMOOTH))
def test_means_of_smooth_lots_are_covered_as_stated(lot, chips):
    assert MEAN_COVERAGE[chips][0] / 100 - 0.016 <= covered(SMOOTH[lot], chips) <= 0.966


@pytest.mark.parametrize("chips", list(MEAN_COVERAGE))
def test_what_rare_bad_chips_do_is_stated(chips):
    """Of lots with bad chips that the sample may lack the coverage is what it is: printed, not hidden."""
    _, two_humps, rare = MEAN_COVERAGE[chips]
    assert 100 * covered(humps(0.8), chips) == pytest.approx(two_humps, abs=3)
    assert 100 * covered(humps(0.95), chips) == pytest.approx(rare, abs=3)


def logistic(centres: np.ndarray, voltages: np.ndarray) -> np.ndarray:
    """Accuracy of chips that fall from 0.9 around their own voltages."""
    return 0.1 + 0.8 / (1 + np.exp(-(voltages - centres[..., None]) / 0.008))


CENTRES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(0.82, 0.01, n),
    "skewed": lambda rng, n: 0.80 + 0.008 * rng.gamma(2, 1, n),
}


@pytest.mark.parametrize("points", [1.0, 5.0])
@pytest.mark.parametrize("chips", [5, 10, 20])
def test_the_lowest_voltage_within_a_margin_is_covered_as_stated(chips, points):
    """1000 studies of the skewed lot: within 4 of the stated per cent but by chance 1 in 400 a cell; the normal one is
    covered better."""
    rng, voltages, found = np.random.default_rng(3), np.linspace(1, 0.75, 26), {}
    for name, centres in CENTRES.items():
        mean = logistic(centres(rng, 200_000), voltages).mean(axis=0)
        truth, _ = statistics.crossing(voltages, mean, 0.9 - points / 100)
        studies = [logistic(centres(rng, chips), voltages) for _ in range(1000)]
        margins = [margin(voltages, accuracy, 1 - voltages**2, 0.9, points) for accuracy in studies]
        found[name] = 100 * np.mean([one.voltage_low <= truth <= one.voltage_high for one in margins])
    assert found["skewed"] == pytest.approx(MARGIN_COVERAGE[chips][points == 5.0], abs=4)
    assert found["skewed"] - 4 < found["normal"] < 98


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_quantile_of_chips_is_covered_whatever_the_lot(share):
    rng, voltages = np.random.default_rng(4), np.linspace(1, 0.75, 126)
    for lot in (CENTRES["normal"], CENTRES["skewed"], lambda rng, n: np.where(rng.random(n) < 0.9, 0.8, 0.9)):
        own = np.sort(lot(rng, 400_000))[int(share * 400_000)]
        holding = voltages[logistic(np.array([own]), voltages)[0] >= 0.85]
        hits = 0
        for _ in range(500):
            found = chip_margin(voltages, logistic(lot(rng, 20), voltages), 0.9, 5, share)
            hits += found.voltage_low - 1e-9 <= holding.min() <= found.voltage_high + 1e-9
        assert hits / 500 >= found.coverage - 0.03


def test_savings_at_equal_accuracy_are_covered():
    """Two networks on the same chips, the second a little tougher; 1000 studies of 20 chips: 95% within 0.926..0.974
    but by chance 1 in 2000."""
    rng, voltages = np.random.default_rng(5), np.linspace(1, 0.75, 26)

    def study(chips: int) -> list[Trade]:
        centre = rng.normal(0.82, 0.01, chips)
        saving = np.tile(1 - voltages**2, (chips, 1))
        return [
            Trade(voltages, np.arange(chips), logistic(centre - shift, voltages), saving)
            for shift in (rng.normal(0.01, 0.004, chips), np.zeros(chips))
        ]

    ours, theirs = (float(one.saving_at(0.85, one.accuracy.mean(axis=0)[None])[0]) for one in study(50_000))
    found = [saving_between(*study(20), 0.85) for _ in range(1000)]
    assert 0.926 <= np.mean([one.low <= ours - theirs <= one.high for one in found]) <= 0.974
