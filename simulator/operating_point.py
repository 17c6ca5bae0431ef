"""The point that a machine is run at: the supply of each rail, and the clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.accelerator import Accelerator
from sram.errors import InputError
from sram.failure import FailureCurve


@dataclass(frozen=True)
class Supply:
    """The voltage of a rail, in the unit of `nominal`, which is the one that stands for the rail's nominal volts: 1.0
    where a failure curve counts in multiples of Vmin."""

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
    """Supplies by the name of their rail, and the clock in Hz. A rail that is not named is at its nominal supply, and a
    clock that is not given is the accelerator's."""

    supplies: Mapping[str, Supply] = field(default_factory=dict)
    clock_hz: float | None = None

    def __post_init__(self) -> None:
        if self.clock_hz is not None and not 0 < self.clock_hz < math.inf:
            raise InputError("operating point", "clock_hz", self.clock_hz, "more than 0, and finite")

    def supply(self, rail: str) -> Supply:
        """Of a rail; nominal where it is not named."""
        return self.supplies.get(rail, Supply(1.0))

    def volts(self, machine: Accelerator) -> dict[str, float]:
        """Of each rail of a machine; InputError for the supply of a rail that it has not."""
        for rail in self.supplies:
            if rail not in machine.rails:
                raise InputError("operating point", "rail", rail, f"{', '.join(machine.rails)}, of {machine.name}")
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
    {'sram': Supply(voltage=0.4, nominal=0.8)}
    """
    rail = machine.weight_buffer.rail
    return OperatingPoint({rail: Supply(voltage, machine.rails[rail] if nominal is None else nominal)})
