"""What the supplies of a study mean: the operating points of each machine, their volts, and faulty cells."""

import functools
from dataclasses import dataclass, replace
from itertools import product

from neuralfuse.chips.memory import curve_of
from neuralfuse.results.rows import ALONE
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.rails import ROLES, MemoryConfig, Role
from simulator.accelerator import Accelerator, accelerator, with_rails
from simulator.operating_point import OperatingPoint, Supply
from sram.errors import InputError
from sram.failure import FailureCurve

MemorySupplies = tuple[tuple[Role, float], ...]  # of the memories on rails that a study sets, each in its curve's unit
BUFFERS: dict[Role, str] = {"weights": "weight_buffer", "activations": "ifmap_buffer", "accumulators": "ofmap_buffer"}


@dataclass(frozen=True)
class SweptVoltage:
    """A supply of a study: in the curve's unit, in volts on the rail of each accelerator, and the share of cells that
    fail there by the curve, None of the logic, which has none; `extrapolated` where the curve has no data."""

    voltage: float
    volts: dict[str, float]
    cell_fault_rate: float | None
    extrapolated: bool


def roles_of(study: StudyConfig) -> tuple[Role, ...]:
    """What hangs on the rails whose supplies a study sets: the weights, and whatever else it names.

    >>> from neuralfuse.study.files import Study
    >>> roles_of(Study("x", networks=["resnet8"], voltages=[1.0], rails={"logic": [0.9]}))
    ('weights', 'logic')
    """
    named = {"weights", *study.together, *study.rails}
    named |= {role for point in study.operating_points for role in ROLES if getattr(point, role) is not None}
    return tuple(role for role in ROLES if role in named)


@functools.lru_cache(maxsize=64)
def machine_of(name: str, roles: tuple[Role, ...] = ("weights",)) -> Accelerator:
    """An accelerator as studies run it: what they lower is on rails of its own. The cache of keys and values is a
    memory beside it, nominally at the supply of the weights, whose energy it does not count.

    >>> machine_of("paper").weight_buffer.rail, machine_of("paper", ("weights", "activations")).ifmap_buffer.rail
    ('weights', 'activations')
    """
    machine = with_rails(accelerator(name), [role for role in roles if role != "cache"])[0]
    if "cache" not in roles:
        return machine
    return replace(machine, rails={"cache": machine.rails[machine.weight_buffer.rail]} | machine.rails)


def rail_of(machine: Accelerator, role: Role) -> str:
    """The rail that something hangs on."""
    return role if role in ("logic", "cache") else str(getattr(machine, BUFFERS[role]).rail)


def own_of(study: StudyConfig, role: Role) -> MemoryConfig | None:
    """What a study says of a memory where it differs from that of the weights."""
    return None if role in ("weights", "logic") else study.memories.get(role)  # type: ignore[arg-type]


def curve_of_role(study: StudyConfig, role: Role) -> FailureCurve:
    """The curve in whose unit the supply is: that of the memory, and of the weights for the logic."""
    own = own_of(study, role)
    return study.curve if own is None or own.curve is None else curve_of(own.curve)


def nominal_of(study: StudyConfig, machine: Accelerator, role: Role) -> float:
    """The supply that stands for the nominal volts of the rail, in the unit of its curve."""
    curve = curve_of_role(study, role)
    return machine.rails[rail_of(machine, role)] if curve.unit == "V" else curve.nominal


def at_voltage(study: StudyConfig, machine: str, voltage: float) -> OperatingPoint:
    """The point at which the weight memory of an accelerator has this voltage, in the curve's unit, and all else is at
    nominal supply."""
    return _point(study, machine_of(machine, roles_of(study)), {"weights": voltage}, None)


def operating_points(study: StudyConfig, machine: str) -> tuple[OperatingPoint, ...]:
    """Where a study runs an accelerator. InputError for a supply above nominal of what is not the weights."""
    found = machine_of(machine, roles_of(study))
    if study.operating_points:
        points = [
            ({role: getattr(each, role) for role in ROLES if getattr(each, role) is not None}, each.clock)
            for each in study.operating_points
        ]
    else:
        others = product(*study.rails.values())
        points = [
            (
                {
                    "weights": voltage,
                    **dict.fromkeys(study.together, voltage),
                    **dict(zip(study.rails, rest, strict=True)),
                },
                None,
            )
            for rest in others
            for voltage in study.voltages
        ]
    return tuple(_point(study, found, supplies, clock) for supplies, clock in points)


def _point(
    study: StudyConfig, machine: Accelerator, given: dict[Role, float], clock: float | str | None
) -> OperatingPoint:
    """Every rail that the study sets, named or nominal."""
    supplies = {}
    for role in roles_of(study):
        nominal = nominal_of(study, machine, role)
        voltage = given.get(role, nominal)
        if role != "weights" and voltage > nominal:
            allowed = f"at most {nominal:g} {curve_of_role(study, role).unit}, the nominal supply on {machine.name}"
            raise InputError("study", f"rails.{role}", voltage, allowed)
        supplies[role] = Supply(rail_of(machine, role), voltage, nominal)
    return OperatingPoint(tuple(supplies.values()), clock or study.clock, study.late_sums)  # type: ignore[arg-type]


