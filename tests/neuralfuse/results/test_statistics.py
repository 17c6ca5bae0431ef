"""Are the statistics right? Intervals cover what they claim, and the chip is the unit."""

import numpy as np
import pytest
from scipy import stats

from neuralfuse.results.statistics import (
    bootstrap_indices,
    bootstrap_interval,
    chip_yield,
    crossing,
    crossings,
    margin,
    paired_difference,
    t_interval,
)


def test_t_interval_equals_scipy():
    values = np.random.default_rng(1).normal(0.7, 0.1, 13)
    low, high = stats.t.interval(0.95, 12, values.mean(), stats.sem(values))
    estimate = t_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-12)


def test_intervals_cover_the_truth():
    """2000 studies of 20 chips. Coverage of a 95% interval is binomial: outside 0.936..0.964 by chance 1 in 260 (t).
    The percentile bootstrap of n has the width of a normal interval with variance over n instead of n - 1: of 20 chips
    it covers P(|t19| < 1.96 sqrt(19/20)) = 0.9287, within 0.02 but by chance 1 in 2000."""
    rng = np.random.default_rng(2)
    studies = rng.normal(0.5, 0.1, (2000, 20))
    covered = np.mean([(e := t_interval(s)).low <= 0.5 <= e.high for s in studies])
    assert 0.936 <= covered <= 0.964
    covered = np.mean([(e := bootstrap_interval(s, resamples=1000)).low <= 0.5 <= e.high for s in studies])
    known = 1 - 2 * stats.t.sf(stats.norm.ppf(0.975) * np.sqrt(19 / 20), 19)
    assert abs(covered - known) < 0.02


def test_every_chip_is_drawn_as_often_as_any_other():
    """Chi-square at 1e-4, fixed seed."""
    drawn = np.bincount(bootstrap_indices(7, 5000, seed=3).ravel(), minlength=7)
    assert len(drawn) == 7
    assert stats.chisquare(drawn).pvalue > 1e-4


def test_pooled_images_would_be_far_too_narrow():
    """The trap: with a spread of 0.1 between chips, the binomial interval over 20 x 1000 pooled images misses the truth
    in most studies, while the interval over chips holds it in about 95%."""
    rng = np.random.default_rng(3)
    images, truth, pooled_hits, chip_hits = 1000, 0.6, 0, 0
    for _ in range(300):
        accuracy = rng.binomial(images, np.clip(rng.normal(truth, 0.1, 20), 0, 1)) / images
        half = 1.96 * np.sqrt(accuracy.mean() * (1 - accuracy.mean()) / (20 * images))
        pooled_hits += abs(accuracy.mean() - truth) <= half
        estimate = t_interval(accuracy)
        chip_hits += estimate.low <= truth <= estimate.high
    assert pooled_hits / 300 < 0.45  # expected 0.24
    assert chip_hits / 300 > 0.91  # 95% +- 1.3%: false alarm 1 in 1000


def test_pairing_removes_the_spread_between_chips():
    rng = np.random.default_rng(4)
    control = rng.normal(0.5, 0.2, 20)
    treated = control + 0.05 + rng.normal(0, 0.01, 20)
    difference = paired_difference(treated, control)
    assert difference.low > 0.03
    assert difference.high < 0.07
    assert difference.half_width < t_interval(treated).half_width / 5


def test_single_chip_has_no_interval():
    assert np.isnan(t_interval(np.array([0.5])).low)
    assert np.isnan(bootstrap_interval(np.array([0.5])).low)


def test_margin_of_one_chip_has_no_interval_and_of_none_no_value():
    voltages = np.array([1.0, 0.9, 0.8])
    one = margin(voltages, np.array([[0.97, 0.97, 0.77]]), 1 - voltages**2, clean=0.97, points=5)
    assert one.voltage == pytest.approx(0.875)
    assert one.chips == 1
    assert np.isnan([one.voltage_low, one.voltage_high, one.saving_low, one.saving_high]).all()
    nobody = margin(voltages, np.empty((0, 3)), np.full(3, np.nan), clean=0.97, points=5)
    assert nobody.chips == 0
    assert np.isnan([nobody.voltage, nobody.voltage_low, nobody.saving, nobody.saving_high]).all()
    assert not nobody.censored
    assert t_interval(np.array([])).chips == 0
    assert np.isnan(crossing(voltages, np.full(3, np.nan), 0.9)[0])  # an unknown accuracy is not held to the lowest


def test_yield_counts_chips():
    estimate = chip_yield(np.array([1.0] * 19 + [0.0]), 0.5)
    assert estimate.mean == 0.95
    assert estimate.low < 0.76  # exact binomial: 0.751
    assert estimate.high > 0.998


def test_crossing_takes_the_first_failure_from_above():
    voltages = np.array([1.0, 0.9, 0.8, 0.7])
    assert crossing(voltages, np.array([0.9, 0.5, 0.9, 0.9]), 0.8)[0] == pytest.approx(0.975)
    assert np.isnan(crossing(voltages, np.array([0.1, 0.1, 0.1, 0.1]), 0.8)[0])


def test_margin_by_hand():
    voltages = np.array([1.0, 0.9, 0.8])
    saving = 1 - voltages**2
    accuracy = np.tile([0.97, 0.97, 0.77], (5, 1))  # all chips alike: the interval is a point
    result = margin(voltages, accuracy, saving, clean=0.97, points=5)
    assert result.voltage == pytest.approx(0.875)
    assert (result.voltage_low, result.voltage_high) == pytest.approx((0.875, 0.875))
    assert result.saving == pytest.approx(0.75 * 0.19 + 0.25 * 0.36)
    assert not result.censored


def test_margin_interval_holds_the_estimate_and_orders():
    rng = np.random.default_rng(5)
    voltages = np.linspace(1, 0.75, 11)
    centre = rng.normal(0.82, 0.02, 20)
    accuracy = 0.1 + 0.87 / (1 + np.exp(-(voltages[None] - centre[:, None]) / 0.01))
    result = margin(voltages, accuracy, 1 - voltages**2, clean=0.97, points=5)
    assert result.voltage_low <= result.voltage <= result.voltage_high
    assert result.saving_low <= result.saving <= result.saving_high
    assert result.voltage_high - result.voltage_low > 0.002


def test_manycrossings_equal_the_slow_twin():
    rng = np.random.default_rng(6)
    voltages = np.linspace(1, 0.75, 7)
    accuracy = np.concatenate(
        [rng.random((300, 7)), np.ones((1, 7)), np.zeros((1, 7)), -np.sort(-rng.random((300, 7)))]
    )
    slow = np.array([crossing(voltages, row, 0.6)[0] for row in accuracy])
    slow[np.isnan(slow)] = 1.0
    np.testing.assert_allclose(crossings(voltages, accuracy, 0.6), slow, rtol=0, atol=1e-11)
