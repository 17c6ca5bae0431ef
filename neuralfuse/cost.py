"""What an inference of a protected network costs: cycles, and energy at the three scopes.

The base network's weight buffer runs at the swept supply; everything else stays at nominal: its activation buffers (no
faults are injected there, so their supply may not fall), the logic, and the generator with its own weight reads, as in
the NeuralFuse paper. Only a generator with `own_faults` has its weights read at the swept supply, too. A saving is
always against the unprotected network at nominal supply, at the same scope.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.config import ProtectionConfig, StudyConfig
from neuralfuse.sweep import artifacts
from simulator.accelerator import Accelerator, accelerator
from simulator.cycles import Counts, simulate
from simulator.energy import LayerEnergy, energy
from simulator.workload import Workload
from sram import failure
from sram.energy import leakage_scale
from sram.protection import Overhead

WEIGHT_RAIL = "weight_sram"


@dataclass(frozen=True)
class Cost:
    """Of one inference. Savings are shares of the unprotected network's energy at nominal supply."""

    weight_sram_pj: float
    sram_pj: float
    system_pj: float
    saving_weight_sram: float
    saving_sram: float
    saving_system: float
    cycles: int


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


def counts_of(folder: Path, machine: str, network: str, protection: str | None = None) -> Counts:
    """Counts of a network of the study's folder, or of the generator that a protection puts before it."""
    return _counts(artifacts.read_workload(folder, network, protection), machine)


@functools.lru_cache(maxsize=64)
def _counts(workload: Workload, machine: str) -> Counts:
    return simulate(workload, machine_of(machine))


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


def cost_of(
    folder: Path,
    study: StudyConfig,
    network: str,
    machine: str,
    protection: ProtectionConfig,
    voltage: float,
    overhead: Overhead | None = None,
) -> Cost:
    """Cost of one inference at a supply in the curve's unit; `overhead` is that of the protection's SRAM part."""
    nominal = failure.curve(study.sram.curve).nominal
    base = counts_of(folder, machine, network)
    reference = scopes(base)
    total = scopes(base, voltage, nominal, overhead)
    cycles = base.cycles
    if protection.neuralfuse is not None:
        extra = counts_of(folder, machine, network, protection.name)
        own = protection.neuralfuse.own_faults is not None
        total = total + (scopes(extra, voltage, nominal, overhead) if own else scopes(extra))
        cycles += extra.cycles
    return Cost(
        total.weight_sram,
        total.sram,
        total.system,
        1 - total.weight_sram / reference.weight_sram,
        1 - total.sram / reference.sram,
        1 - total.system / reference.system,
        cycles,
    )


def layer_table(folder: Path, study: StudyConfig) -> pd.DataFrame:
    """Counts and energy of every layer at nominal supply, networks and generators, one row a layer and one of
    totals."""
    tables = []
    for network in study.networks:
        fuses = [p.name for p in study.protections if p.neuralfuse is not None]
        for fuse in [None, *fuses]:
            for machine in study.accelerators:
                counts = counts_of(folder, machine, network.name, fuse)
                table = counts.frame().merge(energy(counts).frame(), on="layer", how="left", validate="one_to_one")
                table.insert(0, "accelerator", machine)
                table.insert(0, "network", network.name if fuse is None else f"{network.name}-{fuse}")
                tables.append(table)
    return pd.concat(tables, ignore_index=True)


def energy_sources(folder: Path, study: StudyConfig) -> list[dict[str, str]]:
    """Every energy figure that went in, with unit, supply and source, at nominal supply."""
    rows = []
    for machine in study.accelerators:
        counts = counts_of(folder, machine, study.networks[0].name)
        for figure in energy(counts).sources().to_dict("records"):
            volts = figure["voltage_v"]
            rows.append(
                {
                    "name": f"{figure['component']} ({machine})",
                    "value": f"{figure['value']:.4g}",
                    "unit": f"{figure['unit']} per {figure['per']}",
                    "node": f"{counts.accelerator.node_nm:g} nm"
                    + ("" if volts is None or np.isnan(volts) else f", {volts:g} V"),
                    "source": str(figure["source"]),
                }
            )
    return rows
