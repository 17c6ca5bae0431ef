"""What the voltages of a study mean: in volts on each machine, and in faulty cells."""

from dataclasses import dataclass

from neuralfuse.study.config import StudyConfig
from simulator.accelerator import accelerator, with_weight_rail
from simulator.operating_point import nominal_on
from sram.failure import FailureCurve


@dataclass(frozen=True)
class Supply:
    """A voltage of a study: in the curve's unit, in volts on the weight rail of each accelerator, and the share of
    cells that fail there by the curve; `extrapolated` where the curve has no data."""

    voltage: float
    volts: dict[str, float]
    cell_fault_rate: float
    extrapolated: bool


def rails(study: StudyConfig) -> str:
    """Which rails of the accelerators a study lowers, in words.

    >>> from neuralfuse.study.files import Study
    >>> rails(Study("x", networks=["resnet8"], voltages=[1.0]))
    "the weight buffer's rail alone (weights of paper, nominally 0.8 V); all others stay at nominal"
    """
    found = {name: with_weight_rail(accelerator(name)) for name in study.accelerators}
    each = [
        f"{rail} of {name}, nominally {machine.rails[rail]:g} V"
        for name, machine in found.items()
        for rail in [machine.weight_buffer.rail]
    ]
    return f"the weight buffer's rail alone ({'; '.join(each)}); all others stay at nominal"


def volts_per_unit(study: StudyConfig) -> dict[str, float]:
    """{accelerator: volts of its weight rail at 1 in the curve's unit}.

    >>> from neuralfuse.study.files import Study
    >>> volts_per_unit(Study("x", networks=["resnet8"], accelerators=["paper", "eyeriss"], voltages=[1.0]))
    {'paper': 0.8, 'eyeriss': 1.1}
    """
    found = {name: accelerator(name) for name in study.accelerators}
    curve = study.curve
    return {
        name: machine.rails[machine.weight_buffer.rail] / nominal_on(machine, curve) for name, machine in found.items()
    }


def supplies(study: StudyConfig) -> list[Supply]:
    """Every voltage of the study, the highest first."""
    return [_supply(study.curve, voltage, volts_per_unit(study)) for voltage in study.voltages]


def _supply(curve: FailureCurve, voltage: float, volts: dict[str, float]) -> Supply:
    rate = float(curve.probability(voltage))
    return Supply(voltage, {name: voltage * one for name, one in volts.items()}, rate, curve.extrapolates(voltage))
