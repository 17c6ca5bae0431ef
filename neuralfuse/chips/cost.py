"""Energy of an inference at the three scopes, what an SRAM protection adds included."""

from dataclasses import dataclass

from simulator.array.cycles import Counts
from simulator.energy import LayerEnergy, energy
from simulator.operating_point import NOMINAL, OperatingPoint
from sram.energy import leakage_scale
from sram.protection import Overhead


@dataclass(frozen=True)
class Scopes:
    """Energy of one inference at the three scopes, pJ."""

    weight_sram: float
    sram: float
    system: float

    def __add__(self, other: "Scopes") -> "Scopes":
        return Scopes(self.weight_sram + other.weight_sram, self.sram + other.sram, self.system + other.system)


def scopes(counts: Counts, at: OperatingPoint = NOMINAL, overhead: Overhead | None = None) -> Scopes:
    """Energy of one inference at an operating point, and what an SRAM protection of the weight buffer adds.

    An overhead, which counts in the unit of the weight rail's supply, multiplies the reads and writes of the weight
    buffer by their energy at this supply, and its leakage by the storage; the cells that stay at nominal voltage leak
    as at nominal.
    """
    found = energy(counts, at)
    plain = Scopes(found.weight_sram_pj, found.sram_pj, found.system_pj)
    if overhead is None or overhead == Overhead():
        return plain
    rail = counts.accelerator.weight_buffer.rail
    supply, volts = at.supply(rail), counts.accelerator.rails[rail]
    plainly = supply.share**2
    reads = found.weight_sram_pj * (float(overhead.read_scale(supply.voltage, supply.nominal)) / plainly - 1)
    written = float(found.components["weight_sram_writes"].sum())
    writes = written * (float(overhead.write_scale(supply.voltage, supply.nominal)) / plainly - 1)
    leakage = weight_leakage_pj(found)
    kept = (1 - overhead.nominal_cells) * _leak(volts, supply.share + overhead.voltage_offset / supply.nominal)
    kept += overhead.nominal_cells * _leak(volts, 1.0)
    leaked = leakage * (overhead.storage * kept / _leak(volts, supply.share) - 1)
    return Scopes(
        plain.weight_sram + reads, plain.sram + reads + writes + leaked, plain.system + reads + writes + leaked
    )


def _leak(volts: float, ratio: float) -> float:
    return float(leakage_scale(volts * ratio, volts))


def weight_leakage_pj(found: LayerEnergy) -> float:
    """The weight buffer's part of the SRAM leakage of one inference."""
    power = {str(f["component"]): float(f["value"]) for f in found.figures if str(f["component"]).endswith("_leakage")}  # type: ignore[arg-type]
    buffers = {name: mw for name, mw in power.items() if "buffer" in name}
    return float(found.components["sram_leakage"].sum()) * buffers["weight_buffer_leakage"] / sum(buffers.values())