def supply_of(study: StudyConfig, machine: str, at: OperatingPoint, role: Role) -> float:
    """Of a memory or the logic at a point, in the unit of its curve.

    >>> from neuralfuse.study.files import Study
    >>> study = Study("x", networks=["resnet8"], voltages=[0.8], together=["activations"])
    >>> [supply_of(study, "paper", operating_points(study, "paper")[0], role) for role in ROLES]
    [0.8, 0.8, 0.8, 1.0, 1.0]
    """
    found = machine_of(machine, roles_of(study))
    rail = rail_of(found, role)
    named = next((supply.voltage for supply in at.supplies if supply.rail == rail), None)
    return nominal_of(study, found, role) if named is None else named


def memory_supplies(study: StudyConfig, machine: str, at: OperatingPoint) -> MemorySupplies:
    """What the memories have at a point, the weights first.

    >>> from neuralfuse.study.files import Study
    >>> study = Study("x", networks=["resnet8"], voltages=[0.8], rails={"activations": [0.9], "logic": [0.9]})
    >>> memory_supplies(study, "paper", operating_points(study, "paper")[0])
    (('weights', 0.8), ('activations', 0.9))
    """
    return tuple((role, supply_of(study, machine, at, role)) for role in roles_of(study) if role != "logic")


def at_weights(study: StudyConfig, supplies: MemorySupplies, voltage: float) -> MemorySupplies:
    """The same with the weights, and what falls with them, at another voltage."""
    return tuple((role, voltage if role in ("weights", *study.together) else own) for role, own in supplies)


def training_supplies(
    study: StudyConfig, machine: str, voltages: tuple[float, ...] | None = None
) -> tuple[MemorySupplies, ...]:
    """What the memories of training chips have, in turn: all that they have at the study's points, where `voltages` of
    the weights are given with these instead.

    >>> from neuralfuse.study.files import Study
    >>> study = Study("x", networks=["resnet8"], voltages=[0.8], rails={"activations": [1.0, 0.9]})
    >>> [[voltage for _, voltage in each] for each in training_supplies(study, "paper", (0.78, 0.77))]
    [[0.78, 1.0], [0.77, 1.0], [0.78, 0.9], [0.77, 0.9]]
    """
    swept = dict.fromkeys(memory_supplies(study, machine, at) for at in operating_points(study, machine))
    if voltages is None:
        return tuple(swept)
    return tuple(dict.fromkeys(at_weights(study, each, voltage) for each in swept for voltage in voltages))


def beside(study: StudyConfig, machine: str, at: OperatingPoint) -> str:
    """What a point does beside the supply of the weights, in words: the same for all points that differ in that alone.

    >>> from neuralfuse.study.files import Study
    >>> study = Study("x", networks=["resnet8"], voltages=[0.8], rails={"activations": [0.9]}, together=["logic"])
    >>> beside(study, "paper", operating_points(study, "paper")[0])
    'activations 0.9, logic with weights'
    """
    parts = []
    for role in roles_of(study)[1:]:
        with_weights = role in study.together
        parts.append(f"{role} {'with weights' if with_weights else f'{supply_of(study, machine, at, role):g}'}")
    if at.clock_hz is not None:
        parts.append("clock follows" if at.clock_hz == "follow" else f"clock {at.clock_hz:g} Hz")
    return ", ".join(parts) or ALONE


def rails(study: StudyConfig) -> str:
    """Which rails of the accelerators a study lowers, in words.

    >>> from neuralfuse.study.files import Study
    >>> rails(Study("x", networks=["resnet8"], voltages=[1.0]))
    'weights of paper (nominally 0.8 V); all others stay at nominal'
    """
    roles, found = roles_of(study), []
    for name in study.accelerators:
        machine = machine_of(name, roles)
        each = ", ".join(f"{machine.rails[rail_of(machine, role)]:g} V" for role in roles)
        found.append(f"{', '.join(roles)} of {name} (nominally {each})")
    left_out = "; energy leaves the cache out" if "cache" in roles else ""
    return "; ".join(found) + "; all others stay at nominal" + left_out


def volts_per_unit(study: StudyConfig, role: Role = "weights") -> dict[str, float]:
    """{accelerator: volts on the rail of a role at 1 in the unit of its curve}.

    >>> from neuralfuse.study.files import Study
    >>> volts_per_unit(Study("x", networks=["resnet8"], accelerators=["paper", "eyeriss"], voltages=[1.0]))
    {'paper': 0.8, 'eyeriss': 1.1}
    """
    machines = {name: machine_of(name, roles_of(study)) for name in study.accelerators}
    return {name: m.rails[rail_of(m, role)] / nominal_of(study, m, role) for name, m in machines.items()}


def swept_voltages(study: StudyConfig, role: Role = "weights") -> list[SweptVoltage]:
    """Every supply that a role has at the study's points, the highest first.

    >>> from neuralfuse.study.files import Study
    >>> study = Study("x", networks=["resnet8"], voltages=[0.8], rails={"logic": [1.0, 0.9]}, clock="follow")
    >>> [(each.voltage, round(each.volts["paper"], 9), each.cell_fault_rate) for each in swept_voltages(study, "logic")]
    [(1.0, 0.8, None), (0.9, 0.72, None)]
    """
    curve, volts = curve_of_role(study, role), volts_per_unit(study, role)
    points = ((name, at) for name in study.accelerators for at in operating_points(study, name))
    found = {supply_of(study, name, at, role) for name, at in points}
    swept = []
    for voltage in sorted(found, reverse=True):
        rate = None if role == "logic" else float(curve.probability(voltage))
        each = {name: voltage * one for name, one in volts.items()}
        swept.append(SweptVoltage(voltage, each, rate, role != "logic" and curve.extrapolates(voltage)))
    return swept
