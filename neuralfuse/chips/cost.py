"""Energy of an inference at the four scopes, what SRAM protections add included."""

from collections.abc import Mapping
from types import MappingProxyType

from simulator.accelerator import Accelerator
from simulator.energy import SCOPES, LayerEnergy, Part, Scope
from simulator.operating_point import OperatingPoint
from sram.energy import leakage_scale
from sram.protection import Overhead

Overheads = Mapping[str, Overhead]  # of the protections of each buffer, by its name
NONE: Overheads = MappingProxyType({})


def scopes(
    found: LayerEnergy, machine: Accelerator, at: OperatingPoint, overheads: Overheads = NONE
) -> dict[Scope, float]:
    """pJ of one inference by scope: of `found` at an operating point, and what the protections of buffers add.

    An overhead, which counts in the unit of the supply of its buffer's rail, multiplies the reads and writes of the
    buffer by their energy at this supply, and its leakage by the storage; the cells that stay at nominal voltage leak
    as at nominal.
    """
    more: dict[str, float] = {}
    for part, pj in found.parts.items():
        overhead = overheads.get(part.owner, _PLAIN)
        if overhead != _PLAIN:
            spent = float(pj.sum()) * (_scale(part, overhead, machine, at) - 1)
            more[part.component] = more.get(part.component, 0.0) + spent
    return {
        scope: found.scope_pj(scope) + sum(more.get(component, 0.0) for component in components)
        for scope, components in SCOPES.items()
    }


_PLAIN = Overhead()


def _scale(part: Part, overhead: Overhead, machine: Accelerator, at: OperatingPoint) -> float:
    """Energy of a part of a protected buffer over that of a bare one at the same supply."""
    rail = getattr(machine, part.owner).rail
    supply, volts = at.supply(rail), machine.rails[rail]
    if part.way != "leakage":
        scale = overhead.read_scale if part.way == "read" else overhead.write_scale
        return float(scale(supply.voltage, supply.nominal)) / supply.share**2
    kept = (1 - overhead.nominal_cells) * _leak(volts, supply.share + overhead.voltage_offset / supply.nominal)
    return overhead.storage * (kept + overhead.nominal_cells * _leak(volts, 1.0)) / _leak(volts, supply.share)


def _leak(volts: float, ratio: float) -> float:
    return float(leakage_scale(volts * ratio, volts))
