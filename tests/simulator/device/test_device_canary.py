"""Do canary words notice a chip that moved, and only such a chip?"""

import dataclasses

import numpy as np
import pytest

from simulator.device.canary import canaries, drift
from simulator.device.simulated import SimulatedChip
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry

MAP = faultmap.generate(3, Geometry(4), "ibm14", voltage_floor=0.76)


def moved(shift):
    critical = (MAP.critical_voltage + np.float32(shift)).astype(np.float32)
    keep = critical > 0.76
    cut = {name: getattr(MAP, name)[keep] for name in ("cell", "kind")}
    return dataclasses.replace(MAP, critical_voltage=critical[keep], **cut)


def test_canaries_are_spread_around_the_voltage():
    critical = MAP.critical_voltage[canaries(MAP, 0.82, 50)]
    assert 45 <= len(critical) <= 50
    assert np.abs(critical - 0.82).max() <= 0.02
    gaps = -np.diff(critical)
    assert gaps.max() < 3 * 0.04 / 50
    assert (MAP.critical_voltage[canaries(MAP, 0.76, 50)] > 0.76).all()  # nothing is known below the floor
    assert len(canaries(MAP, 1.3, 50)) == 0
    with pytest.raises(InputError, match=r"at least 0\.76"):
        canaries(MAP, 0.7)


@pytest.mark.parametrize("shift", [-0.004, -0.001, 0.0, 0.001, 0.004])
def test_a_shift_is_measured_and_nothing_else_is_seen(shift):
    with SimulatedChip(moved(shift)) as chip:
        words = np.arange(chip.info.words, dtype=np.uint64)
        chip.write(0, words)
        chosen = canaries(MAP, 0.8, 200)
        found = drift(chip, MAP, 0.8, chosen)
        assert (chip.read(0, len(words)) == words).all()  # put back, at nominal voltage
        assert chip.voltage == chip.info.voltage_nominal
    apart = float(np.diff(np.sort(MAP.critical_voltage[chosen])).max())
    assert found.shift == pytest.approx(shift, abs=apart)
    assert found.fallen == (0 if shift <= 0 else found.canaries * found.changed)
    assert found.healed == (0 if shift >= 0 else found.canaries * found.changed)
    assert (found.changed == 0) == (shift == 0)


def test_a_single_stray_cell_is_no_shift():
    cell = MAP.cell[canaries(MAP, 0.8, 40)[5]]
    keep = MAP.cell != cell
    cut = {name: getattr(MAP, name)[keep] for name in ("cell", "kind", "critical_voltage")}
    with SimulatedChip(dataclasses.replace(MAP, **cut)) as chip:
        found = drift(chip, MAP, 0.8, canaries(MAP, 0.8, 40))
    assert found.healed == 1
    assert found.shift == 0.0
