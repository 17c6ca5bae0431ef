"""Are the statistics right? Intervals cover what they claim, and the chip is the unit."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from neuralfuse.results.statistics import (
    chip_margin,
    chip_yield,
    crossing,
    crossings,
    margin,
    mean_interval,
    paired_difference,
)


def test_an_interval_without_skewness_is_students():
    values = np.random.default_rng(1).normal(0.7, 0.1, 7)
    values = np.concatenate([values, 1.4 - values])  # symmetric
    low, high = stats.t.interval(0.95, 13, values.mean(), stats.sem(values))
    estimate = mean_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-9)


def test_an_interval_is_halls_equation_solved_numerically():
    """T + g T^2 / (3 sqrt n) + g^2 T^3 / (27 n) + g / (6 sqrt n) = t, g the sample's skewness (Hall 1992, eq. 2.5)."""
    values = np.random.default_rng(8).exponential(1.0, 12)
    n, g = 12, stats.skew(values)

    def transformed(x, t):
        return x + g * x**2 / (3 * n**0.5) + g**2 * x**3 / (27 * n) + g / (6 * n**0.5) - t

    q = stats.t.ppf(0.975, 11)
    low, high = (values.mean() - stats.sem(values) * brentq(transformed, -1e3, 1e3, args=(t,)) for t in (q, -q))
    estimate = mean_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-9)


def test_chips_that_all_agree_leave_no_width():
    for value in (0.1, 0.9733333333333334, 0.0, 1.0):
        estimate = mean_interval(np.full(7, value))
        assert estimate.low == estimate.mean == estimate.high == value


def test_pooled_images_would_be_far_too_narrow():
    """The trap: with a spread of 0.1 between chips, the binomial interval over 20 x 1000 pooled images misses the truth
    in most studies, while the interval over chips holds it in about 95%."""
    rng = np.random.default_rng(3)
    images, truth, pooled_hits, chip_hits = 1000, 0.6, 0, 0
    for _ in range(300):
        accuracy = rng.binomial(images, np.clip(rng.normal(truth, 0.1, 20), 0, 1)) / images
        half = 1.96 * np.sqrt(accuracy.mean() * (1 - accuracy.mean()) / (20 * images))
        pooled_hits += abs(accuracy.mean() - truth) <= half
        estimate = mean_interval(accuracy)
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
    assert difference.half_width < mean_interval(treated).half_width / 5


def test_single_chip_has_no_interval():
    assert np.isnan(mean_interval(np.array([0.5])).low)


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
    assert mean_interval(np.array([])).chips == 0
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


def test_margin_bounds_are_where_the_band_crosses():
    rng = np.random.default_rng(7)
    voltages = np.array([1.0, 0.9, 0.85, 0.8])
    accuracy = np.stack(
        [np.full(9, 0.97), rng.normal(0.95, 0.01, 9), rng.normal(0.91, 0.02, 9), rng.normal(0.7, 0.1, 9)], 1
    )
    result = margin(voltages, accuracy, 1 - voltages**2, clean=0.97, points=5)
    bands = [mean_interval(column) for column in accuracy.T]
    for bound, side in ((result.voltage_high, "low"), (result.voltage_low, "high")):
        assert np.interp(bound, voltages[::-1], [getattr(b, side) for b in bands][::-1]) == pytest.approx(0.92)


def test_a_quantile_of_chips_by_hand():
    """20 chips that hold to 1.00, 0.99, ... 0.81: the 16th lowest is 0.96. Binomial(20, 0.8) is below 12 with 0.0100
    and 20 or more with 0.0115, below 13 with 0.0321: bounds are the 12th and the 20th, covering 0.9784."""
    voltages = np.round(np.arange(1.0, 0.8, -0.01), 2)
    accuracy = np.where(np.arange(20)[None] <= np.arange(20)[:, None], 0.9, 0.5)
    found = chip_margin(voltages, accuracy, clean=0.9, points=1, share=0.8)
    assert (found.voltage_low, found.voltage, found.voltage_high) == (0.92, 0.96, 1.0)
    assert found.coverage == pytest.approx(1 - 0.0100 - 0.0115, abs=1e-4)


def test_too_few_chips_cannot_tell():
    voltages, accuracy = np.array([1.0, 0.8]), np.full((20, 2), 0.9)
    found = chip_margin(voltages, accuracy, 0.9, 5, share=0.9)
    assert found.voltage == 0.8
    assert np.isnan(found.voltage_high)  # 0.9^20 = 12%: 36 chips are needed for a bound on each side
    assert chip_margin(voltages, np.full((36, 2), 0.9), 0.9, 5, share=0.9).voltage_high == 0.8
    assert np.isnan(chip_margin(voltages, np.full((20, 2), 0.1), 0.9, 5, share=0.5).voltage)


def test_bounds_are_none_that_cannot_be():
    """Of three chips, one of them bad, the transform reaches far below nothing."""
    few = np.array([0.86, 0.85, 0.2])
    assert mean_interval(few).low < -1
    assert mean_interval(few, within=(0, 1)).low == 0
    assert paired_difference(few, np.array([0.2, 0.2, 0.86]), within=(-1, 1)).low == -1
