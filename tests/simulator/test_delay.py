"""Does the alpha-power law reproduce published cells, and does a clock that follows it keep every path's margin?

Cells and MAC: open 130 nm standard cells at 16 corners (logic_cell_corners.csv, mac_energy_corners.csv), with the fits
published beside them (logic_delay_fits.csv). SRAM: 17 macros of another open 130 nm process (sram_ihp130_macros.csv).
"""

import csv
from dataclasses import replace
from statistics import geometric_mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.accelerator import PRESETS, accelerator, accelerator_names, macro_of
from simulator.delay import AlphaPower, Delay, fit, mac_path, published
from simulator.operating_point import NOMINAL, OperatingPoint, Supply
from simulator.timing import clock_hz, fastest_clock_hz, path_shares
from sram.energy import delay_scale
from sram.errors import InputError
from tests.conftest import DATA

PAPER = accelerator("paper")


def rows(name: str) -> list[dict]:
    with open(DATA / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def corners_of_the_mac(process: str) -> list[tuple[float, float]]:
    """(V, ns) of static timing at -40 C."""
    found = [row for row in rows("mac_energy_corners.csv") if row["corner"].startswith(f"{process}_n40C")]
    return [(float(row["vdd"]), float(row["sta_ns"])) for row in found]


def misses(path: AlphaPower, points: list[tuple[float, float]]) -> list[float]:
    """Relative errors of a path's ratios to the mean of the points, which is what a fit of logarithms centres on."""
    ratios = [ns / path.relative(volts, 1.8) for volts, ns in points]
    middle = geometric_mean(ratios)
    return [middle / ratio - 1 for ratio in ratios]


@pytest.mark.parametrize("row", rows("logic_delay_fits.csv"), ids=lambda row: f"{row['cell']}-{row['process']}")
def test_the_published_fits_of_cells_come_back(row):
    points = [
        (float(c["vdd"]), float(c["delay_ns"]))
        for c in rows("logic_cell_corners.csv")
        if (c["cell"], c["process"], c["temp_c"]) == (row["cell"], row["process"], "-40")
    ]
    assert len(points) == int(row["points"])
    found = fit(*zip(*points, strict=True), source="cells")
    assert found.threshold_v == pytest.approx(float(row["vt"]), abs=0.0006)
    assert found.alpha == pytest.approx(float(row["alpha"]), abs=0.0006)
    assert max(map(abs, misses(found, points))) == pytest.approx(float(row["max_err_pct"]) / 100, abs=0.0002)


@pytest.mark.parametrize(("process", "worst", "held_out"), [("ss", 0.0039, 0.0092), ("ff", 0.0003, 0.0021)])
def test_the_macs_path_is_fitted_and_predicts_a_corner_that_it_has_not_seen(process, worst, held_out):
    points, ours = corners_of_the_mac(process), published(process).path
    found = fit(*zip(*points, strict=True), source="MAC")
    assert (found.threshold_v, found.alpha) == pytest.approx((ours.threshold_v, ours.alpha), abs=6e-5)
    assert max(map(abs, misses(ours, points))) <= worst
    for left_out in points:
        others = [point for point in points if point != left_out]
        if len(others) < 4:  # three points would be fitted exactly, whatever they are
            continue
        blind = fit(*zip(*others, strict=True), source="MAC")
        anchor = sum(ns / blind.relative(volts, 1.8) for volts, ns in others) / len(others)
        assert anchor * blind.relative(left_out[0], 1.8) == pytest.approx(left_out[1], rel=held_out)


def test_sram_slows_down_by_less_than_a_compiler_says_of_supply_process_and_heat_together():
    """The macros' slow corner is at 0.9 of the typical supply, and slow and hot besides; their fast one at 1.1."""
    macros: dict[str, dict[str, float]] = {}
    for row in rows("sram_ihp130_macros.csv"):
        macros.setdefault(row["macro"], {})[row["corner"][:4]] = float(row["clk_to_q_ns"])
    assert len(macros) == 17
    part = macro_of(PAPER, PAPER.weight_buffer)
    ours = [float(delay_scale(s, 1.0, part.threshold_v, nominal_volts=0.8, temperature_k=350)) for s in (0.9, 1.1)]
    assert 1 < ours[0] < min(one["slow"] / one["typ_"] for one in macros.values())
    assert max(one["fast"] / one["typ_"] for one in macros.values()) < ours[1] < 1


@pytest.mark.parametrize("name", accelerator_names())
def test_at_nominal_supplies_the_clock_is_todays_to_the_last_bit(name):
    machine = accelerator(name)
    everywhere = OperatingPoint(tuple(Supply(rail, 1.0) for rail in machine.rails), clock_hz="follow")
    for at in (NOMINAL, everywhere, OperatingPoint(clock_hz="follow"), OperatingPoint(clock_hz=machine.clock_hz)):
        assert clock_hz(machine, at) == machine.clock_hz


@given(st.floats(0.58, 1.0), st.floats(0.58, 1.0), st.sampled_from(["sram", "logic"]))
def test_a_lower_supply_is_never_faster(a, b, rail):
    low, high = (OperatingPoint((Supply(rail, v),), clock_hz="follow") for v in sorted((a, b)))
    assert clock_hz(PAPER, low) <= clock_hz(PAPER, high) <= PAPER.clock_hz


def test_the_slowest_path_sets_the_clock_and_slack_is_used_first():
    """Paper: 256 KB at 22 nm take 1.51 ns, with 10% of margin 1.66 of the 2 ns: a fifth more is free."""
    shares = path_shares(PAPER, NOMINAL)
    assert shares == {"logic": 1.0} | dict.fromkeys(("ifmap_buffer", "weight_buffer", "ofmap_buffer"), 1.5085 * 1.1 / 2)
    assert fastest_clock_hz(PAPER, OperatingPoint((Supply("sram", 0.95),))) == PAPER.clock_hz
    both = OperatingPoint((Supply("sram", 0.8), Supply("logic", 0.95)))
    assert fastest_clock_hz(PAPER, both) == pytest.approx(500e6 / path_shares(PAPER, both)["weight_buffer"])


def test_an_access_longer_than_the_period_is_pipelined():
    machine = accelerator("tpu")
    assert path_shares(machine, NOMINAL)["ifmap_buffer"] == 1.0


def test_a_clock_in_hz_may_use_the_margin_up_and_no_more():
    low = (Supply("logic", 0.9),)
    kept = fastest_clock_hz(PAPER, OperatingPoint(low))
    assert clock_hz(PAPER, OperatingPoint(low, clock_hz=1.0999 * kept)) == 1.0999 * kept
    with pytest.raises(InputError, match=r"clock_hz = .* allowed: at most .* \(logic of paper\), .* or follow"):
        clock_hz(PAPER, OperatingPoint(low, clock_hz=1.1001 * kept))
    assert clock_hz(PAPER, OperatingPoint(low)) == PAPER.clock_hz  # no clock was asked for: nothing slows down


def test_nothing_switches_at_threshold():
    with pytest.raises(InputError, match=r"supply in V = 0\.45.* allowed: above the threshold of 0\.4564 V"):
        fastest_clock_hz(PAPER, OperatingPoint((Supply("logic", 0.45, 0.8),)))


def test_a_machine_that_says_its_paths_is_believed():
    own = Delay(0.0, logic=AlphaPower(0.3, 1.3, "ours", nominal_ns=1.0), sram=AlphaPower(0.35, 1.5, "ours"))
    shares = path_shares(replace(PAPER, delay=own), OperatingPoint((Supply("sram", 0.9),)))
    assert shares["logic"] == 0.5
    assert shares["weight_buffer"] == pytest.approx(0.9 * ((0.8 - 0.35) / (0.72 - 0.35)) ** 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{corner: tt}", "delay.corner"),
        ("{margin: -0.1}", "delay.margin = -0.1 is not allowed; allowed: 0 to 1, of the delay of a path"),
        ("{logic: {threshold_v: 0.3, alpha: 9, source: x}}", "delay.logic.alpha = 9"),
        ("{logic: {threshold_v: 0.3, alpha: 1.5}}", "delay.logic.source = None is not allowed; allowed: a value"),
        ("{sram: {vt: 0.3}}", "delay.sram.vt = 0.3 is not allowed; allowed: threshold_v, alpha, source, nominal_ns"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text((PRESETS / "paper.yaml").read_text() + f"\ndelay: {text}\n")
    with pytest.raises(InputError) as error:
        accelerator(path)
    assert message in str(error.value)


def test_fits_need_points_and_thresholds_a_nominal_supply_above_them():
    with pytest.raises(InputError, match="3 supplies, 3 delays"):
        fit([1, 2, 3], [3, 2, 1], "x")
    with pytest.raises(InputError, match=r"threshold_v = 0\.9 is not allowed; allowed: less than the nominal 0\.8 V"):
        AlphaPower(0.9, 1.5, "x").relative(1.0, 0.8)
    assert mac_path(1.8).threshold_v == published().path.threshold_v
