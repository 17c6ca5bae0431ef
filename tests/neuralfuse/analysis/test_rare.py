"""Is the share of rare chips right on average, as sure as it says, and much cheaper than counting?"""

import math

import numpy as np
import pytest

from neuralfuse.analysis.rare import Mode, _chances, _logistic, estimate
from sram.memory import Factors


class MadeUp:
    """Chips of one bank and 24 columns that differ in what they hurt. A score, lognormal around what decides."""

    def __init__(self, limit, noise, die=0.0):
        self.hurts, self.limit, self.noise, self.die = np.geomspace(0.02, 1, 24), limit, noise, die
        self.measured = 0

    @property
    def modes(self):
        rest = float(self.hurts.sum()) * math.exp(0.5)
        found = [Mode("column", (0, j), lambda z, c=c: rest + c * (math.exp(z) - 1)) for j, c in enumerate(self.hurts)]
        return found + [Mode("die", (), lambda z: rest * math.exp(self.die * z))] * (self.die > 0)

    def factors(self, chip):
        random = np.random.default_rng([1, chip])
        return Factors(float(random.normal()), np.zeros(1), random.normal(size=(1, 24)))

    def harm(self, column, die):
        return (self.hurts * np.exp(column)).sum(axis=-1) * np.exp(self.die * die)

    def score(self, chip, moved):
        now = self.factors(chip) + moved
        random = np.random.default_rng([2, chip])
        return float(self.harm(now.column[0], now.die)) * math.exp(self.noise * random.normal())

    def glance(self, chip, moved):
        now = self.factors(chip) + moved
        return float(self.harm(now.column[0], now.die))

    def fails(self, chip, moved):
        self.measured += 1
        now = self.factors(chip) + moved
        return bool(self.harm(now.column[0], now.die) > self.limit)

    def truth(self, chips=2_000_000):
        random = np.random.default_rng(9)
        return np.mean(
            np.concatenate(
                [
                    self.harm(random.normal(size=(100_000, 24)), random.normal(size=100_000)) > self.limit
                    for _ in range(chips // 100_000)
                ]
            )
        )


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_right_on_average_and_cheaper_than_counting(noise):
    """16 estimates of a share that 1,000,000 chips count: their mean within 4 standard errors (false alarm: 1 in
    1,000, by Student's t)."""
    lot = MadeUp(35.0, noise)
    truth = lot.truth(1_000_000)
    found = [estimate(lot, 1200, 300, 120, first=10_000 * k) for k in range(16)]
    share = np.array([each.share for each in found])
    scatter = share.std(ddof=1)
    assert abs(share.mean() - truth) < 4 * math.hypot(scatter / 16**0.5, (truth / 1_000_000) ** 0.5)
    assert scatter / truth < math.sqrt((1 - truth) / truth / found[0].measured) / 2
    assert lot.measured == sum(each.measured for each in found)


def test_the_same_chips_give_the_same_and_others_another():
    lot = MadeUp(35.0, 0.2)
    assert estimate(lot, 800, 200, 100) == estimate(lot, 800, 200, 100)
    assert estimate(lot, 800, 200, 100) != estimate(lot, 800, 200, 100, first=5000)


def test_where_none_fails_there_is_no_error_to_state():
    found = estimate(MadeUp(1e9, 0.0), 600, 200, 100)
    assert found.share == 0
    assert math.isnan(found.error)


def test_chances_add_up_and_none_is_more_than_sure():
    chance = _chances(np.array([100.0, 1, 2, 3, 4]), np.ones(5), 3)
    assert chance[0] == 1
    assert chance.sum() == pytest.approx(3)
    assert chance[4] / chance[1] == pytest.approx(4)
    assert (_chances(np.ones(3), np.ones(3), 5) == 1).all()


def test_the_curve_of_the_pilot_is_where_half_fail():
    random = np.random.default_rng(0)
    x = random.uniform(-4, 4, 4000)
    y = (random.random(4000) < 1 / (1 + np.exp(-3 * (x - 1)))).astype(float)
    middle, slope = _logistic(x, y)
    assert middle == pytest.approx(1, abs=0.1)
    assert slope == pytest.approx(3, abs=0.4)
