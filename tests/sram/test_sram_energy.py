"""Are SRAM energies those of CACTI at its supply, and do they move with the supply as silicon does?"""

import bisect
import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import exp as mpexp
from mpmath import log as mplog
from mpmath import mp, mpf

from sram import energy, faultmap
from sram.cell.technology import BOLTZMANN_OVER_CHARGE
from sram.errors import InputError
from sram.geometry import Geometry
from sram.protection import parse
from tests.conftest import DATA


def rows(name: str) -> list[dict]:
    with open(DATA / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_cacti_table_comes_back():
    table = [row for row in rows("sram_energy_cacti7.csv") if row["ecc"] == "no"]
    assert len(table) == 17 * 8  # capacities, by nodes and cells
    for row in table:
        m = energy.macro(int(row["size_KB"]) * 1024, int(float(row["tech_nm"])), row["cell"])
        assert m.read_pj == pytest.approx(float(row["read_nJ"]) * 1e3, rel=1e-12)
        assert m.write_pj == pytest.approx(float(row["write_nJ"]) * 1e3, rel=1e-12)
        assert m.leakage_mw == float(row["leak_mW"])
        assert m.access_ns == float(row["access_ns"])
        assert (m.word_bits, m.temperature_k) == (64, 350)


def test_supplies_are_those_of_cactis_technology_files():
    """HewlettPackard/cacti, tech_params/*.dat, row Vdd, columns hp and lstp."""
    vdd = {(65, "hp"): 1.1, (45, "hp"): 1.0, (32, "hp"): 0.9, (22, "hp"): 0.8}
    vdd |= {(65, "lstp"): 1.2, (45, "lstp"): 1.1, (32, "lstp"): 1.0, (22, "lstp"): 0.8}
    for (node, kind), volts in vdd.items():
        assert energy.macro(64 * 1024, node, f"itrs-{kind}").voltage_v == volts


def test_secded_costs_what_cacti_says_of_its_own_ecc():
    """72 cells for 64: of the sixteen pairs of rows with and without ECC the factor is the mean within two per cent."""
    table = {
        tuple(row[key] for key in ("tech_nm", "cell", "size_KB", "ecc")): row for row in rows("sram_energy_cacti7.csv")
    }
    pairs = [(row, table[(*key[:3], "no")]) for key, row in table.items() if key[3] == "yes"]
    assert len(pairs) == 16
    _, overhead = parse("secded72").apply(faultmap.generate(0, Geometry(1), voltage_floor=0.9, curve="ibm14"))
    for column, factor in (("read_nJ", overhead.energy), ("write_nJ", overhead.energy), ("leak_mW", overhead.storage)):
        ratio = np.array([float(coded[column]) / float(plain[column]) for coded, plain in pairs])
        assert factor == pytest.approx(ratio.mean(), rel=0.02)
        assert np.abs(ratio / factor - 1).max() < 0.08  # where CACTI chooses another organisation


SIZES = [kb * 1024 for kb in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)]


@given(st.floats(SIZES[0], SIZES[-1]), st.sampled_from([65, 45, 32, 22]), st.sampled_from(["itrs-hp", "itrs-lstp"]))
def test_a_capacity_between_two_rows_lies_between_them(capacity, node, cell):
    m, i = energy.macro(capacity, node, cell), min(bisect.bisect_right(SIZES, capacity), len(SIZES) - 1)
    below, above = energy.macro(SIZES[i - 1], node, cell), energy.macro(SIZES[i], node, cell)
    for name in energy.COLUMNS:
        low, high = sorted((getattr(below, name), getattr(above, name)))
        assert low * (1 - 1e-9) <= getattr(m, name) <= high * (1 + 1e-9)


def test_what_is_interpolated_says_how_well():
    assert "left out" not in energy.macro(65536, 22).source
    assert "missed by 9% of a read" in energy.macro(65537, 22).source


def test_halfway_in_log_capacity_is_the_geometric_mean():
    low, high = energy.macro(65536, 45), energy.macro(98304, 45)
    assert energy.macro((65536 * 98304) ** 0.5, 45).read_pj == pytest.approx(
        (low.read_pj * high.read_pj) ** 0.5, rel=1e-12
    )


@pytest.mark.parametrize("ask", [(4095, 45), (2**21 + 1, 45), (65536, 28), (65536, 45, "finfet")])
def test_outside_the_table_is_refused(ask):
    with pytest.raises(InputError, match="CACTI"):
        energy.macro(*ask)


