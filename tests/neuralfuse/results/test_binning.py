"""Are bins the best there are, and do the intervals of what they save hold the truth?"""

import itertools

import numpy as np
import pytest

from neuralfuse.results.binning import binned, one_supply


def by_hand(counts, energy, share, bins):
    """Mean energy of the kept chips, over all ways to choose so many supplies; a chip runs at the cheapest that it
    holds at."""
    first = int(one_supply(counts[None], share)[0])
    kept = [(level, n) for level, n in enumerate(counts) if level > first and n]
    chips = sum(n for _, n in kept)
    found = []
    for edges in itertools.combinations(range(len(energy)), bins):
        if all(any(i < level for i in edges) for level, _ in kept):
            found.append(sum(n * min(energy[i] for i in edges if i < level) for level, n in kept) / chips)
    return min(found)


@pytest.mark.parametrize("seed", range(12))
def test_bins_are_the_best_of_all(seed):
    """Energies that fall, and those that leakage makes rise again."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, 7) * rng.integers(0, 2, 7) + np.eye(7, dtype=int)[6]
    energy = np.sort(rng.uniform(1, 2, 6))[::-1]
    energy[4:] += rng.choice([0, 0.5])
    share = rng.choice([0.5, 0.9])
    found = binned(counts, energy, share)
    if one_supply(counts[None], share)[0] < 0:
        assert found == []
        return
    for each in found[1:4]:
        assert each.energy_pj == pytest.approx(by_hand(counts, energy, share, each.bins), rel=1e-12)
        assert len(each.supplies) <= each.bins
    own = [each.energy_pj for each in found]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(own))
    assert own[-1] == pytest.approx(by_hand(counts, energy, share, len(energy)), rel=1e-12)


def test_bins_say_where_they_are():
    """Sixty chips at the lowest supply, thirty in the middle, ten at the top: three bins are each chip its own."""
    one, two, three, _, own = binned(np.array([0, 10, 0, 30, 0, 60]), np.array([5.0, 4, 3, 2, 1]), share=1.0)
    assert (one.supplies, one.energy_pj, one.saved) == ((0,), 5.0, 0.0)
    assert (two.supplies, two.energy_pj) == ((0, 4), pytest.approx(2.6))
    assert (three.supplies, three.energy_pj) == ((0, 2, 4), pytest.approx(2.0))
    assert (own.bins, own.supplies, own.chips) == (None, (), 100)
    assert own.saved == pytest.approx(0.6)
    assert own.low < 0.6 < own.high


def test_where_a_higher_supply_takes_less_a_bin_is_there():
    (one, *_) = binned(np.array([0, 0, 0, 10]), np.array([3.0, 1.0, 2.0]), share=1.0)
    assert (one.supplies, one.energy_pj) == ((1,), 1.0)


def test_no_bins_where_too_many_chips_hold_nowhere():
    assert binned(np.array([2, 0, 18]), np.array([2.0, 1.0]), share=0.95) == []
    close = binned(np.array([1, 0, 19]), np.array([2.0, 1.0]), share=0.95)
    assert close[0].chips == 19
    assert np.isnan(close[1].low)  # other lots of 20 chips have more of these


def test_intervals_hold_what_bins_save_in_the_lot():
    """Of 200 lots of 60 chips: nominal 95%, 90% and more is asked for (false alarm of a coverage of 95%: 1 in 800)."""
    rng = np.random.default_rng(4)
    energy = np.linspace(2.0, 1.0, 12) ** 2
    share_of_level = np.exp(-(((np.arange(13) - 7) / 2.5) ** 2))
    share_of_level[0] = 0
    truth = binned((1e7 * share_of_level / share_of_level.sum()).astype(int), energy, 0.9)
    inside = np.zeros(len(truth))
    for lot in rng.multinomial(60, share_of_level / share_of_level.sum(), 200):
        for i, each in enumerate(binned(lot, energy, 0.9)):
            inside[i] += each.low <= truth[i].saved <= each.high
    assert (inside[1:] >= 0.9 * 200).all()
