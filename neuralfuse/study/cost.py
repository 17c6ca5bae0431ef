"""What an inference of a protected network costs: cycles, and energy at the three scopes.

The base network's weight buffer runs at the swept supply; everything else stays at nominal: its activation buffers (no
faults are injected there, so their supply may not fall), the logic, and the generator with its own weight reads, as in
the NeuralFuse paper. Only a generator with `own_faults` has its weights read at the swept supply, too. A saving is
always against the unprotected network at nominal supply, at the same scope.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.chips.cost import machine_of, scopes
from neuralfuse.study import artifacts
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from simulator.array.cycles import Counts, simulate
from simulator.energy import energy
from simulator.workload import Workload
from sram import failure
from sram.protection import Overhead


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


def counts_of(folder: Path, machine: str, network: str, protection: str | None = None) -> Counts:
    """Counts of a network of the study's folder, or of the generator that a protection puts before it."""
    return _counts(artifacts.read_workload(folder, network, protection), machine)


@functools.lru_cache(maxsize=64)
def _counts(workload: Workload, machine: str) -> Counts:
    return simulate(workload, machine_of(machine))


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
