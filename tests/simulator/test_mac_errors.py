"""Do the errors of a MAC come out as they were counted, gate by gate, at 16 corners?

`mac_timing_*.csv`: 20,000 MACs a corner and period (SkyWater 130 nm open standard cells, no wires).
"""

import csv
from itertools import pairwise
from statistics import median

import numpy as np
import pytest

from simulator.accelerator import accelerator
from simulator.mac_errors import NO_ERRORS, errors_at, mac_errors
from simulator.operating_point import NOMINAL, OperatingPoint, Supply
from simulator.timing import fastest_clock_hz, slack
from sram.errors import InputError
from tests.conftest import DATA

PAPER = accelerator("paper")
SIGNS = ("sum>=0 p<0", "sum>=0 p>=0", "sum<0 p>=0", "sum<0 p<0")


def rows(name):
    with open(DATA / f"mac_timing_{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


CURVES = rows("error_curves")


@pytest.mark.parametrize("corner", ["ss", "ff"])
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_rates_are_the_median_of_the_supplies_wherever_two_errors_were_counted(corner, dataflow):
    compared = 0
    for period in sorted({row["period_over_sta"] for row in CURVES}):
        counted = [
            float(row["word_error_rate"])
            for row in CURVES
            if row["corner"].startswith(f"{corner}_n40C")
            and (row["stream"], row["period_over_sta"]) == (f"{dataflow}_nn", period)
        ]
        if 1e-4 <= median(counted) <= 0.1:
            found = mac_errors(float(period), dataflow, corner)
            assert found.word_error_rate == pytest.approx(median(counted), rel=1e-5)
            assert not found.extrapolated
            compared += 1
    assert compared >= 9


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_size_of_an_error_is_what_the_curves_say_on_average(dataflow):
    """`mean_log2_abs_error` was not used for the model: it says that wrong bits are a run up to bit 31."""
    misses = []
    for row in CURVES:
        rate = float(row["word_error_rate"])
        if row["stream"] == f"{dataflow}_nn" and 0.001 <= rate <= 0.09:
            mean = sum(bit * p for bit, p in enumerate(errors_at(rate, dataflow).lowest_bit))
            misses.append(mean - float(row["mean_log2_abs_error"]))
    assert len(misses) > 100
    assert abs(np.mean(misses)) < 0.1
    assert np.sqrt(np.mean(np.square(misses))) < 0.25


def test_each_bit_is_wrong_as_often_as_it_was_counted():
    for row in rows("bit_errors"):
        if row["stream"] != "random":
            rate = float(row["wer"])
            wrong = np.cumsum(errors_at(rate, row["stream"][:2]).lowest_bit)
            counted = [float(row[f"b{bit}"]) / rate for bit in range(31)]
            assert wrong[:31] == pytest.approx(counted, abs=6e-4)  # one bit was wrong less often than the one below
            assert float(row["b31"]) / rate == pytest.approx(1, abs=0.053)  # taken for all of them


def test_rates_by_signs_are_those_counted_and_make_up_the_rate_of_all():
    counted = [row for row in rows("error_causes") if 0.65 <= float(row["period_over_sta"]) <= 0.8]
    for period in {row["period_over_sta"] for row in counted}:
        at = {row["signs"]: row for row in counted if row["period_over_sta"] == period}
        rate = float(at[SIGNS[0]]["word_error_rate"])
        found = errors_at(rate).by_signs
        for signs, mine in zip(SIGNS, found, strict=True):
            assert mine == pytest.approx(float(at[signs]["error_rate"]), rel=0.05, abs=1e-4)
        shares = [float(at[signs]["share_of_macs"]) for signs in SIGNS]
        assert np.dot(shares, found) == pytest.approx(rate, rel=1e-3)


def test_beyond_the_counted_rates_fall_by_the_last_decade_and_end_at_the_path():
    slacks = np.arange(0.8, 1.01, 0.01)
    for dataflow in ("os", "ws", "is"):
        rates = [mac_errors(each, dataflow).word_error_rate for each in slacks]
        assert all(one > other for one, other in pairwise(rates) if one)
        assert mac_errors(0.85, dataflow).extrapolated
        assert 0 < rates[-2] < 1e-6
    assert mac_errors(1.0) == mac_errors(1.3) == NO_ERRORS
    assert mac_errors(0.75, "is") == mac_errors(0.75, "ws")


@pytest.mark.parametrize(
    ("asked", "key"),
    [((0.5,), "slack"), ((float("nan"),), "slack"), ((0.75, "rs"), "dataflow"), ((0.75, "os", "tt"), "corner")],
)
def test_what_was_not_counted_is_refused(asked, key):
    with pytest.raises(InputError, match=key):
        mac_errors(*asked)
    with pytest.raises(InputError, match="word_error_rate"):
        errors_at(1.5)


def test_slack_is_the_margin_at_nominal_and_wherever_the_clock_follows_the_logic():
    low = (Supply("logic", 0.9),)
    assert slack(PAPER, NOMINAL) == pytest.approx(1 + PAPER.delay.margin)
    assert slack(PAPER, OperatingPoint(low, "follow")) == pytest.approx(1 + PAPER.delay.margin)
    fast = 1.4 * fastest_clock_hz(PAPER, OperatingPoint(low))
    assert slack(PAPER, OperatingPoint(low, fast)) == pytest.approx((1 + PAPER.delay.margin) / 1.4)
    # another path holds the clock back
    assert slack(PAPER, OperatingPoint((Supply("sram", 0.8),), "follow")) > 1.5
