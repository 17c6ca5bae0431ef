"""Do the statistics of a map say what is in it, and does the fit find the shares that went in?"""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sram import compare, failure, faultmap, structurefit
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.structure import Structure, structure

IBM = failure.curve("ibm14")
SMALL = Geometry(banks=2, rows=2, columns=4, word_bits=2)


def hand_made(cells, kinds, geometry=SMALL):
    """A map of these cells, all failing below 0.9."""
    n = len(cells)
    return FaultMap(
        geometry,
        IBM,
        structure("iid"),
        0,
        0,
        0.8,
        np.array(cells, np.int64),
        np.full(n, 0.9, np.float32),
        np.array(kinds, np.uint8),
    )


def test_hand_worked_statistics():
    # Bank 0: cells 0 and 4 (column 0 of rows 0 and 1), cell 2; bank 1 clean. Words: slot 0 holds columns 0 and 2.
    s = compare.statistics(hand_made([0, 2, 4], [1, 0, 2]), 0.8)
    assert (s.cells, s.faulty, s.cell_fault_rate) == (16, 3, 3 / 16)
    assert s.flip_rate == (1 + 2 / 2) / 16
    assert s.stuck_at_one == 0.5
    assert (s.columns.groups, s.columns.with_faults, s.columns.most) == (8, 2, 2)
    assert s.columns.variance_to_mean == pytest.approx(np.var([2, 0, 1, 0, 0, 0, 0, 0]) / (3 / 8))
    assert (s.rows.groups, s.rows.with_faults, s.rows.most) == (4, 2, 2)
    assert (s.banks.groups, s.banks.with_faults, s.banks.most, s.worst_tenth_of_banks) == (2, 1, 3, 1.0)
    assert (s.words_with_faults, s.words_with_two_or_more) == (2 / 8, 1 / 8)


def test_hand_worked_neighbours():
    """Four rows: rows 0, 1 and 3 of a column of bank 0, rows 0 and 2 of one of bank 1, row 3 of one column and row 0 of
    the next bank's. One pair of neighbours; shuffled, three faults have 6/4 and two 2/4."""
    geometry = Geometry(banks=2, rows=4, columns=2, word_bits=2)
    m = hand_made([0, 2, 6, 7, 8, 12], [1] * 6, geometry)
    assert compare.pairs_apart(m, 0.8, 1).tolist() == [1, 0]
    assert compare.pairs_apart(m, 0.8, 2).tolist() == [1, 1]
    assert compare.adjacent_ratio(m, 0.8) == 1 / (6 / 4 + 2 / 4)
    assert compare.statistics(m, 0.8).adjacent_rows == 0.5
    assert math.isnan(compare.adjacent_ratio(hand_made([0], [1]), 0.8))


def test_hand_worked_overlap():
    c = compare.compare(hand_made([0, 2, 4, 8], [1, 0, 1, 1]), hand_made([0, 4, 5], [1, 0, 1]), 0.8)
    assert c.both == 2
    assert c.jaccard == 2 / 5
    assert (c.b_given_a, c.a_given_b, c.same_kind) == (2 / 4, 2 / 3, 1 / 2)
    assert c.jaccard_by_chance == pytest.approx((4 * 3 / 16) / (7 - 4 * 3 / 16))


def test_an_empty_map_has_statistics_too():
    s = compare.statistics(hand_made([], []), 0.8)
    assert s.faulty == s.columns.with_faults == s.words_with_faults == 0
    assert math.isnan(s.columns.variance_to_mean)
    assert compare.compare(hand_made([], []), hand_made([], []), 0.8).p_value == 1


def test_words_with_two_or_more_faults_at_one_percent():
    # 1 - 0.99^64 - 64 * 0.01 * 0.99^63 = 13.46%
    voltage = float(IBM.voltage(0.01))
    s = compare.statistics(faultmap.generate(0, Geometry(400), IBM, voltage_floor=voltage), voltage)
    assert abs(s.words_with_two_or_more - 0.1346) < 4 * math.sqrt(0.1346 * 0.8654 / Geometry(400).words)


def test_chi_square_is_uniform_for_alike_maps_and_tells_structures_apart():
    # 40 pairs of independent maps: the smallest p-value below 1e-4 has a chance of 0.4%; half of them above 0.5.
    geometry = Geometry(100)
    maps = [faultmap.generate(c, geometry, IBM, voltage_floor=0.84) for c in range(80)]
    p = np.array([compare.compare(a, b, 0.84).p_value for a, b in zip(maps[::2], maps[1::2], strict=True)])
    assert p.min() > 1e-4
    assert 9 < (p > 0.5).sum() < 31  # 20 +- 3.5 sigma
    clustered = faultmap.generate(0, geometry, IBM, "column", voltage_floor=0.84)
    c = compare.compare(maps[0], clustered, 0.84)
    assert c.p_value < 1e-12
    assert c.b.columns.variance_to_mean > 5 * c.a.columns.variance_to_mean


def test_chi_square_where_no_column_is_empty():
    """Cell fault rates of 5 to 30 %: hardly a column without a fault, none at 10 % (512 rows). 40 pairs at each; of 120
    p-values the smallest lies below 1e-4 with a chance of 1.2 %."""
    geometry = Geometry(2)
    for rate in (0.05, 0.1, 0.3):
        voltage = float(IBM.voltage(rate))
        maps = [faultmap.generate(c, geometry, IBM, voltage_floor=voltage) for c in range(80)]
        found = [compare.compare(a, b, voltage) for a, b in zip(maps[::2], maps[1::2], strict=True)]
        p = np.array([c.p_value for c in found])
        assert 1e-4 < p.min()
        assert 9 < (p > 0.5).sum() < 31  # 20 +- 3.5 sigma
        assert min(c.dof for c in found) > 3


