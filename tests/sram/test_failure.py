"""Do failure curves pass through the published points, invert exactly, hold in the far tail, and fit what made them?"""

import csv
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from sram import curvefit
from sram.errors import InputError
from sram.failure import FailureCurve, Interpolated, Probit, curve, curve_names, read, through
from tests.conftest import DATA

SHAPES = [
    Probit(0.7055, 0.0553),
    Probit(0.7, 0.05, 30.0, 0.6, 1.0),
    Probit(0.7, 0.05, -30.0, 0.7, 1.2),
    Interpolated((0.5, 0.6, 0.75, 0.8, 0.95), (1.0, -0.5, -2.0, -4.0, -4.5)),
    Interpolated((0.5, 0.6), (1.0, -0.5)),
]


def rows(name: str) -> list[dict]:
    with open(DATA / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bram(device: str) -> curvefit.FaultCounts:
    mine = [row for row in rows("sram_bram28_fault_counts.csv") if row["device"] == device]
    columns = ([float(row[key]) for row in mine] for key in ("V", "fault_count", "bits"))
    return curvefit.counts(*columns)


def test_ibm14_within_006_of_all_published_points():
    for row in rows("sram_ibm14_ber_energy.csv"):
        rate = float(row["bit_error_rate"])
        if rate:
            assert abs(curve("ibm14").z(float(row["v_over_vmin"])) - ndtri(rate)) <= 0.06
    # No failure in 2^20 bits at Vmin: the curve expects 0.05.
    assert curve("ibm14").probability(1.0) == pytest.approx(5e-8, rel=0.05)


@pytest.mark.parametrize(("device", "name"), [("KC705-B", "kc705b"), ("VC707", "vc707")])
def test_fpga_curves_near_every_count(device, name):
    data = bram(device)
    distance = np.abs(curve(name).z(data.voltage) - ndtri(data.faulty / data.cells))
    assert distance.max() < 0.11
    assert distance[data.faulty >= 100].max() < 0.06


@pytest.mark.parametrize(("device", "mu", "sigma"), [("KC705-B", 0.393, 0.038), ("VC707", 0.438, 0.032)])
def test_fit_of_the_fpga_counts_finds_the_published_line(device, mu, sigma):
    """Where the data lie; mu is far outside them, so the lines are compared in z (and are within 0.005 V in mu)."""
    data = bram(device)
    found = curvefit.fit(device, data)
    assert found.curve.shape.mu == pytest.approx(mu, abs=0.005)
    assert found.curve.shape.sigma == pytest.approx(sigma, abs=0.0015)
    assert np.abs(found.curve.z(data.voltage) - (mu - data.voltage) / sigma).max() < 0.08


@pytest.mark.parametrize("shape", SHAPES)
def test_z_falls_strictly_and_inverts(shape):
    c = FailureCurve("c", shape, "V", 1.0, "test")
    v = np.linspace(-1, 3, 20_001)
    z = c.z(v)
    assert (np.diff(z) < 0).all()
    assert np.abs(c.voltage_at_z(z) - v).max() < 1e-13
    assert np.abs(c.critical_voltage(-z) - v).max() < 1e-13
    assert c.z(0.7).shape == ()
    assert c.z(v.reshape(3, -1)).shape == (3, 6667)


@given(
    st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 3.0)), min_size=1, max_size=8),
    st.floats(-3, 3),
)
def test_any_falling_points_give_a_falling_curve_through_them(steps, top):
    v = np.cumsum([0.1] + [dv for dv, _ in steps])
    z = top - np.cumsum([0.0] + [dz for _, dz in steps])
    c = FailureCurve("c", Interpolated(tuple(v), tuple(z)), "V", 1.0, "test")
    assert np.abs(c.z(v) - z).max() < 1e-12
    grid = np.linspace(v[0] - 0.5, v[-1] + 0.5, 1001)
    assert (np.diff(c.z(grid)) < 0).all()
    assert np.abs(c.voltage_at_z(c.z(grid)) - grid).max() < 1e-9


