"""Figures of studies that lower several rails: accuracy over two supplies, fronts of all points, energy by rail."""

from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from neuralfuse.report.plots import COLOURS, RC, _by_structure, _steps, legend, saving_label, shown
from neuralfuse.results.scale import ACCURACY, Scale
from sram.names import plot_label

MOST_PANELS = 4  # protections of a map
MOST_BARS = 14  # operating points of a figure of energies
# Tints from dark to light of a rail's components; rails take these hues in turn.
TINTS = (1.0, 0.75, 0.55, 0.35, 0.2)


def supply_map(summary: pd.DataFrame, units: tuple[str, str], structure: str, scale: Scale = ACCURACY) -> Figure:
    """Mean accuracy over the supplies of weights and activations, a panel for each protection (the first MOST_PANELS);
    framed: within the narrowest margin of clean. Of points that differ in other rails or the clock, the best.

    `units`: of the two supplies.
    """
    table = shown(summary[summary.structure == structure])
    names = list(table.protection.unique())[:MOST_PANELS]
    x, y = (sorted(table[column].unique(), reverse=True) for column in ("voltage", "voltage_activations"))
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        figure = Figure(figsize=(1.4 + 3.3 * len(names), 3.6), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for axis, name in zip(axes, names, strict=True):
            part = table[table.protection == name]
            best = part.pivot_table(
                index="voltage_activations", columns="voltage", values="accuracy_mean", aggfunc="max"
            )
            scores = best.reindex(index=y, columns=x).to_numpy()
            image = axis.imshow(scale.shown(scores), **_colours(table, scale), aspect="auto")
            safe = scale.per_score * (scores - part.clean_accuracy.iloc[0]) >= -scale.margins[0]
            _cells(axis, image, np.asarray(scale.shown(scores)), safe, ".0f" if scale.share else ".3g")
            axis.set_title(name)
            axis.set_xticks(range(len(x)), [f"{v:g}" for v in x], rotation=90, fontsize=7)
            axis.set_yticks(range(len(y)), [f"{v:g}" for v in y], fontsize=7)
            axis.set_xlabel(f"weight supply ({units[0]})")
        axes[0].set_ylabel(f"activation supply ({units[1]})")
        figure.colorbar(image, ax=axes, label=scale.axis)
    return figure


def _colours(table: pd.DataFrame, scale: Scale) -> dict[str, Any]:
    """Light is better; the same in all panels."""
    if scale.share:
        return {"vmin": 0, "vmax": 100, "cmap": "cividis"}
    ends = sorted(scale.shown(end) for end in (table.accuracy_mean.min(), table.accuracy_mean.max()))
    return {"vmin": ends[0], "vmax": ends[1], "cmap": "cividis" if scale.higher_is_better else "cividis_r"}


def _cells(axis: Axes, image: AxesImage, values: np.ndarray, safe: np.ndarray, form: str) -> None:
    """The numbers in the cells of a map, and a frame around those that are safe."""
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        light = image.cmap(image.norm(value))[1] > 0.48  # by its green: cividis turns light half way
        colour = "black" if light else "white"
        axis.text(j, i, f"{value:{form}}", ha="center", va="center", fontsize="small", color=colour)
        if safe[i, j]:
            axis.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor=COLOURS[2], linewidth=1.8))


def rails_front(summary: pd.DataFrame, scope: str, scale: Scale = ACCURACY) -> Figure:
    """Energy saved against accuracy over all operating points: the Pareto front of the means of each protection."""
    return _by_structure(summary, partial(_steps, scope=scope, scale=scale), saving_label(scope), scale=scale)


def energy_by_rail(energies: pd.DataFrame, of: str) -> Figure:
    """Energy of one inference of the unprotected network at operating points, stacked by rail and component.

    `energies`: rows of energy.csv of one network on one accelerator. Of more than MOST_BARS points every so-manieth.
    """
    points = energies.drop_duplicates("point").point.tolist()
    points = points[:: -(-len(points) // MOST_BARS)]
    rails, left = list(energies.rail.unique()), np.zeros(len(points))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.0, 1.9 + 0.24 * len(points)), layout="constrained")
        axis = figure.subplots()
        for rail, colour in zip(rails, (*COLOURS[1:], *COLOURS[1:]), strict=False):
            mine = energies[energies.rail == rail]
            for component, tint in zip(mine.component.unique(), (*TINTS, *TINTS), strict=False):
                rows = mine[mine.component == component].set_index("point").pj.reindex(points).fillna(0) / 1e6
                if not rows.any():
                    continue
                look: Any = {"color": colour, "alpha": tint, "edgecolor": "white", "linewidth": 0.4}
                name = component.replace("_", " ")
                label = name if name.startswith(rail) else f"{plot_label(rail)}: {name}"
                axis.barh(range(len(points)), rows, left=left, label=label, height=0.8, **look)
                left = left + rows.to_numpy()
        axis.set_yticks(range(len(points)), [plot_label(point) for point in points], fontsize=7)
        axis.yaxis.set_inverted(True)
        axis.set_xlabel(f"Energy of one inference (µJ), {plot_label(of)}, unprotected")
        axis.grid(False, axis="y")
        legend(figure)
    return figure
