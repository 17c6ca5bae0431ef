"""Do maps of the `column` preset look like silicon?

KC705-B at its lowest voltage, 0.53 V (Salami et al., MICRO 2018; fault counts in sram_bram28_fault_counts.csv, the
spatial figures evaluated on the published map): 1137 faulty cells in 890 blocks of 512 x 16 cells; 72% of the blocks
without a fault, the worst tenth of them with 82% of the faults; 310 columns with faults, at most 61 in one; one spare
column per block repairs 90% of the faults. Chips differ widely, so medians over chips are compared.
"""

import numpy as np
import pytest

from sram import compare, failure, faultmap
from sram.geometry import Geometry

BLOCKS = Geometry(890, rows=512, columns=16, word_bits=16)
KC705B = failure.curve("kc705b")


def column_counts(structure, chips):
    """Faulty cells at 0.53 V per block and column: int[chips, 890, 16]."""
    out = []
    for chip in range(chips):
        fault_map = faultmap.generate(chip, BLOCKS, KC705B, structure, voltage_floor=0.53, seed=1)
        bank, _, column = BLOCKS.bank_row_column(fault_map.cell)
        out.append(np.bincount(bank * 16 + column, minlength=890 * 16).reshape(890, 16))
    return np.array(out)


@pytest.fixture(scope="module")
def clustered():
    return column_counts("column", 40)


def test_curve_and_size_give_the_faults_of_kc705b(clustered):
    assert KC705B.probability(0.53) * BLOCKS.cells == pytest.approx(1137, rel=0.01)
    assert np.median(clustered.sum(axis=(1, 2))) == pytest.approx(1137, rel=0.1)


def test_faults_per_column_are_overdispersed_like_silicon(clustered):
    columns = clustered.reshape(len(clustered), -1)
    assert 9 < np.median(columns.var(axis=1) / columns.mean(axis=1)) < 20
    assert 240 < np.median((columns > 0).sum(axis=1)) < 400
    assert 40 < np.median(columns.max(axis=1)) < 100
    independent = column_counts("iid", 2).reshape(2, -1)
    assert (independent.var(axis=1) / independent.mean(axis=1)).max() < 1.1


def test_most_blocks_are_clean_and_few_hold_most_faults(clustered):
    blocks = clustered.sum(axis=2)
    assert (blocks == 0).mean(axis=1).min() > 0.5  # every chip
    assert 0.6 < np.median((blocks == 0).mean(axis=1)) < 0.8
    worst = np.sort(blocks, axis=1)[:, -89:].sum(axis=1) / blocks.sum(axis=1)
    assert 0.7 < np.median(worst) < 0.9


def test_a_spare_column_repairs_most_faults_of_silicon_and_few_of_independent_ones(clustered):
    def repaired(counts):
        return np.median(counts.max(axis=2).sum(axis=1) / counts.sum(axis=(1, 2)))

    assert 0.85 < repaired(clustered) < 0.95
    # At 0.53 V an independent fault is alone in its block and any spare repairs it; at ten times the rate it is not.
    voltage = float(KC705B.voltage(1e-3))
    share = {
        s: repaired(faultmap.dense(0, BLOCKS, KC705B, s, voltage=voltage).sum(axis=1)[None]) for s in ("column", "iid")
    }
    assert share["column"] > 0.7
    assert share["iid"] < 0.3


def adjacent(structure, chips):
    maps = (faultmap.generate(c, BLOCKS, KC705B, structure, voltage_floor=0.53, seed=1) for c in range(chips))
    return np.array([compare.adjacent_ratio(m, 0.53) for m in maps])


def test_weak_cells_of_a_column_come_in_runs_as_on_silicon_where_asked_for():
    """Neighbouring rows of a column fail together 2 to 3 times as often as by chance; without runs as often. The median
    over 40 chips has a standard error of 0.1 and 0.04."""
    assert 2.2 < np.median(adjacent("column_runs", 40)) < 2.9
    assert 0.85 < np.median(adjacent("column", 40)) < 1.15


def test_runs_leave_the_columns_and_blocks_what_they_were():
    runs = column_counts("column_runs", 20)
    assert 240 < np.median((runs > 0).sum(axis=(1, 2))) < 400
    assert 0.6 < np.median((runs.sum(axis=2) == 0).mean(axis=1)) < 0.8
    assert np.median(runs.sum(axis=(1, 2))) == pytest.approx(1137, rel=0.1)
