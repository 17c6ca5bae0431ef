"""Figures of a study. Each function takes a table and returns a matplotlib Figure; `save` writes PNG, SVG and PDF.

Better lies up and to the right in all of them: more accuracy or less error, more energy saved, a lower supply. Legends
stand below.
Colours are Okabe and Ito's (colour-blind safe); marker and line style repeat the distinction, so the figures survive
grey print. Bands are 95% intervals over chips (of the mean).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import moocore
import numpy as np
import pandas as pd
from fontTools.subset import Options
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from neuralfuse.report.wording import SCOPE_LABEL
from neuralfuse.results import pareto
from neuralfuse.results.scale import ACCURACY, Scale
from sram import curveplots
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.names import plot_label

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 2, 2)))
RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # else each draw measures every tick label to find where titles go
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "svg.hashsalt": "neuralfuse",  # the same figure gives the same bytes
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters
}
KINDS: dict[str, tuple[type[FigureCanvasBase], dict[str, Any]]] = {
    "png": (FigureCanvasAgg, {"pil_kwargs": {"compress_level": 3}}),  # half the time of 6 for a tenth more bytes
    "svg": (FigureCanvasSVG, {"metadata": {"Date": None}}),
    "pdf": (FigureCanvasPdf, {"metadata": {"CreationDate": None}}),
}
SUPPLY = "SRAM supply, falling"
MOST_SUPPLIES = 40  # with whiskers in a figure
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
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # once; and below draw once for each format, where `savefig` draws twice
        figure.set_layout_engine("none")
    for kind, (canvas, options) in KINDS.items():
        buffer = BytesIO()
        figure.set_dpi(200)
        with matplotlib.rc_context(RC), _letters_only():
            getattr(canvas(figure), f"print_{kind}")(buffer, **options)
        paths.append(write_atomic(Path(folder) / f"{name}.{kind}", buffer.getvalue()))
    return paths


@contextmanager
def _letters_only() -> Iterator[None]:
    """Inside the block fonts go into a PDF without their tables of how letters combine: matplotlib has placed them, and
    fontTools takes longer for those tables than for all the rest."""
    before = Options._drop_tables_default
    Options._drop_tables_default = [*before, "GDEF", "GPOS", "GSUB", "MATH"]
    try:
        yield
    finally:
        Options._drop_tables_default = before


def drawn(summary: pd.DataFrame) -> list[str]:
    """The protections that figures show: all, or as many as can be told apart, those of the largest area between the
    axes of weight-SRAM saving and mean accuracy. The unprotected network is always among them."""
    points = dict(list(summary.groupby("protection", sort=False)[["saving_weight_sram", "accuracy_mean"]]))
    worst = min(0.0, float(summary.accuracy_mean.min()))  # scores of errors lie below 0

    def area(name: str) -> float:
        return float(moocore.hypervolume(points[name].to_numpy(float), ref=[0.0, worst], maximise=True))

    names = list(summary.protection.unique())
    if len(names) <= len(COLOURS):
        return names
    best = sorted(names, key=lambda name: (name != "none", -area(name)))[: len(COLOURS)]
    return [name for name in names if name in best]


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its texts as matplotlib shows them letter by letter."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    labels = {column: {name: plot_label(name) for name in texts[column].dropna().unique()} for column in texts}
    return table.assign(**{column: texts[column].map(names) for column, names in labels.items()})


def _by_structure(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, dict[str, Any]], object],
    x: str,
    y: str | None = None,
    of: str = "protection",
    also: Callable[[Axes, pd.DataFrame], object] = lambda axis, part: None,
    scale: Scale = ACCURACY,
) -> Figure:
    """A panel for each structure, in which `draw(axis, rows, look)` draws each value of column `of`, and `also` what
    all rows of the panel share. Rows come with the supply falling, and named as matplotlib shows them. The vertical
    axis is the scale's, or of shares in per cent with the label `y`."""
    table = shown(table)
    look, parts = looks(list(table[of].unique())), list(table.groupby("structure", sort=False))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.2 * len(parts), 3.6), layout="constrained")
        axes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
        for axis, (structure, part) in zip(axes, parts, strict=True):
            for name, style in look.items():
                if len(rows := part[part[of] == name].sort_values("voltage", ascending=False, kind="stable")):
                    draw(axis, rows, {"label": name, "markersize": 4, "linewidth": 1.3} | style)
            axis.set(xlabel=x, title=f"{structure} fault maps")
            if scale.share or y is not None:
                axis.set_ylim(-2, 102)
            elif not scale.higher_is_better:
                axis.yaxis.set_inverted(True)
            if x.startswith(SUPPLY):
                axis.xaxis.set_inverted(True)
            also(axis, part)
        axes[0].set_ylabel(y or scale.axis)
        legend(figure)
    return figure


