"""Operating points: are they values that a key can be made of, and do they refuse what cannot be?"""

import pytest

from simulator.operating_point import OperatingPoint, Supply, halfway
from sram.errors import InputError

WEIGHTS, LOGIC = Supply("weights", 0.8), Supply("logic", 0.9)


def test_the_order_in_which_rails_are_named_is_none_of_the_point():
    one, other = OperatingPoint((WEIGHTS, LOGIC)), OperatingPoint((LOGIC, WEIGHTS))
    assert one == other
    assert hash(one) == hash(other)
    assert one.voltages == (0.9, 0.8)


def test_a_rail_that_is_not_named_is_nominal():
    assert OperatingPoint((WEIGHTS,)).supply("logic").share == 1


def test_a_rail_has_one_supply():
    with pytest.raises(InputError, match="rail = 'weights' is not allowed; allowed: each rail once"):
        OperatingPoint((WEIGHTS, LOGIC, Supply("weights", 0.7)))


def test_half_way_moves_every_rail():
    low = OperatingPoint((Supply("weights", 0.7), Supply("logic", 0.6)), clock_hz=1e6)
    assert halfway(low, OperatingPoint((WEIGHTS, LOGIC))) == OperatingPoint(
        (Supply("weights", 0.75), Supply("logic", 0.75)), clock_hz=1e6
    )