def test_tail_against_arbitrary_precision():
    """Relative error 1e-12 down to 1e-300, and the logarithm beyond, against mpmath."""
    mpmath = pytest.importorskip("mpmath")
    c = curve("ibm14")
    mpmath.mp.dps = 50
    for v in (0.8, 1.0, 1.0372, 1.2, 1.8, 2.75):
        exact = mpmath.ncdf((mpmath.mpf(0.7055) - mpmath.mpf(v)) / mpmath.mpf(0.0553))
        assert float(c.log10_probability(v)) == pytest.approx(float(mpmath.log10(exact)), rel=1e-12)
        if exact > 1e-300:
            assert float(c.probability(v) / exact) == pytest.approx(1, rel=1e-11)
    assert c.log10_probability(5.0) < -1300
    for p in (1e-300, 1e-9, 0.3, 1 - 1e-9):
        assert c.probability(c.voltage(p)) == pytest.approx(p, rel=1e-11)


def test_curves_are_values():
    for c in [curve(name) for name in curve_names()] + [FailureCurve("c", s, "V", 1.0, "test") for s in SHAPES]:
        again = FailureCurve.from_dict(json.loads(json.dumps(c.to_dict(), allow_nan=False)))
        assert again == c == pickle.loads(pickle.dumps(c))
        assert hash(again) == hash(c)
        assert c.source


def test_mistakes_are_refused(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text('{"name": "x", "mu": 1')
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"name": "x", "mu": 0.5, "sigma": 0.05, "colour": "red"}')
    wrong = [
        (lambda: curve("ibm13"), "ibm14, kc705b, vc707"),
        (lambda: curve(str(broken)), "Expecting"),
        (lambda: curve(str(tmp_path / "absent.json")), "No such file"),
        (lambda: read(foreign), "colour"),
        (lambda: curve("ibm14").voltage(0.0), "probability = 0.0"),
        (lambda: curve("ibm14").voltage([0.1, 1.0]), "probability = "),
        (lambda: Probit(0.5, 0.0), "sigma = 0.0"),
        (lambda: Probit(0.5, math.nan), "sigma = nan"),
        (lambda: Probit(0.5, 0.05, 200.0, 0.4, 0.6), "quadratic = 200.0"),
        (lambda: Probit(0.5, 0.05, 1.0), "quadratic = 1.0"),
        (lambda: through("x", [0.5, 0.6], [1e-3, 1e-2]), "probabilities falling strictly"),
        (lambda: through("x", [0.5, 0.6], [0.0, 1e-2]), "probability = "),
        (lambda: through("x", [0.5], [0.1]), "at least two"),
        (lambda: through("x", [0.5, 0.6, 0.7], [0.1, 0.01]), "as many probabilities"),
        (lambda: through("x", [0.5, 0.6], [0.1, 0.01, 0.001]), "as many probabilities"),
        (lambda: FailureCurve.from_dict("ibm14"), "keys = "),
        (lambda: curvefit.counts([0.5], [3], [2]), "faulty_cells <= cells"),
        (lambda: curvefit.counts([0.5], [1.5], [2]), "whole numbers"),
        (lambda: curvefit.counts([0.5, 0.6], [1], [2]), "as many faulty"),
        (lambda: curvefit.fit("x", curvefit.counts([0.5, 0.6], [10, 0], 100)), "at 2 voltages"),
        (lambda: curvefit.fit("x", curvefit.counts([0.5, 0.6], [10, 20], 100)), "more faults at lower"),
        (lambda: curvefit.fit("x", curvefit.counts([0.5, 0.6], [20, 10], 100), quadratic=True), "at 3 voltages"),
    ]
    for act, says in wrong:
        with pytest.raises(InputError, match=says):
            act()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("source", None),
        ("nominal", "1.0"),
        ("nominal", math.nan),
        ("nominal", math.inf),
        ("nominal", 0),
        ("unit", "furlong"),
        ("unit", ["V"]),
        ("rate", "banana"),
        ("rate", "flip_rate"),
        ("node_nm", "x"),
        ("node_nm", -28),
        ("mu", "x"),
        ("sigma", -1),
        ("voltages", 5),
        ("voltages", ["a", "b"]),
        ("zs", [[1.0], [0.5, 0.2]]),
    ],
)
def test_a_file_with_a_wrong_value_is_refused_by_its_name(tmp_path, key, value):
    shape = {"voltages": [0.5, 0.6], "zs": [-1.0, -2.0]} if key in ("voltages", "zs") else {"mu": 0.4, "sigma": 0.04}
    good = {"name": "mine", **shape, "unit": "V", "nominal": 1.0, "source": "mine", "node_nm": None}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(good))
    assert read(path).nominal == 1.0
    path.write_text(json.dumps(good | {key: value}))
    with pytest.raises(InputError, match=r"mine\.json: "):
        read(path)


