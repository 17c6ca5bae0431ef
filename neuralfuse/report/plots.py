"""Figures of a study. Each function takes a table and returns a matplotlib Figure; `save` writes PNG, SVG and PDF.

Better lies up and to the right in all of them: more accuracy, more energy saved, a lower supply. Legends stand below.
Colours are Okabe and Ito's (colour-blind safe); marker and line style repeat the distinction, so the figures survive
grey print. Bands are 95% intervals over chips (of the mean).
"""

from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import moocore
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralfuse.results import pareto
from sram import curveplots
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.names import plot_label

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 2, 2)))
SCOPE_LABEL = {
    "weight_sram": "weight SRAM, dynamic",
    "sram": "all SRAM",
    "system": "system: array, SRAM, DRAM, leakage",
}
RC: Any = {
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "svg.hashsalt": "neuralfuse",  # the same figure gives the same bytes
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters
}
KINDS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
MOST_STEPS = 400  # of a front in a figure: finer than its print


def looks(names: Sequence[str]) -> dict[str, dict]:
    """Colour, marker and line style for each protection, in order; `none` is always black circles."""
    ordered = sorted(names, key=lambda n: n != "none")
    return {
        name: {"color": colour, "marker": marker, "linestyle": style}
        for name, colour, marker, style in zip(ordered, cycle(COLOURS), cycle(MARKERS), cycle(STYLES), strict=False)
    }


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write `name`.png (200 dpi), .svg and .pdf, each whole or not at all."""
    paths = []
    figure.draw_without_rendering()  # lay out once, not for each format
    figure.set_layout_engine("none")
    for kind, metadata in KINDS.items():
        buffer = BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(buffer, format=kind, metadata=metadata)
        paths.append(write_atomic(Path(folder) / f"{name}.{kind}", buffer.getvalue()))
    return paths


def drawn(summary: pd.DataFrame) -> list[str]:
    """The protections that figures show: all, or as many as can be told apart, those of the largest area between the
    axes of weight-SRAM saving and mean accuracy. The unprotected network is always among them."""

    def area(name: str) -> float:
        points = summary.loc[summary.protection == name, ["saving_weight_sram", "accuracy_mean"]].to_numpy(float)
        return float(moocore.hypervolume(points, ref=[0.0, 0.0], maximise=True))

    names = list(summary.protection.unique())
    if len(names) <= len(COLOURS):
        return names
    best = sorted(names, key=lambda name: (name != "none", -area(name)))[: len(COLOURS)]
    return [name for name in names if name in best]


def _figure(width: float = 5.2, height: float = 3.6, columns: int = 1) -> tuple[Figure, np.ndarray]:
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, axes


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its texts as matplotlib shows them letter by letter."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    return table.assign(**{column: texts[column].map(plot_label, na_action="ignore") for column in texts})


def _panels(table: pd.DataFrame) -> tuple[Figure, dict[str, dict], list[tuple[Any, str, pd.DataFrame]]]:
    """A figure with an axis and its rows for each structure, and the looks of the protections in all of them; both are
    called as matplotlib shows them."""
    table = shown(table)
    parts = list(table.groupby("structure", sort=False))
    figure, axes = _figure(columns=len(parts))
    panels = [(axis, str(structure), part) for axis, (structure, part) in zip(axes, parts, strict=True)]
    return figure, looks(list(table.protection.unique())), panels


def _legend(figure: Figure) -> None:
    """What all panels share, once, below them."""
    shown: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=min(4, len(shown)), fontsize=8)


def _every(rows: pd.DataFrame) -> dict[str, Any]:
    """Markers that do not run into one another."""
    return {"markevery": max(1, len(rows) // 40)}


def _band(axis: Axes, x: pd.Series, rows: pd.DataFrame, look: dict, label: str) -> None:
    axis.fill_between(
        x,
        100 * rows.accuracy_low.fillna(rows.accuracy_mean).clip(0, 1),
        100 * rows.accuracy_high.fillna(rows.accuracy_mean).clip(0, 1),
        color=look["color"],
        alpha=0.18,
        linewidth=0,
    )
    axis.plot(x, 100 * rows.accuracy_mean, label=label, markersize=4, linewidth=1.3, **_every(rows), **look)


def unit_label(unit: str) -> str:
    """The label of a voltage axis."""
    return "SRAM supply, falling (" + ("V)" if unit == "V" else "multiples of $V_{min}$)")


def accuracy_against_voltage(summary: pd.DataFrame, unit: str = "Vmin") -> Figure:
    """Mean accuracy with its 95% band over chips, one panel for each SRAM structure."""
    figure, look, panels = _panels(summary)
    for axis, structure, part in panels:
        for protection, rows in part.groupby("protection", sort=False):
            rows = rows.sort_values("voltage")
            _band(axis, rows.voltage, rows, look[protection], protection)
        clean = 100 * part.clean_accuracy.iloc[0]
        axis.axhline(clean, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label=f"clean, {clean:.1f}%")
        axis.set(xlabel=unit_label(unit), ylabel="Test accuracy (%)", title=f"{structure} fault maps", ylim=(0, 102))
        axis.xaxis.set_inverted(True)
        _rate_axis(axis, part.groupby("voltage").cell_fault_rate.mean())
    _legend(figure)
    return figure


def _rate_axis(axis: Axes, rate: pd.Series) -> None:
    """Cell fault rate above the voltage axis: what the supply means for the silicon."""
    top = axis.twiny()
    top.set_xlim(axis.get_xlim())
    ticks = list(rate.index[::-1][:: max(1, -(-len(rate) // 6))])
    top.set_xticks(ticks, [_percent(rate[v]) for v in ticks])
    top.set_xlabel("cell fault rate, mean over chips", fontsize=8)
    top.tick_params(labelsize=7)
    top.grid(False)


def _percent(rate: float) -> str:
    return "0" if rate == 0 else f"{100 * rate:.2g}%" if rate >= 1e-4 else f"{rate:.0e}"


def energy_accuracy_front(summary: pd.DataFrame, scope: str = "weight_sram") -> Figure:
    """The Pareto plot: energy saved per inference (against unprotected at nominal supply) against accuracy."""
    figure, look, panels = _panels(summary)
    for axis, structure, part in panels:
        for protection, rows in part.groupby("protection", sort=False):
            rows = rows.sort_values("voltage")
            _band(axis, 100 * rows[f"saving_{scope}"], rows, look[protection], protection)
        best = pareto.front(part, scope)
        axis.step(
            100 * best[f"saving_{scope}"],
            100 * best.accuracy_mean,
            where="pre",
            color="0.35",
            linewidth=3.5,
            alpha=0.35,
            label="Pareto front of the means",
            zorder=0,
        )
        axis.set(
            xlabel=f"Energy saving per inference (%)\n({SCOPE_LABEL[scope]})",
            ylabel="Test accuracy (%)",
            title=f"{structure} fault maps",
            ylim=(0, 102),
        )
    _legend(figure)
    return figure


def settings_front(summary: pd.DataFrame, scope: str = "weight_sram") -> Figure:
    """Settings side by side in one plot for each structure: the Pareto front of the means of each network, accelerator,
    curve or study (column `setting`), all protections together."""
    figure, _, panels = _panels(summary)
    look = looks(list(summary.setting.unique()))
    for axis, structure, part in panels:
        for setting, rows in part.groupby("setting", sort=False):
            best = pareto.front(rows, scope)
            axis.step(
                100 * best[f"saving_{scope}"], 100 * best.accuracy_mean, where="pre", label=setting, markersize=4,
                linewidth=1.3, **_every(best), **look[str(setting)],
            )  # fmt: skip
        label = f"Energy saving per inference (%)\n({SCOPE_LABEL[scope]})"
        axis.set(xlabel=label, ylabel="Test accuracy (%)", title=f"{structure} fault maps, fronts", ylim=(0, 102))
    _legend(figure)
    return figure


def yield_against_voltage(summary: pd.DataFrame, points: float, unit: str = "Vmin") -> Figure:
    """Share of chips within `points` of clean, with exact binomial 95% intervals."""
    figure, look, panels = _panels(summary)
    for axis, structure, part in panels:
        for protection, rows in part.groupby("protection", sort=False):
            rows = rows.sort_values("voltage")
            style = look[protection]
            axis.fill_between(
                rows.voltage, 100 * rows.yield_low, 100 * rows.yield_high, color=style["color"], alpha=0.12, linewidth=0
            )
            axis.plot(
                rows.voltage,
                100 * rows["yield"],
                label=protection,
                markersize=4,
                linewidth=1.3,
                **_every(rows),
                **style,
            )
        axis.set(
            xlabel=unit_label(unit),
            ylabel=f"Chips within {points:g} points of clean (%)",
            title=f"{structure} fault maps",
        )
        axis.set_ylim(-2, 102)
        axis.xaxis.set_inverted(True)
    _legend(figure)
    return figure


def failure_curve(results: pd.DataFrame, curve: FailureCurve) -> Figure:
    """The study's failure curve, and what its chips have: mean share of faulty cells, whiskers from the least to the
    most faulty chip. Chips are the same for every protection and network."""
    figure = curveplots.curves([curve])
    axis = figure.axes[0]
    chips = results.drop_duplicates(["accelerator", "structure", "voltage", "chip"])
    for i, (structure, rows) in enumerate(chips.groupby("structure", sort=False)):
        rate = rows.groupby("voltage").cell_fault_rate.agg(["mean", "min", "max"])
        rate = rate[rate["mean"] > 0]
        ends = np.stack([rate["mean"] - rate["min"], rate["max"] - rate["mean"]])
        look: dict[str, Any] = {
            "color": COLOURS[i + 2],
            "marker": MARKERS[i],
            "markersize": 4,
            "capsize": 2,
            "linewidth": 1,
        }
        label = f"{plot_label(structure)} maps, {rows.chip.nunique()} chips"
        axis.errorbar(rate.index, rate["mean"], ends, linestyle="none", label=label, **look)
    axis.set_title(f"failure curve {plot_label(curve.name)}", fontsize=9)
    if (over_data := axis.get_legend()) is not None:
        over_data.remove()
    _legend(figure)
    return figure


def attainment(results: pd.DataFrame, scope: str = "weight_sram") -> Figure:
    """Fronts of single chips: the line that half of the chips reach or beat, the band from 95% of them to 5%."""
    figure, look, panels = _panels(results)
    for axis, structure, part in panels:
        for protection, rows in part.groupby("protection", sort=False):
            found = pareto.attainment(rows, scope)
            style = {"color": look[protection]["color"], "linestyle": look[protection]["linestyle"]}
            grid = np.unique(np.concatenate([corners[:, 0] for corners in found.values()]))
            if len(grid) > MOST_STEPS:
                grid = np.linspace(grid[0], grid[-1], MOST_STEPS)
            best, worst = (_attained(found[percentile], grid) for percentile in (5, 95))
            axis.fill_between(100 * grid, worst, best, step="pre", alpha=0.15, linewidth=0, color=style["color"])
            axis.step(100 * grid, _attained(found[50], grid), where="pre", label=protection, linewidth=1.5, **style)
        axis.set(
            xlabel=f"Energy saving per inference (%)\n({SCOPE_LABEL[scope]})",
            ylabel="Test accuracy that a chip reaches (%)",
            title=f"{structure} fault maps: half of the chips, 5% to 95%",
            ylim=(0, 102),
        )
    _legend(figure)
    return figure


def _attained(corners: np.ndarray, saving: np.ndarray) -> np.ndarray:
    """Best accuracy (%) of a front at this saving or more; NaN beyond its end. `corners`: saving rising."""
    after = np.searchsorted(corners[:, 0], saving)
    falling = np.append(np.maximum.accumulate(corners[::-1, 1])[::-1], np.nan)
    return 100 * falling[after]


def sensitivity(table: pd.DataFrame, unit: str = "Vmin") -> Figure:
    """Accuracy lost to the faults of one layer, and of one bit position, at a time; dashed: to all of them at once.

    `table`: of one network, from `neuralfuse.analysis.sensitivity`. Bars are means over chips, whiskers 95% intervals.
    """
    layers, bits = table[table.part == "layer"], table[table.part == "bit"]
    everything = table[table.part == "all"].iloc[0]
    width = min(11.0, max(5.2, 0.28 * len(layers)))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width + 3.4, 4.0), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=(width, 3.4), sharey=True)
    for axis, rows, colour in zip(axes, (layers, bits), (COLOURS[1], COLOURS[5]), strict=True):
        ends = np.stack([rows.lost_points - rows.lost_points_low, rows.lost_points_high - rows.lost_points])
        where = np.arange(len(rows))
        axis.bar(where, rows.lost_points, color=colour, width=0.7)
        axis.errorbar(where, rows.lost_points, np.nan_to_num(ends), fmt="none", ecolor="black", capsize=2, linewidth=1)
        label = f"all faults: {everything.lost_points:.1f} points"
        axis.axhline(everything.lost_points, color="0.3", linewidth=1, linestyle="--", label=label)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(where, rows["name"].map(plot_label))
        axis.grid(False, axis="x")
    axes[0].tick_params(axis="x", rotation=90, labelsize=7)
    axes[0].set_ylabel("Test accuracy lost (points)")
    axes[0].set_xlabel("layer that carries the faults")
    axes[1].set_xlabel(f"bit that carries them (0 least, {len(bits) - 1} sign)")
    _legend(figure)
    supply = f"{everything.voltage:g} V" if unit == "V" else f"{everything.voltage:g} $V_{{min}}$"
    network, structure = plot_label(everything.network), plot_label(everything.structure)
    figure.suptitle(f"{network} at {supply}, {structure} fault maps, {everything.chips} chips", fontsize=9)
    return figure


def images(original: np.ndarray, transformed: np.ndarray, labels: Sequence[object]) -> Figure:
    """Originals (n, c, h, w) in [-1, 1] above what the generator makes of them, and the difference below."""
    n = len(original)
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        figure = Figure(figsize=(0.9 * n + 0.8, 3.0), layout="constrained")
        grid = figure.subplots(3, n, squeeze=False)
    rows = ((original, "input x"), (transformed, "F(x)"), (transformed - original, "F(x) - x"))
    for line, (block, title) in zip(grid, rows, strict=True):
        for axis, image in zip(line, block, strict=True):
            picture = np.moveaxis(image, 0, -1)
            if picture.shape[-1] == 3:
                axis.imshow((picture + 1) / 2 if title != "F(x) - x" else (picture + 2) / 4)
            else:
                low, high = (-2, 2) if title == "F(x) - x" else (-1, 1)
                axis.imshow(picture[..., 0], cmap="PuOr" if title == "F(x) - x" else "gray", vmin=low, vmax=high)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(title)
    for axis, label in zip(grid[0], labels, strict=True):
        axis.set_title(plot_label(label))
    return figure
