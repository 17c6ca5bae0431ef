"""Is the cost of a layer behind a protection of the logic the one that is worked out by hand?"""

import numpy as np
import pytest

from neuralfuse.study.cost import cost_of, with_second
from simulator.accelerator import accelerator, with_rails
from simulator.array.cycles import simulate
from simulator.energy import energy
from simulator.mac_errors import mac_errors
from simulator.operating_point import NOMINAL, OperatingPoint, Supply
from simulator.timing import slack
from simulator.workload import Workload, conv, linear


@pytest.fixture(scope="module")
def late():
    """Two layers, 64 pixels x 144 taps x 48 filters and 1 x 3072 x 10, on 32 x 32 elements, at a slack of 0.83."""
    net = Workload("two", (conv("a", 8, 8, 16, 48, kernel=3, padding=1), linear("b", 1, 3072, 10)))
    machine, _ = with_rails(accelerator("paper"), ("logic",))
    at = OperatingPoint((Supply("logic", 0.92),), machine.clock_hz, late_sums=True)
    assert slack(machine, at) < 1
    return simulate(net, machine), at


def test_abft_costs_checks_and_what_is_computed_again(late):
    counts, at = late
    machine, base = counts.accelerator, energy(counts, at)
    room = slack(machine, at)
    rate = mac_errors(room, "os", machine.delay.corner).word_error_rate
    wrong = np.array([0.25, 0.0])  # of tiles of 32 pixels x 32 filters, and of 1 x 10
    again = wrong + (1 - wrong) * (1 - np.exp(-rate * np.array([32 * 144, 3072])))
    checks = np.array([(1 + 5 / 8) / 32 + 1 / 144 + 1 / 32, (1 + np.log2(10) / 8) / 10 + 1 / 3072 + 1])
    array, time = (1 + checks) * (1 + again), 1 + again / room
    part = base.components
    expected = (part["mac"] + part["registers"]) * array
    expected += (part["weight_sram_reads"] + part["weight_sram_writes"] + part["activation_sram"]) * (1 + again)
    expected += (part["sram_leakage"] + part["logic_leakage"]) * time + part["vector"]
    found = cost_of(counts, None, at, logic="abft", wrong=wrong)
    assert found.energy_chip_pj == pytest.approx(expected.sum(), rel=1e-12)
    assert found.energy_weight_sram_pj == pytest.approx((part["weight_sram_reads"] * (1 + again)).sum(), rel=1e-12)
    assert found.inference_s == pytest.approx((base.layer_seconds * time).sum(), rel=1e-12)
    assert found.cycles == round((counts.layers["cycles"] * time).sum())


def test_what_was_not_counted_is_expected_at_the_slack_of_the_clock(late):
    counts, at = late
    machine = counts.accelerator
    rate = mac_errors(slack(machine, at), "os", machine.delay.corner).word_error_rate
    wrong = [1 - np.exp(-rate * macs) for macs in (32 * 144 * 32, 3072 * 10)]
    assert cost_of(counts, None, at, logic="abft") == cost_of(counts, None, at, logic="abft", wrong=wrong)
    in_time = cost_of(counts, None, OperatingPoint((Supply("logic", 0.98),), machine.clock_hz, True), logic="abft")
    assert in_time.cycles == counts.cycles


def test_two_networks_cost_their_sum_by_the_share_of_images():
    """A quarter of the images pass on: energies at the point and at nominal supply, worked out from accesses."""
    machine, _ = with_rails(accelerator("paper"), ("weights",))
    big = simulate(Workload("big", (conv("a", 8, 8, 16, 48, kernel=3, padding=1),)), machine)
    small = simulate(Workload("small", (linear("b", 1, 3072, 10),)), machine)
    at = OperatingPoint((Supply("weights", 0.8),))
    found = with_second(cost_of(big, None, at), big, small, 0.25)
    reads = [energy(counts).components["weight_sram_reads"].sum() for counts in (big, small)]
    assert found.energy_weight_sram_pj == pytest.approx(0.25 * 0.64 * reads[0] + reads[1], rel=1e-12)
    assert found.saving_weight_sram == pytest.approx(1 - found.energy_weight_sram_pj / reads[0], rel=1e-12)
    assert found.cycles == round(0.25 * big.cycles) + small.cycles
    assert found.inference_s == pytest.approx((0.25 * big.cycles + small.cycles) / machine.clock_hz, rel=1e-12)
    alone = with_second(cost_of(big, None, NOMINAL), big, small, 0)
    assert alone.energy_system_pj == pytest.approx(cost_of(small, None, NOMINAL).energy_system_pj, rel=1e-12)
