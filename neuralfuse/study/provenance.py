"""What a prepared folder says of itself: layers and their energies, versions and sources."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from neuralfuse.chips.memory import PLACEMENTS, maps_of
from neuralfuse.chips.stored import not_in_weak_cells
from neuralfuse.quantized.metric import metric
from neuralfuse.results.scale import Scale
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.data import build_network, build_transform, training_hash
from neuralfuse.study.digest import RESULTS_VERSION, digest
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point
from neuralfuse.study.supplies import operating_points, rails, roles_of, supply_of, swept_voltages, volts_per_unit
from simulator.energy import energy
from simulator.timing import clock_hz
from sram import faultmap


def layer_table(folder: StudyFolder) -> pd.DataFrame:
    """Counts and energy of every layer at nominal supply, networks and generators, one row a layer and one of
    totals."""
    tables = []
    for network in folder.study.networks:
        fuses = [p.name for p in folder.study.protections_of(network.name) if p.neuralfuse is not None]
        for fuse in [None, *fuses]:
            for machine in folder.study.accelerators:
                counts = folder.counts(machine, network.name, fuse)
                table = pd.concat([counts.frame(), energy(counts).frame().drop(columns="layer")], axis=1)
                table.insert(0, "accelerator", machine)
                table.insert(0, "network", network.name if fuse is None else f"{network.name}-{fuse}")
                tables.append(table)
    return pd.concat(tables, ignore_index=True)


def rail_table(folder: StudyFolder) -> pd.DataFrame:
    """Energy of one inference of each unprotected network at each operating point, by rail and component."""
    study, rows = folder.study, []
    for network in study.networks:
        for name in study.accelerators:
            counts = folder.counts(name, network.name)
            for at in operating_points(study, name):
                supplies = {role: supply_of(study, name, at, role) for role in roles_of(study)}
                clock = clock_hz(counts.accelerator, at)
                text = ", ".join(f"{role} {voltage:g}" for role, voltage in supplies.items())
                text += "" if at.clock_hz is None else f", {clock / 1e6:.4g} MHz"
                for (rail, component), pj in energy(counts, at).by_rail(counts.accelerator).items():
                    rows.append((network.name, name, text, clock, rail, component, pj))
    columns = ["network", "accelerator", "point", "clock_hz", "rail", "component", "pj"]
    return pd.DataFrame(rows, columns=columns).sort_values("rail", key=_order, kind="stable")


def _order(rail: pd.Series) -> pd.Series:
    """DRAM first, at the bottom of what is stacked, then the logic, then the buffers."""
    return rail.map({"dram": 0, "logic": 1}).fillna(2)


def energy_sources(folder: StudyFolder) -> list[dict[str, str]]:
    """Every energy figure that went in, with unit, supply and source, at nominal supply."""
    rows = []
    for machine in folder.study.accelerators:
        counts = folder.counts(machine, folder.study.networks[0].name)
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


def _measured(study: StudyConfig) -> dict[str, str]:
    """Of measured chips, what their faulty cells read: that of unknown polarity is a choice made at import."""
    if study.sram.map is None:
        return {}
    maps = [faultmap.load(path) for path in maps_of(study.sram.map)[slice(study.chips.first, study.chips.numbers.stop)]]
    kinds = np.bincount(np.concatenate([found.kind for found in maps]), minlength=3)
    stuck_at_0, stuck_at_1, flip = kinds / max(kinds.sum(), 1)
    cells = (
        f"{stuck_at_0:.1%} stuck at 0, {stuck_at_1:.1%} at 1; {flip:.1%} read the opposite, as if of unknown polarity"
    )
    return {"measured chips": f"{study.sram.map}; faulty cells: {cells}"}


def _apart(folder: StudyFolder) -> Iterator[str]:
    """Network by network, what of it lies in no weak cell."""
    for config in folder.study.networks:
        apart = not_in_weak_cells(build_network(config, folder.study), folder.workload(config.name))
        yield f"of {config.name}: {', '.join(apart) or 'none'}"


def _formats(study: StudyConfig) -> dict[str, str]:
    """Of words that are no integers, what they are and how their products are counted."""
    found = [f"{network.name}: {network.format} in {network.bits} bits" for network in study.networks if network.format]
    counted = "a product is counted as one of integers of these widths: no figure for floating point went in"
    return {"words": "; ".join([*found, counted])} if found else {}


def provenance(folder: StudyFolder, points: list[Point]) -> dict[str, Any]:
    """What the page says of versions and sources, and the stamp by which workers see that the folder changed."""
    study = folder.study
    packages = ("torch", "numpy", "numba", "scipy", "pandas")
    unknown = [u for n in study.networks for u in folder.workload(n.name).unknown]
    return {
        "stamp": digest([[asdict(p) for p in points], RESULTS_VERSION, training_hash(study.dataset)]),
        "voltage_unit": study.curve.unit,
        "metric": {field.name: getattr(metric(study.metric), field.name) for field in fields(Scale)},
        "volts_per_unit": volts_per_unit(study),
        "supplies": [asdict(supply) for supply in swept_voltages(study)],
        "parameters": {
            p.name: sum(tensor.numel() for tensor in build_transform(p.neuralfuse, study).parameters())
            for p in study.protections
            if p.neuralfuse
        },
        "versions": {
            "neuralfuse-sim": version("neuralfuse-sim"),
            "results": RESULTS_VERSION,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "notes": {
            "failure curve": f"{study.sram.curve}: {study.curve.source}",
            "rate": "the curve gives the cell fault rate: the share of cells that are faulty",
            "supply": rails(study),
            "placement": PLACEMENTS[study.sram.schedule],
            "not in weak cells": "; ".join(_apart(folder)),
            **_formats(study),
            **_measured(study),
            "seed": study.seed,
            "operators without a cost": ", ".join(unknown) or "none",
        },
        "energy_sources": energy_sources(folder),
    }