def test_ibm14_energy_is_the_square_of_the_voltage():
    for row in rows("sram_ibm14_ber_energy.csv"):
        scale = float(energy.dynamic_scale(float(row["v_over_vmin"]), 1.0))
        assert scale == pytest.approx(float(row["energy_per_access_relative"]), rel=1e-8)
    assert 1 - energy.dynamic_scale(20, 24) == pytest.approx(0.306, abs=5e-4)  # 30.6 %, as the NeuralFuse paper has it


@pytest.mark.parametrize(("millivolts", "leakage", "access"), [(280, 4.8, 2.6), (310, 5.4, 2.9)])
def test_leakage_and_access_power_of_28_nm_silicon(millivolts, leakage, access):
    """Yang and Murmann, ISQED 2017, abstract: both pairs from one nominal voltage and one DIBL, within 5 %."""
    nominal = 0.74
    low = nominal - millivolts / 1000
    assert 1 / energy.leakage_scale(low, nominal) == pytest.approx(leakage, rel=0.05)
    assert 1 / energy.dynamic_scale(low, nominal) == pytest.approx(access, rel=0.05)


def test_units_of_vmin_need_volts_and_agree_with_them():
    v = np.array([0.75, 0.9, 1.0])
    for scale in (energy.leakage_scale, lambda *a, **k: energy.delay_scale(*a, threshold_v=0.35, **k)):
        assert scale(v, 1.0, nominal_volts=0.6) == pytest.approx(scale(v * 0.6, 0.6), rel=1e-12)
        assert scale(np.array(1.0), 1.0, nominal_volts=0.6) == pytest.approx(1)


def test_delay_limits():
    """Square law far above threshold; far below, a factor ten for each subthreshold slope n ln 10 kT/q."""
    high = energy.delay_scale(8.0, 4.0, threshold_v=0.4, dibl=0.0)
    assert high == pytest.approx(8 / 4 * ((4 - 0.4) / (8 - 0.4)) ** 2, rel=0.05)
    slope = 1.3 * math.log(10) * 8.617e-5 * 300
    low = energy.delay_scale(0.2 - slope, 0.2, threshold_v=0.8, dibl=0.0)
    assert low == pytest.approx(10 * (0.2 - slope) / 0.2, rel=0.02)
    v = np.linspace(0.1, 1.2, 200)
    assert (np.diff(energy.delay_scale(v, 1.0, threshold_v=0.4)) < 0).all()


@pytest.mark.parametrize("volts", [0.05, 0.2, 0.45, 1.0])
def test_delay_is_ekvs_in_fifty_digits(volts):
    """C v / I(v), I = ln(1 + exp(p / 2 ut))^2 - ln(1 + exp((p - v) / 2 ut))^2 with p = ((1 + dibl) v - vth) / n."""
    mp.dps = 50
    two_ut = 2 * mpf(BOLTZMANN_OVER_CHARGE) * 300

    def delay(v):
        p = ((1 + mpf("0.126")) * v - mpf("0.4")) / mpf("1.3")
        return v / (mplog(1 + mpexp(p / two_ut)) ** 2 - mplog(1 + mpexp((p - v) / two_ut)) ** 2)

    expected = float(delay(mpf(volts)) / delay(mpf("0.9")))
    assert float(energy.delay_scale(volts, 0.9, threshold_v=0.4)) == pytest.approx(expected, rel=1e-12)


def test_minimum_energy_point_exists_only_when_the_clock_follows():
    for cell in ("itrs-hp", "itrs-lstp"):
        m = energy.macro(256 * 1024, 45, cell)
        v = np.linspace(0.08, m.voltage_v, 500)
        fixed = energy.access_energy_pj(m, v, clock_ns=m.access_ns)
        assert (np.diff(fixed) > 0).all()
        point = energy.minimum_energy(m)
        followed = energy.access_energy_pj(m, v)
        assert point.energy_pj <= followed.min()
        assert followed[0] > 1.5 * point.energy_pj
        assert v[0] < point.voltage_v < m.voltage_v
        # Dynamic and leakage energy balance there: the derivative vanishes.
        d = 1e-4
        around = energy.access_energy_pj(m, np.array([point.voltage_v - d, point.voltage_v + d]))
        assert abs(around[1] - around[0]) < 1e-4 * point.energy_pj


def test_idle_memories_have_their_minimum_higher():
    m = energy.macro(64 * 1024, 45, "itrs-hp")
    busy, idle = (energy.minimum_energy(m, accesses_per_cycle=a) for a in (1.0, 0.1))
    assert idle.voltage_v > busy.voltage_v
    assert idle.cycle_ns < busy.cycle_ns
