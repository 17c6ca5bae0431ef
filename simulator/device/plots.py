"""Pictures of a characterised chip."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import poisson

from simulator.device.characterization import Characterization
from sram.names import plot_label

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "device",  # the same picture is the same file
}


def svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def rate_figure(found: Characterization) -> Figure:
    """Cell fault rate against voltage: counts with 95% intervals, and the fitted curve with its band."""
    low, high = found.interval()
    rate, voltages = found.faulty / found.geometry.cells, found.voltages
    figure, axes = _axes()
    seen = rate > 0
    error = [(rate - low)[seen], (high - rate)[seen]]
    axes.errorbar(voltages[seen], rate[seen], error, fmt="o", ms=3, lw=1, color=BLUE, label="measured, 95%")
    if (~seen).any():
        axes.plot(voltages[~seen], high[~seen], "v", ms=4, color=GREY, label="no fault: 95% upper limit")
    if np.count_nonzero(seen) > 1:
        fit, grid = found.fit(), np.linspace(voltages.min(), voltages.max(), 200)
        below, above = fit.band(grid)
        axes.fill_between(grid, below, above, color=ORANGE, alpha=0.25, lw=0)
        axes.plot(grid, fit.curve.probability(grid), color=ORANGE, lw=1, label="probit fit, 95% band")
    axes.set(yscale="log", xlabel=f"supply ({plot_label(found.info.voltage_unit)})", ylabel="cell fault rate")
    axes.set_ylim(bottom=max(1e-12, 0.3 * min(high[high > 0].min(), rate[seen].min(initial=1.0))))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def column_figure(found: Characterization) -> Figure:
    """Faults of each physical column at the lowest voltage: histogram, and what independent cells would give."""
    g = found.geometry
    bank, _, column = g.bank_row_column(found.cell[found.share[:, -1] > 0.5])
    counts = np.bincount(bank * g.columns + column, minlength=g.banks * g.columns)
    figure, axes = _axes()
    edges = np.linspace(-0.5, counts.max() + 0.5, min(int(counts.max()) + 2, 81))  # a bar each, or 80 wider ones
    axes.hist(counts, bins=edges.tolist(), color=BLUE, label="measured")
    k = np.arange(poisson.ppf(0.9999, max(counts.mean(), 1e-9)) + 1)
    expected = len(counts) * (edges[1] - edges[0]) * poisson.pmf(k, counts.mean())
    axes.plot(k, expected, "-o", ms=2, lw=1, color=ORANGE, label="independent cells")
    axes.set(yscale="log", ylim=(0.5, None), xlabel=f"faulty cells of a column of {g.rows}", ylabel="columns")
    axes.legend(frameon=False)
    return figure


def map_figure(found: Characterization) -> Figure:
    """Faults of every column (across) of every bank (down) at the lowest voltage."""
    g = found.geometry
    bank, _, column = g.bank_row_column(found.cell[found.share[:, -1] > 0.5])
    counts = np.bincount(bank * g.columns + column, minlength=g.banks * g.columns).reshape(g.banks, g.columns)
    figure, axes = _axes()
    image = axes.imshow(counts, aspect="auto", interpolation="nearest", cmap="magma_r")
    axes.set(xlabel="column", ylabel="bank")
    figure.colorbar(image, ax=axes, label=f"faulty cells of {g.rows}")
    return figure


def _axes() -> tuple[Figure, Any]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        return figure, figure.subplots()