def legend(figure: Figure) -> None:
    """What all panels share, once, below them."""
    labels: dict[str, Any] = {}
    for axis in figure.axes:
        labels |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    column = max(2.4, 0.6 + 0.065 * max(map(len, labels), default=0))  # inches of a line and its longest name
    columns = min(4, len(labels), max(1, int(figure.get_figwidth() // column)))  # as many as fit
    lines = -(-len(labels) // max(1, columns))
    figure.set_figheight(figure.get_figheight() + 0.17 * max(0, lines - 5))  # not at the panels' expense
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )


def _line(axis: Axes, rows: pd.DataFrame, look: dict[str, Any], x: str, y: str, scale: Scale = ACCURACY) -> None:
    """Column `y` (fractions in per cent, or as the scale has it) with the band from its low to its high; markers do not
    run into one another."""
    at = rows[x] * (1 if x == "voltage" else 1e-6 if x.endswith("_pj") else 100)
    middle = rows.get(f"{y}_mean", rows.get(y))
    low, high = (rows[f"{y}_{end}"].fillna(middle).clip(*scale.bounds) for end in ("low", "high"))
    axis.fill_between(at, scale.shown(low), scale.shown(high), color=look["color"], alpha=0.15, linewidth=0)
    axis.plot(at, scale.shown(middle), markevery=max(1, len(rows) // 40), **look)


def _steps(axis: Axes, rows: pd.DataFrame, look: dict[str, Any], scope: str, scale: Scale = ACCURACY) -> None:
    """The front of the means: up to each point's saving its accuracy is reached."""
    best = pareto.front(rows, scope)
    every = max(1, len(best) // 40)
    axis.step(100 * best[f"saving_{scope}"], scale.shown(best.accuracy_mean), where="pre", markevery=every, **look)


def supply_label(unit: str) -> str:
    """The label of an axis of supplies."""
    return f"{SUPPLY} (" + ("V)" if unit == "V" else "multiples of Vmin)")


def saving_label(scope: str) -> str:
    """The label of an axis of savings."""
    return f"Energy saving per inference (%)\n({SCOPE_LABEL[scope]})"


def accuracy_against_voltage(summary: pd.DataFrame, unit: str = "Vmin", scale: Scale = ACCURACY) -> Figure:
    """Mean accuracy with its 95% band over chips, one panel for each SRAM structure; above, what the supply means for
    the silicon: the cell fault rate."""

    def beside(axis: Axes, part: pd.DataFrame) -> None:
        clean = part.clean_accuracy.iloc[0]
        label = f"clean, {scale.text(clean)}"
        axis.axhline(scale.shown(clean), color="0.5", linewidth=0.8, linestyle=(0, (1, 2)), label=label)
        rate = part.groupby("voltage").cell_fault_rate.mean()[::-1]
        above = axis.twiny()
        above.set_xlim(axis.get_xlim())
        above.set_xticks(ticks := _apart(rate.index.to_numpy()), [_percent(rate[v]) for v in ticks], fontsize=7)
        above.set_xlabel("cell fault rate, mean over chips", fontsize=8)
        above.grid(False)
        axis.set_title(axis.get_title(), pad=30)  # above all that

    draw = partial(_line, x="voltage", y="accuracy", scale=scale)
    return _by_structure(summary, draw, supply_label(unit), also=beside, scale=scale)


def _apart(voltages: np.ndarray, least: float = 0.11) -> list[float]:
    """Those of falling voltages between which a label fits: so much of the axis apart."""
    kept = [voltages[0]]
    for voltage in voltages[1:]:
        if kept[-1] - voltage >= least * (voltages[0] - voltages[-1]):
            kept.append(voltage)
    return kept


def _percent(rate: float) -> str:
    return "0" if rate == 0 else f"{100 * rate:.2g}%" if rate >= 1e-4 else f"{rate:.0e}"


def energy_accuracy_front(summary: pd.DataFrame, scope: str = "weight_sram", scale: Scale = ACCURACY) -> Figure:
    """The Pareto plot: energy saved per inference (against unprotected at nominal supply) against accuracy."""

    def beside(axis: Axes, part: pd.DataFrame) -> None:
        wide = {"color": "0.35", "linewidth": 3.5, "alpha": 0.35, "zorder": 0, "label": "Pareto front of the means"}
        _steps(axis, part, wide, scope, scale)

    draw = partial(_line, x=f"saving_{scope}", y="accuracy", scale=scale)
    return _by_structure(summary, draw, saving_label(scope), also=beside, scale=scale)


def smaller_or_lower(summary: pd.DataFrame, scope: str = "chip", scale: Scale = ACCURACY) -> Figure:
    """Accuracy against the energy of an inference itself, so that a smaller network at nominal supply, a point, can be
    held against the big one over its supplies, a line with its band."""

    def falling(axis: Axes, part: pd.DataFrame) -> None:
        axis.xaxis.set_inverted(True)  # better lies to the right

    draw = partial(_line, x=f"energy_{scope}_pj", y="accuracy", scale=scale)
    x = f"Energy of one inference, falling (µJ)\n({SCOPE_LABEL[scope]})"
    return _by_structure(summary, draw, x, also=falling, scale=scale)


def settings_front(summary: pd.DataFrame, scope: str = "weight_sram", scale: Scale = ACCURACY) -> Figure:
    """Settings side by side in one plot for each structure: the Pareto front of the means of each network, accelerator,
    curve or study (column `setting`), all protections together."""
    draw = partial(_steps, scope=scope, scale=scale)
    return _by_structure(summary, draw, saving_label(scope), of="setting", scale=scale)


def yield_against_voltage(summary: pd.DataFrame, unit: str = "Vmin", scale: Scale = ACCURACY) -> Figure:
    """Share of chips within the widest margin of clean, with exact binomial 95% intervals."""
    y = f"Chips within {scale.within(scale.margins[-1])} of clean (%)"
    return _by_structure(summary, partial(_line, x="voltage", y="yield"), supply_label(unit), y)


def failure_curve(results: pd.DataFrame, curve: FailureCurve) -> Figure:
    """The study's failure curve, and what its chips have: mean share of faulty cells, whiskers from the least to the
    most faulty chip. Chips are the same for every protection and network."""
    figure = curveplots.curves([curve])
    axis = figure.axes[0]
    chips = results.drop_duplicates(["accelerator", "structure", "voltage", "chip"])
    for i, (structure, rows) in enumerate(chips.groupby("structure", sort=False)):
        rate = rows.groupby("voltage").cell_fault_rate.agg(["mean", "min", "max"])
        rate = rate[rate["mean"] > 0][:: -(-len(rate) // MOST_SUPPLIES)]
        ends = np.stack([rate["mean"] - rate["min"], rate["max"] - rate["mean"]])
        look: Any = {"color": COLOURS[i + 2], "marker": MARKERS[i], "markersize": 4, "capsize": 2, "linewidth": 1}
        label = f"{plot_label(structure)} maps, {rows.chip.nunique()} chips"
        axis.errorbar(rate.index, rate["mean"], ends, linestyle="none", label=label, **look)
    axis.set_title(f"failure curve {plot_label(curve.name)}", fontsize=9)
    axis.set_xlabel(supply_label(curve.unit))
    axis.xaxis.set_inverted(True)
    if (over_data := axis.get_legend()) is not None:
        over_data.remove()
    legend(figure)
    return figure


def attainment(results: pd.DataFrame, scope: str = "weight_sram", scale: Scale = ACCURACY) -> Figure:
    """Fronts of single chips: the line that half of the chips reach or beat, the band from 95% of them to 5%."""

    def draw(axis: Axes, rows: pd.DataFrame, look: dict[str, Any]) -> None:
        found = pareto.attainment(rows, scope)
        grid = np.unique(np.concatenate([corners[:, 0] for corners in found.values()]))
        if len(grid) > MOST_STEPS:
            grid = np.linspace(grid[0], grid[-1], MOST_STEPS)
        best, middle, worst = (scale.shown(_attained(found[percentile], grid)) for percentile in (5, 50, 95))
        axis.fill_between(100 * grid, worst, best, step="pre", alpha=0.15, linewidth=0, color=look["color"])
        axis.step(100 * grid, middle, where="pre", **look | {"marker": ""})

    figure = _by_structure(results, draw, saving_label(scope), scale=scale)
    figure.axes[0].set_ylabel(scale.axis.replace(scale.name, f"{scale.name} that a chip reaches"))
    return figure


def _attained(corners: np.ndarray, saving: np.ndarray) -> np.ndarray:
    """Best score of a front at this saving or more; NaN beyond its end. `corners`: saving rising."""
    after = np.searchsorted(corners[:, 0], saving)
    falling = np.append(np.maximum.accumulate(corners[::-1, 1])[::-1], np.nan)
    return falling[after]


def sensitivity(table: pd.DataFrame, unit: str = "Vmin", scale: Scale = ACCURACY) -> Figure:
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
        label = f"all faults: {everything.lost_points:{scale.form}} {scale.unit}"
        axis.axhline(everything.lost_points, color="0.3", linewidth=1, linestyle="--", label=label)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(where, rows["name"].map(plot_label))
        axis.grid(False, axis="x")
    axes[0].tick_params(axis="x", rotation=90, labelsize=7)
    axes[0].set_ylabel(f"Test {scale.name} {'lost' if scale.higher_is_better else 'added'} ({scale.unit})")
    axes[0].set_xlabel("layer that carries the faults")
    axes[1].set_xlabel(f"bit that carries them (0 least, {len(bits) - 1} sign)")
    legend(figure)
    supply = f"{everything.voltage:g} V" if unit == "V" else f"{everything.voltage:g} Vmin"
    network, structure = plot_label(everything.network), plot_label(everything.structure)
    figure.suptitle(f"{network} at {supply}, {structure} fault maps, {everything.chips} chips", fontsize=9)
    return figure


def explain(table: pd.DataFrame, readings: pd.DataFrame, unit: str = "Vmin") -> Figure:
    """What generators paint, test by test, a group of bars for each; and each chip without and behind them.

    `table`, `readings`: of one network, from `neuralfuse.analysis.explain`. Bars are means over chips, whiskers 95%
    intervals; a probe is no chip's and has none.
    """
    tests = {"bare": "network alone", "protected": "behind the generator", "swap": "G of another image: says its class",
             "swap_bare": "says it without G", "mean": "mean of G of another class: says it",
             "probe_painted": "linear probe of F(x) - x", "probe_image": "linear probe of x"}  # fmt: skip
    with matplotlib.rc_context(RC):
        width = max(4.4, 1.6 * len(table))
        figure = Figure(figsize=(width + 3.6, 4.2), layout="constrained")
        bars, chips = figure.subplots(1, 2, width_ratios=(width, 3.6), sharey=True)
    where, width = np.arange(len(table)), 0.8 / len(tests)
    for i, ((name, label), colour) in enumerate(zip(tests.items(), COLOURS, strict=False)):
        at = where + (i - (len(tests) - 1) / 2) * width
        bars.bar(at, table[name], color=colour, width=width, label=label)
        if f"{name}_low" in table:
            ends = np.stack([table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]])
            bars.errorbar(at, table[name], np.nan_to_num(ends), fmt="none", ecolor="0.5", capsize=2, linewidth=1)
    bars.set_xticks(where, table.protection.map(plot_label))
    bars.grid(False, axis="x")
    bars.set_ylim(0, 100)
    bars.set_ylabel("Test images (%)")
    for (name, rows), marker in zip(readings.groupby("protection", sort=False), cycle(MARKERS)):
        chips.plot(100 * rows.bare, 100 * rows.protected, marker, fillstyle="none", color="0.2", label=plot_label(name))
    chips.plot([0, 100], [0, 100], color="0.6", linewidth=1)
    chips.set_xlim(0, 100)
    chips.set_xlabel("each chip: network alone (%), behind it (%)")
    legend(figure)
    first = table.iloc[0]
    supply = " and ".join(f"{voltage:.4g}" for voltage in table.voltage.unique()) + (" V" if unit == "V" else " Vmin")
    figure.suptitle(f"{plot_label(first.network)} at {supply}, {first.chips} chips", fontsize=9)
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
