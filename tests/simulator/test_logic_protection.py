"""Do protections of the logic find what their schemes find, and cost what a count says?"""

from dataclasses import replace

import numpy as np
import pytest

from simulator.accelerator import accelerator
from simulator.logic_protection import Abft, Razor, Tile, checked_tiles
from simulator.mac_errors import mac_errors
from simulator.workload import Workload, conv
from sram.errors import InputError

TILE = Tile(5, 40, 6)


def test_razor_leaves_what_is_late_for_its_shadow_latch_too():
    narrow = Razor(window=0.1)
    assert narrow.surviving(0.7) == mac_errors(0.77)
    rates = [mac_errors(slack, "ws").word_error_rate for slack in (0.7, 0.77)]
    assert narrow.detects(0.7, "ws") == pytest.approx(1 - rates[1] / rates[0])
    assert Razor().detects(1.2) == 1.0
    assert Razor().surviving(0.67).word_error_rate == 0  # 1.005 of the path


def test_razor_stalls_the_whole_array_for_an_error_anywhere():
    random = np.random.default_rng(0)
    stalls = (random.random((20_000, 64)) < 0.003).any(1).mean()
    # 4 standard deviations: a false alarm in 16,000 seeds
    assert Razor().cost(0.003, 64).cycles == pytest.approx(stalls, abs=4 * np.sqrt(0.25 / 20_000))
    assert Razor(penalty_cycles=5).cost(0.003, 64).cycles == pytest.approx(5 * Razor().cost(0.003, 64).cycles)
    assert Razor().cost(0, 64) == (0.031, 0.0, 0.0)


@pytest.mark.parametrize("rate", [3e-4, 3e-3])
def test_abft_finds_as_many_wrong_tiles_as_checksums_of_drawn_errors_do(rate):
    """Errors of bit 31 in products that are added up modulo 2^32; a checksum for each pixel."""
    random = np.random.default_rng(1)
    errors = random.poisson(rate * TILE.k, (200_000, TILE.m, TILE.n))
    wrong = errors.any((1, 2))
    difference = (errors.sum(2) * 2**31) % 2**32
    found = (difference != 0).any(1)[wrong]
    spread = np.sqrt(found.var() / found.size)
    assert Abft().detects(rate, TILE) == pytest.approx(found.mean(), abs=4 * spread)  # a false alarm in 16,000 seeds
    missed = errors[wrong & ~(difference != 0).any(1)].sum() / errors.size / TILE.k  # errors a MAC
    assert Abft().surviving(rate, TILE).word_error_rate == pytest.approx(missed, rel=0.25)


def test_abft_computes_wrong_tiles_again_at_a_slower_clock():
    abft, macs = Abft(), TILE.m * TILE.k * (TILE.n + 1)
    again = 1 - np.exp(-1e-4 * macs)
    checks = (1 + np.log2(6) / 8) / 6 + 1 / 40 + 1 / 5
    assert abft.cost(0, TILE, 1.1) == pytest.approx((checks, 0, 0))
    assert abft.cost(1e-4, TILE, 0.8) == pytest.approx(((1 + checks) * (1 + again) - 1, again / 0.8, again))
    # counted: half of the tiles, and of the others those whose checksum itself errs
    again = 0.5 + 0.5 * (1 - np.exp(-1e-4 * TILE.m * TILE.k))
    assert abft.cost(1e-4, TILE, 1.1, wrong=0.5) == pytest.approx(((1 + checks) * (1 + again) - 1, again, again))
    assert abft.detects(0, TILE) == 1
    tiny = abft.surviving(1e-12, TILE).word_error_rate
    assert 0 < tiny < 1e-20  # no cancellation: pairs go with the square of the rate


def test_checked_together_is_what_the_columns_make_at_a_time():
    layers = conv("wide", 8, 8, 4, 48, kernel=3, padding=1), conv("last", 2, 2, 4, 10, kernel=2)
    net = Workload("two", layers)
    machine = replace(accelerator("paper"), array_rows=8, array_cols=16)
    assert checked_tiles(net, machine) == [Tile(8, 36, 16), Tile(1, 16, 10)]
    assert checked_tiles(net, replace(machine, dataflow="ws"))[0] == Tile(64, 36, 16)
    with pytest.raises(InputError, match="os, ws"):
        checked_tiles(net, replace(machine, dataflow="is"))


@pytest.mark.parametrize(
    "made",
    [
        lambda: Razor(window=0),
        lambda: Razor(energy=-1),
        lambda: Abft(threshold=2**25),
        lambda: Tile(0, 1, 1),
        lambda: Razor().cost(2, 4),
        lambda: Abft().detects(-1, TILE),
        lambda: Abft().cost(0.1, TILE, 0),
    ],
)
def test_what_is_no_protection_is_refused(made):
    with pytest.raises(InputError):
        made()
