"""The point that a machine is run at: the supply of each rail, and the clock."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from simulator.accelerator import Accelerator
from sram.errors import InputError
from sram.failure import FailureCurve


@dataclass(frozen=True, order=True)
class Supply:
    """The voltage of a rail, in the unit of `nominal`, which is the one that stands for the rail's nominal volts: 1.0
    where a failure curve counts in multiples of Vmin."""

    rail: str
    voltage: float
    nominal: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share < math.inf:
            raise InputError("operating point", "voltage", self.voltage, "more than 0, and finite")

    @property
    def share(self) -> float:
        """Of the nominal voltage."""
        return self.voltage / self.nominal


@dataclass(frozen=True)
class OperatingPoint:
    """The supplies of rails, each once, kept in the order of their names, and the clock. A rail that is not named is at
    its nominal supply. Raises InputError.

    `clock_hz`: in Hz; `follow`: the fastest that all supplies allow; left out, the accelerator's own, whatever the
    supplies: nothing slows down (`simulator.timing`). `late_sums`: a clock in Hz may be too fast for the logic, whose
    sums are then late (`simulator.mac_errors`).

    >>> OperatingPoint((Supply("weights", 0.8), Supply("logic", 0.9))).voltages
    (0.9, 0.8)
    """

    supplies: tuple[Supply, ...] = ()
    clock_hz: float | Literal["follow"] | None = None
    late_sums: bool = False

    def __post_init__(self) -> None:
        if self.clock_hz not in (None, "follow") and not 0 < float(self.clock_hz) < math.inf:
            raise InputError("operating point", "clock_hz", self.clock_hz, "follow, or more than 0, and finite")
        rails = [supply.rail for supply in self.supplies]
        if twice := [rail for rail in rails if rails.count(rail) > 1]:
            raise InputError("operating point", "rail", twice[0], "each rail once")
        object.__setattr__(self, "supplies", tuple(sorted(self.supplies)))

    @property
    def voltages(self) -> tuple[float, ...]:
        """Of the rails that are named, in the order of their names, each in the unit of its own nominal voltage."""
        return tuple(supply.voltage for supply in self.supplies)

    def supply(self, rail: str) -> Supply:
        """Of a rail; nominal where it is not named."""
        return next((supply for supply in self.supplies if supply.rail == rail), Supply(rail, 1.0))

    def volts(self, machine: Accelerator) -> dict[str, float]:
        """Of each rail of a machine; InputError for the supply of a rail that it has not."""
        for supply in self.supplies:
            if supply.rail not in machine.rails:
                allowed = f"{', '.join(machine.rails)}, of {machine.name}"
                raise InputError("operating point", "rail", supply.rail, allowed)
        return {rail: nominal * self.supply(rail).share for rail, nominal in machine.rails.items()}


NOMINAL = OperatingPoint()


def nominal_on(machine: Accelerator, curve: FailureCurve) -> float:
    """The voltage, in the curve's unit, that stands for the nominal volts of the weight buffer's rail.

    Of a curve in volts these volts themselves, whatever the memory was run at that the curve was measured on.

    >>> from simulator.accelerator import accelerator
    >>> from sram.failure import curve
    >>> [nominal_on(accelerator("paper"), curve(name)) for name in ("ibm14", "kc705b")]
    [1.0, 0.8]
    """
    return machine.rails[machine.weight_buffer.rail] if curve.unit == "V" else curve.nominal


def weights_at(machine: Accelerator, voltage: float, nominal: float | None = None) -> OperatingPoint:
    """The point at which the rail of the weight buffer has this voltage, and every other rail its nominal one.

    `voltage` in the unit of `nominal` (`Supply`), in volts where that is left out.

    >>> from simulator.accelerator import accelerator
    >>> weights_at(accelerator("paper"), 0.4).supplies
    (Supply(rail='sram', voltage=0.4, nominal=0.8),)
    """
    rail = machine.weight_buffer.rail
    return OperatingPoint((Supply(rail, voltage, machine.rails[rail] if nominal is None else nominal),))


def halfway(one: OperatingPoint, other: OperatingPoint) -> OperatingPoint:
    """Half way between two points of the same rails, to nine digits; the clock of the first.

    >>> halfway(OperatingPoint((Supply("weights", 0.8),)), OperatingPoint((Supply("weights", 0.7),))).voltages
    (0.75,)
    """
    pairs = zip(one.supplies, other.supplies, strict=True)
    return replace(one, supplies=tuple(replace(a, voltage=round((a.voltage + b.voltage) / 2, 9)) for a, b in pairs))
