"""Is the comparison with chips what the code computes, fitted to one point and nothing else?"""

import pytest

from benchmarks import silicon
from tests.conftest import ROOT

CHIPS = ("gap9-like", "ndp120-like")


def test_the_committed_table_is_what_is_computed():
    assert silicon.table() == (ROOT / "benchmarks" / "results" / "silicon.txt").read_text()


@pytest.mark.parametrize("preset", CHIPS)
def test_only_the_fitted_point_is_met_by_construction(preset, monkeypatch):
    found = {(row.measured.network, row.measured.volts): row for row in silicon.predict(preset)}
    high = max(volts for _, volts in found)
    assert found[silicon.FITTED, high].energy_uj == pytest.approx(found[silicon.FITTED, high].measured.energy_uj)
    rows = silicon.measured(preset)
    others = [row if (row.network, row.volts) == (silicon.FITTED, high) else _doubled(row) for row in rows]
    monkeypatch.setattr(silicon, "measured", lambda preset: others)
    again = silicon.predict(preset)
    assert [row.energy_uj for row in again] == [row.energy_uj for row in found.values()]


def _doubled(row):
    return silicon.Measured(row.preset, row.network, row.volts, row.clock_mhz, 2 * row.energy_uj, row.inferences_per_s)


@pytest.mark.parametrize("preset", CHIPS)
def test_dynamic_energy_follows_the_square_of_the_supply_and_leakage_the_time(preset):
    high, low = (row for row in silicon.measured(preset) if row.network == "ic")
    (fast, leaked), (slow, leaked_low) = (silicon.chip_pj(silicon.spent(row)) for row in (high, low))
    assert slow / fast == pytest.approx((low.volts / high.volts) ** 2)
    assert leaked_low * low.clock_mhz < leaked * high.clock_mhz  # power falls, whatever the time does


@pytest.mark.parametrize("preset", CHIPS)
def test_nothing_but_the_image_and_the_answer_comes_and_goes(preset):
    counts = silicon.counts(preset, "vww")
    assert counts.layers["filter_dram_read_bytes"].sum() == counts.layers["filter_sram_writes"].sum() == 0
    assert counts.layers["ifmap_dram_read_bytes"].sum() == 3 * 96 * 96
    assert counts.layers["ofmap_dram_write_bytes"].sum() == 2
    assert counts.layers["stall_cycles"].sum() < counts.cycles / 1000  # one for each first transfer of a layer