def test_rare_classes_pool_at_both_ends():
    """By hand: columns with 3, 2, 1 and 0 faults. Those with 3 are too few alone, and so are those with none."""
    a, b = np.repeat([3, 2, 1, 0], [2, 10, 20, 3]), np.repeat([3, 2, 1, 0], [1, 14, 16, 4])
    assert compare._two_sample(a, b) == (pytest.approx((12 - 15) ** 2 / 27 + (23 - 20) ** 2 / 43), 1)
    nobody = np.repeat([2, 1], [20, 15]), np.repeat([2, 1], [12, 23])  # no column without a fault
    assert compare._two_sample(*nobody) == (pytest.approx(8**2 / 32 + 8**2 / 38), 1)


def test_the_same_chip_overlaps_entirely_and_another_by_chance():
    one, other = (faultmap.generate(c, Geometry(64), IBM, voltage_floor=0.8) for c in range(2))
    same = compare.compare(one, one, 0.82)
    assert (same.jaccard, same.same_kind, same.chi_square) == (1, 1, 0)
    assert same.column_correlation == pytest.approx(1)
    c = compare.compare(one, other, 0.82)
    assert abs(c.jaccard - c.jaccard_by_chance) < 4 * math.sqrt(c.jaccard_by_chance / c.a.faulty)
    assert abs(c.same_kind - 0.5) < 4 * math.sqrt(0.25 / c.both)


def test_maps_that_cannot_be_compared_are_refused():
    a = faultmap.generate(0, Geometry(2), IBM, voltage_floor=0.8)
    with pytest.raises(InputError, match="geometry"):
        compare.compare(a, faultmap.generate(0, Geometry(3), IBM, voltage_floor=0.8), 0.8)
    with pytest.raises(InputError, match="unit"):
        compare.compare(a, faultmap.generate(0, Geometry(2), "kc705b", voltage_floor=0.5), 0.8)
    with pytest.raises(InputError, match="voltage"):
        compare.compare(a, a, 0.7)


@pytest.mark.parametrize(("z", "r"), [(-3.6, 0.5), (-2.0, 0.9), (-1.0, -0.3), (-4.5, 0.05)])
def test_joint_failure_is_the_bivariate_normal_and_its_inverse_comes_back(z, r):
    z, r = np.array([z]), np.array([r])
    joint = structurefit.both_fail(z, r)
    exact = multivariate_normal.cdf([z[0], z[0]], cov=[[1, r[0]], [r[0], 1]], abseps=1e-16, releps=1e-9)
    assert joint[0] == pytest.approx(exact, rel=1e-6)
    assert structurefit.correlation(z, joint)[0] == pytest.approx(r[0], abs=1e-6)


@pytest.mark.parametrize(
    "truth",
    [
        Structure(),
        Structure(column=0.46, bank=0.046),
        Structure(column=0.2, bank=0.1, row=0.1),
        Structure(column=0.3, bank=0.1, run=0.2),
    ],
    ids=str,
)
def test_fit_recovers_known_shares(truth):
    # 12 chips: the mean of each estimate within four standard errors of the truth, and most intervals hold it.
    geometry = Geometry(300, rows=128, columns=32, word_bits=32)
    maps = (faultmap.generate(c, geometry, IBM, truth, voltage_floor=0.82) for c in range(12))
    fits = [structurefit.fit(m, resamples=100) for m in maps]
    for name in ("bank", "column", "row", "run"):
        values = np.array([getattr(f, name).value for f in fits])
        assert abs(values.mean() - getattr(truth, name)) < 4 * values.std(ddof=1) / math.sqrt(len(values))
        assert values.std() < 0.03
        held = sum(getattr(f, name).low <= getattr(truth, name) <= getattr(f, name).high for f in fits)
        assert held >= 8  # of 12, where each holds it with 0.85 or more: false alarm 2%, fixed chips


def test_fit_of_the_column_preset_agrees_with_the_correlations_of_silicon():
    # KC705-B: 0.51 within a column, 0.046 between columns of a bank (docs of sram.structure). Medians over 20 chips.
    blocks = Geometry(890, rows=512, columns=16, word_bits=16)
    maps = (faultmap.generate(c, blocks, "kc705b", "column", voltage_floor=0.53) for c in range(20))
    fits = [structurefit.fit(m, resamples=2) for m in maps]
    assert np.median([f.column.value + f.bank.value for f in fits]) == pytest.approx(0.51, abs=0.06)
    assert np.median([f.bank.value for f in fits]) == pytest.approx(0.046, abs=0.04)


def test_fit_needs_banks_and_faults():
    with pytest.raises(InputError, match="geometry"):
        structurefit.fit(faultmap.generate(0, Geometry(1), IBM, voltage_floor=0.8))
    with pytest.raises(InputError, match="geometry"):
        structurefit.fit(hand_made([3, 5], [0, 0]))  # two rows
    with pytest.raises(InputError, match="faults"):
        structurefit.fit(hand_made([3], [0], Geometry(2, 5, 4, 2)))