def test_a_fitted_curve_is_a_file_and_comes_back(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(curve("vc707").to_dict()))
    assert curve(str(path)) == curve("vc707")


def nested_counts(random, v, true, cells) -> curvefit.FaultCounts:
    """A sweep of one memory: how many of the same cells fail at each voltage."""
    p = np.sort(true.probability(v))
    group = random.multinomial(cells, np.diff(p, prepend=0, append=1))
    return curvefit.counts(v, np.cumsum(group[:-1])[::-1], cells)


def test_bands_cover_the_truth_as_often_as_they_say():
    """600 swept memories at three voltages: without the widening for clustered faults, 95 % bands cover within three
    standard errors of 95 % (false alarm 0.3 % each; bands that took the voltages for independent would cover 80 %);
    widened, where independent cells give no reason to, they cover a little more."""
    random = np.random.default_rng(11)
    true = FailureCurve("t", Probit(0.40, 0.04), "V", 1.0, "test")
    v = np.array([0.53, 0.54, 0.55, 0.56, 0.57])
    at = np.array([0.50, 0.55, 0.60])
    plain, widened = np.zeros(3), np.zeros(3)
    for _ in range(600):
        found = curvefit.fit("x", nested_counts(random, v, true, 2_000_000))
        plain += np.abs(found.curve.z(at) - true.z(at)) <= ndtri(0.975) * found.z_error(at) / found.dispersion**0.5
        low, high = found.band(at)
        widened += (low <= true.probability(at)) & (true.probability(at) <= high)
    error = (0.95 * 0.05 / 600) ** 0.5
    assert np.abs(plain / 600 - 0.95).max() < 3 * error
    assert (widened >= plain).all()
    assert (widened / 600).max() < 0.99


def test_fit_is_the_maximum():
    """No neighbour of the fitted curve makes the counts likelier, far tail and zero counts included."""
    data = curvefit.counts([0.7, 0.6, 0.55, 0.5, 0.45], [0, 3, 150, 4000, 40000], 1_000_000)
    for quadratic in (False, True):
        shape = curvefit.fit("x", data, quadratic=quadratic).curve.shape
        best = curvefit._log_likelihood(shape.z(data.voltage), data)
        for d in (1e-5, -1e-5):
            for other in (
                Probit(shape.mu + d, shape.sigma, shape.quadratic, shape.low, shape.high),
                Probit(shape.mu, shape.sigma + d, shape.quadratic, shape.low, shape.high),
            ) + (
                (Probit(shape.mu, shape.sigma, shape.quadratic + 1e3 * d, shape.low, shape.high),) if quadratic else ()
            ):
                assert curvefit._log_likelihood(other.z(data.voltage), data) < best


def test_quadratic_fit_recovers_a_bent_curve():
    true = FailureCurve("t", Probit(0.40, 0.04, 60.0, 0.45, 0.60), "V", 1.0, "test")
    v = np.linspace(0.45, 0.60, 7)
    data = curvefit.counts(v, np.round(true.probability(v) * 1e9), 1e9)
    found = curvefit.fit("x", data, quadratic=True).curve
    assert found.shape.quadratic == pytest.approx(60, abs=0.1)
    assert np.abs(found.z(v) - true.z(v)).max() < 1e-4
    assert np.abs(curvefit.fit("x", data).curve.z(v) - true.z(v)).max() > 0.05


