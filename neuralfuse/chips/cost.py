"""Energy of an inference at the three scopes, with the weight buffer on a rail of its own."""

from dataclasses import dataclass, replace

from simulator.accelerator import Accelerator, accelerator
from simulator.array.cycles import Counts
from simulator.energy import LayerEnergy, energy
from sram.energy import leakage_scale
from sram.protection import Overhead

WEIGHT_RAIL = "weight_sram"


@dataclass(frozen=True)
class Scopes:
    """Energy of one inference at the three scopes, pJ."""

    weight_sram: float
    sram: float
    system: float

    def __add__(self, other: "Scopes") -> "Scopes":
        return Scopes(self.weight_sram + other.weight_sram, self.sram + other.sram, self.system + other.system)


def machine_of(name: str) -> Accelerator:
    """An accelerator whose weight buffer has a rail of its own: the only one that a study lowers."""
    machine = accelerator(name)
    buffer = machine.weight_buffer
    rails = machine.rails | {WEIGHT_RAIL: machine.rails[buffer.rail]}
    return replace(machine, weight_buffer=replace(buffer, rail=WEIGHT_RAIL), rails=rails)


def scopes(
    counts: Counts, voltage: float | None = None, nominal: float = 1.0, overhead: Overhead | None = None
) -> Scopes:
    """Energy of one inference with the weight buffer at `voltage` (None: nominal), and what an SRAM protection adds.

    An overhead multiplies the reads and writes of the weight buffer by their energy at this supply, and its leakage by
    the storage; the cells that stay at nominal voltage leak as at nominal.
    """
    found = energy(counts, voltage=voltage, nominal=nominal)
    plain = Scopes(found.weight_sram_pj, found.sram_pj, found.system_pj)
    if overhead is None or overhead == Overhead():
        return plain
    supply = nominal if voltage is None else voltage
    plainly = (supply / nominal) ** 2
    reads = found.weight_sram_pj * (float(overhead.read_scale(supply, nominal)) / plainly - 1)
    written = float(found.components["weight_sram_writes"].sum())
    writes = written * (float(overhead.write_scale(supply, nominal)) / plainly - 1)
    leakage = weight_leakage_pj(found)
    volts = counts.accelerator.rails[WEIGHT_RAIL]
    ratio = supply / nominal
    kept = (1 - overhead.nominal_cells) * _leak(volts, ratio + overhead.voltage_offset / nominal)
    kept += overhead.nominal_cells * _leak(volts, 1.0)
    leaked = leakage * (overhead.storage * kept / _leak(volts, ratio) - 1)
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
