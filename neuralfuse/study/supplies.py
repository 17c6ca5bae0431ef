"""What the voltages of a study mean: the operating points of each machine, their volts, and faulty cells."""

import functools
from dataclasses import dataclass

from neuralfuse.study.config import StudyConfig
from simulator.accelerator import Accelerator, accelerator, with_weight_rail
from simulator.operating_point import OperatingPoint, nominal_on, weights_at
from sram.failure import FailureCurve


@dataclass(frozen=True)
class SweptVoltage:
    """A voltage of a study: in the curve's unit, in volts on the weight rail of each accelerator, and the share of
    cells that fail there by the curve; `extrapolated` where the curve has no data."""

    voltage: float
    volts: dict[str, float]
    cell_fault_rate: float
    extrapolated: bool


@functools.lru_cache(maxsize=64)
def machine_of(name: str) -> Accelerator:
    """An accelerator as studies run it: its weight buffer on a rail of its own.

    >>> machine_of("paper").weight_buffer.rail
    'weights'
    """
    return with_weight_rail(accelerator(name))


def at_voltage(study: StudyConfig, machine: str, voltage: float) -> OperatingPoint:
    """The point at which the weight memory of an accelerator has this voltage, in the curve's unit."""
    found = machine_of(machine)
    return weights_at(found, voltage, nominal_on(found, study.curve))


def operating_points(study: StudyConfig, machine: str) -> tuple[OperatingPoint, ...]:
    """Where a study runs an accelerator, the highest supply first."""
    return tuple(at_voltage(study, machine, voltage) for voltage in study.voltages)


def weight_voltage(machine: str, at: OperatingPoint) -> float:
    """Of the weight memory of an accelerator, in the curve's unit."""
    return at.supply(machine_of(machine).weight_buffer.rail).voltage


def rails(study: StudyConfig) -> str:
    """Which rails of the accelerators a study lowers, in words.

    >>> from neuralfuse.study.files import Study
    >>> rails(Study("x", networks=["resnet8"], voltages=[1.0]))
    "the weight buffer's rail alone (weights of paper, nominally 0.8 V); all others stay at nominal"
    """
    each = [
        f"{machine.weight_buffer.rail} of {name}, nominally {machine.rails[machine.weight_buffer.rail]:g} V"
        for name, machine in ((name, machine_of(name)) for name in study.accelerators)
    ]
    return f"the weight buffer's rail alone ({'; '.join(each)}); all others stay at nominal"


def volts_per_unit(study: StudyConfig) -> dict[str, float]:
    """{accelerator: volts of its weight rail at 1 in the curve's unit}.

    >>> from neuralfuse.study.files import Study
    >>> volts_per_unit(Study("x", networks=["resnet8"], accelerators=["paper", "eyeriss"], voltages=[1.0]))
    {'paper': 0.8, 'eyeriss': 1.1}
    """
    curve, machines = study.curve, {name: machine_of(name) for name in study.accelerators}
    return {name: m.rails[m.weight_buffer.rail] / nominal_on(m, curve) for name, m in machines.items()}


def swept_voltages(study: StudyConfig) -> list[SweptVoltage]:
    """Every voltage of the study, the highest first."""
    return [_swept(study.curve, voltage, volts_per_unit(study)) for voltage in study.voltages]


def _swept(curve: FailureCurve, voltage: float, volts: dict[str, float]) -> SweptVoltage:
    rate, each = float(curve.probability(voltage)), {name: voltage * one for name, one in volts.items()}
    return SweptVoltage(voltage, each, rate, curve.extrapolates(voltage))