def test_a_sweep_may_reach_to_where_every_cell_fails_and_none():
    """Voltages at which the fitted curve is 1 or 0 add nothing to the fit, and no degree of freedom."""
    v, k = [0.60, 0.55, 0.50], [2, 130, 5500]
    plain = curvefit.fit("x", curvefit.counts(v, k, 1_000_000))
    for cells in (1_000_000, [1_000_000, 1_000_001, 1_000_000, 1_000_000, 1_000_000, 1_000_000]):
        sweep = curvefit.counts([3.0, 2.5, *v, -2.0], [0, 0, *k, 1_000_000], cells)
        found = curvefit.fit("x", sweep)
        assert found.curve.shape.sigma == pytest.approx(plain.curve.shape.sigma, rel=1e-9)
        assert found.dof == 1
        assert np.isfinite(found.covariance).all()
    nested = curvefit.fit("x", curvefit.counts([3.0, 2.5, *v, -2.0], [0, 0, *k, 1_000_000], 1_000_000))
    assert nested.chi_square == pytest.approx(plain.chi_square, rel=1e-9)
    assert nested.band(0.57) == pytest.approx(plain.band(0.57), rel=1e-9)
    # 1 - p = 1e-24 at the lowest voltage, which is less than rounding makes of 1.
    curvefit.fit(
        "x", curvefit.counts([0.50, 0.46, 0.45, 0.44, 0.40], [0, 3000, 500_000, 997_000, 1_000_000], 1_000_000)
    )


def test_chi_square_is_that_of_the_covariance_of_the_counts():
    """Twin: residuals weighed with the inverse of cov(k_i, k_j) = n p (1 - p'), p the smaller of the two."""
    random = np.random.default_rng(12)
    true = FailureCurve("t", Probit(0.40, 0.04), "V", 1.0, "test")
    for v in ([0.50, 0.52, 0.55, 0.57], [0.33, 0.38, 0.42, 0.5]):
        data = nested_counts(random, v, true, 10_000)
        found = curvefit.fit("x", data)
        p = found.curve.probability(data.voltage)
        spread = 10_000 * np.minimum.outer(p, p) * (1 - np.maximum.outer(p, p))
        residual = data.faulty - 10_000 * p
        assert found.chi_square == pytest.approx(residual @ np.linalg.solve(spread, residual), rel=1e-6)
        assert found.dof == 2


def test_the_same_cells_counted_twice_at_a_voltage_are_refused():
    with pytest.raises(InputError, match=r"x: voltage = 0\.55 .* each voltage once"):
        curvefit.fit("x", curvefit.counts([0.60, 0.55, 0.55, 0.50], [2, 130, 128, 5500], 1_000_000))
    both = curvefit.counts([0.60, 0.55, 0.55, 0.50], [2, 130, 255, 5500], [1e6, 1e6, 2e6, 1e6])  # memories of two sizes
    assert curvefit.fit("x", both).dof == 2


def test_counts_file(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("# a chip\nvoltage,faulty_cells,cells\n0.6,2,1000\n0.5,30,1000\n")
    assert curvefit.read_counts(path).faulty.tolist() == [30, 2]
    for text in (
        "",
        "v,k,n\n1,2,3\n",
        "voltage,faulty_cells,cells\n0.5,many,3\n",
        "voltage,faulty_cells,cells\n0.5,4,3\n",
        "voltage;faulty_cells;cells\n0,53;12;1000\n",
        "voltage,faulty_cells,cells\n0,53,12,1000\n",
        "voltage,faulty_cells,cells\n0.5,4\n",
        f"voltage,faulty_cells,cells\n{'9' * 200_000},4,5\n",
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="counts"):
            curvefit.read_counts(path)


def test_a_curve_through_points_rests_on_them_and_counts_in_volts_of_a_nominal_volt():
    curve = through("mine", [0.5, 0.6, 0.4], [1e-3, 1e-6, 0.1])
    assert (curve.low, curve.high) == (0.4, 0.6)
    assert (curve.unit, curve.nominal, curve.source, curve.node_nm) == ("V", 1.0, "", None)
