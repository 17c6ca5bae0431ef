"""Pictures of counts and energies: stacked bars of each layer, and the roofline.

Colours are those of Wong, "Points of view: Color blindness", Nature Methods 2011; a component has the same one in every
plot.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.array.cycles import Counts
from simulator.energy import SCOPES, LayerEnergy, Scope
from sram.files import write_atomic
from sram.names import plot_label

COLORS = {
    "weight_sram_reads": "#0072B2",
    "weight_sram_writes": "#56B4E9",
    "activation_sram": "#009E73",
    "sram_leakage": "#B7DDCF",
    "mac": "#D55E00",
    "registers": "#E69F00",
    "scratchpads": "#CC79A7",
    "vector": "#F0E442",
    "clock_tree": "#882255",
    "logic_leakage": "#F6D7B8",
    "dram": "#8C8C8C",
}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "simulator",  # the same picture is the same file
}
HATCHES = ("", "////", "....", "xxxx", "----")  # repeat the distinction, for grey print
LARGEST = 48  # bars that stay legible


def energy_figure(energy: LayerEnergy, scope: Scope = "system") -> Figure:
    """Energy of one inference, a bar for each layer, a colour for each component of the scope."""
    return components_figure(energy.layers, energy.components, scope, f"scope: {scope}")


def components_figure(
    layers: Sequence[str], components_pj: Mapping[str, np.ndarray], scope: Scope = "system", title: str = ""
) -> Figure:
    """The same from arrays, one value for each layer, named as `LayerEnergy.components` has them."""
    parts = SCOPES[scope]
    stacks = {name.replace("_", " "): components_pj[name] / 1e6 for name in parts}
    colors = [COLORS[name] for name in parts]
    return _stacked(list(layers), stacks, colors, "energy of one inference (µJ)", title)


def cycles_figure(counts: Counts) -> Figure:
    """Cycles, a bar for each layer: what the array or the vector unit computes, and what it waits for DRAM."""
    array = np.array([layer.on_array for layer in counts.workload.layers])
    busy, stalls = counts.layers["array_cycles"], counts.layers["stall_cycles"]
    stacks = {"array": np.where(array, busy, 0), "vector unit": np.where(array, 0, busy), "waiting for DRAM": stalls}
    names = [layer.name for layer in counts.workload.layers]
    colors = [COLORS["mac"], COLORS["vector"], COLORS["dram"]]
    return _stacked(names, stacks, colors, "cycles", f"{counts.workload.name} on {counts.accelerator.name}")


def roofline_figure(counts: Counts) -> Figure:
    """MACs a cycle against MACs a DRAM byte: layers under the roof of array size and DRAM bandwidth."""
    machine, rows = counts.accelerator, counts.layers
    intensity, rate = roofline(counts)
    peak = machine.array_rows * machine.array_cols * machine.cores
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.2), layout="constrained")
        axes: Axes = figure.add_subplot()
        ridge = peak / machine.dram_bytes_per_cycle
        finite = intensity[np.isfinite(intensity)]
        low, high = min([ridge / 10, *finite]) / 2, max([ridge * 10, *finite]) * 2
        x = np.array([low, ridge, high])
        axes.loglog(x, np.minimum(x * machine.dram_bytes_per_cycle, peak), color="black", linewidth=1.2)
        share = rows["cycles"][rows["macs"] > 0] / max(1, rows["cycles"].sum())
        where = np.where(np.isfinite(intensity), intensity, high)
        axes.scatter(where, rate, s=12 + 500 * share, color=COLORS["mac"], alpha=0.65, linewidths=0)
        axes.annotate(f"{peak} MACs a cycle", (high, peak), ha="right", va="bottom", fontsize=8)
        slope = f"{machine.dram_bytes_per_cycle:g} bytes a cycle"
        middle = np.sqrt(low * ridge)
        point = (middle, middle * machine.dram_bytes_per_cycle)
        axes.annotate(slope, point, (8, -4), textcoords="offset points", va="top", fontsize=8)
        axes.set(xlabel="MACs a byte of DRAM traffic", ylabel="MACs a cycle", xlim=(low, high))
        on = plot_label(f"{counts.workload.name} on {machine.name}")
        axes.set_title(f"{on}: area is the share of cycles", fontsize=9, loc="left")
        axes.grid(True, which="major", linewidth=0.3)
    return figure


def roofline(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """(MACs a byte of DRAM traffic, MACs a cycle) of each layer on the array; inf where nothing goes to DRAM."""
    rows = counts.layers[counts.layers["macs"] > 0]
    traffic = [name for name in rows.dtype.names or () if "_dram_" in name]
    moved = np.sum([rows[name] for name in traffic], axis=0)
    intensity = np.full(len(rows), np.inf)
    np.divide(rows["macs"], moved, out=intensity, where=moved > 0)
    return intensity, rows["macs"] / np.maximum(rows["cycles"], 1)


def save_all(folder: str | Path, counts: Counts, energy: LayerEnergy) -> list[Path]:
    """Write energy, cycles and roofline as PNG and SVG; returns the paths."""
    figures = {
        "energy_per_layer": energy_figure(energy),
        "sram_energy_per_layer": energy_figure(energy, "sram"),
        "cycles_per_layer": cycles_figure(counts),
        "roofline": roofline_figure(counts),
    }
    paths = []
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            paths.append(write_atomic(Path(folder) / f"{name}.{suffix}", encoded(figure, suffix)))
    return paths


def encoded(figure: Figure, suffix: str) -> bytes:
    """A picture as a file: png or svg, without the date."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=suffix, dpi=160, metadata={"Date": None} if suffix == "svg" else None)
    return buffer.getvalue()


def _stacked(names: list[str], stacks: dict[str, np.ndarray], colors: list[str], label: str, title: str) -> Figure:
    """Horizontal bars, first layer on top. Of long networks the largest are drawn and the others summed up in one."""
    total = np.sum(list(stacks.values()), axis=0)
    kept = np.sort(np.argsort(-total, kind="stable")[:LARGEST])
    labels = [names[i] for i in kept]
    values = {part: array[kept] for part, array in stacks.items()}
    if len(names) > len(kept):
        labels.append(f"{len(names) - len(kept)} others")
        values = {part: np.append(values[part], array.sum() - values[part].sum()) for part, array in stacks.items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.19 * len(labels)), layout="constrained")
        axes: Axes = figure.add_subplot()
        left = np.zeros(len(labels))
        for (part, array), color, hatch in zip(values.items(), colors, cycle(HATCHES), strict=False):
            if array.any():
                look: Any = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
                axes.barh(range(len(labels)), array, left=left, label=part, height=0.8, **look)
            left = left + array
        axes.set_yticks(range(len(labels)), [plot_label(name) for name in labels], fontsize=7)
        axes.set(xlabel=label, ylim=(len(labels) - 0.4, -0.6))
        axes.set_title(plot_label(title), fontsize=9, loc="left")
        axes.grid(True, axis="x", linewidth=0.3)
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure
