"""Figures of failure curves and butterflies. Each function returns a matplotlib Figure; `save` writes it."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sram.cell.butterfly import Butterfly
from sram.curvefit import CurveFit
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.files import write_atomic
from sram.names import plot_label

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
STYLES = ("-", "--", "-.", ":")  # repeat the distinction, for grey print
FORMATS = ("png", "svg", "pdf")


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a .png, .svg or .pdf file, whole or not at all; the same figure gives the same bytes."""
    kind = Path(path).suffix.removeprefix(".")
    if kind not in FORMATS:
        raise InputError("figure", "file", str(path), "a name that ends in ." + ", .".join(FORMATS))
    buffer = BytesIO()
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with matplotlib.rc_context({"svg.hashsalt": "neuralfuse"}):
        figure.savefig(buffer, format=kind, dpi=200, metadata=date)
    return write_atomic(path, buffer.getvalue())


def curves(shown: Sequence[FailureCurve], fit: CurveFit | None = None, confidence: float = 0.95) -> Figure:
    """Probability (logarithmic) against voltage; dotted where a curve no longer rests on data.

    With `fit`, its counts and confidence band as well. All curves need the same unit (InputError).
    """
    units = {curve.unit for curve in shown}
    if len(units) != 1:
        raise InputError("figure", "unit", sorted(units), "curves of one unit in one figure")
    figure, axis = _axis(5.4, 3.8)
    for i, curve in enumerate(shown):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        v = np.linspace(*_window(curve, fit), 400)
        resting = (v >= curve.low) & (v <= curve.high)
        axis.plot(v, curve.probability(v), ":", color=colour, linewidth=1.2)
        axis.plot(
            v[resting], curve.probability(v[resting]), style, color=colour, linewidth=1.8, label=plot_label(curve.name)
        )
        if fit is not None and curve is fit.curve:
            axis.fill_between(v, *fit.band(v, confidence), color=colour, alpha=0.2, linewidth=0)
            seen = fit.counts.faulty > 0
            share = fit.counts.faulty[seen] / fit.counts.cells[seen]
            label = f"counts, {confidence:.0%} band"
            axis.plot(fit.counts.voltage[seen], share, "o", color="black", markersize=4, label=label)
    axis.set(yscale="log", xlabel=f"supply ({units.pop()})", ylabel=shown[0].rate.replace("_", " "), ylim=(1e-10, 1.0))
    axis.legend(frameon=False)
    return figure


def _window(curve: FailureCurve, fit: CurveFit | None) -> tuple[float, float]:
    """Voltages from 30 % to 1e-9, and all that was counted."""
    low, high = float(curve.voltage(0.3)), float(curve.voltage(1e-9))
    if fit is not None:
        low, high = min(low, float(fit.counts.voltage[0])), max(high, float(fit.counts.voltage[-1]))
    return low, high


def butterfly(shown: Butterfly) -> Figure:
    """Both transfer curves and the largest square in each lobe; the smaller side is the static noise margin."""
    figure, axis = _axis(4.0, 4.0)
    axis.plot(shown.grid, shown.right, color=COLOURS[0], label="right inverter")
    axis.plot(shown.left, shown.grid, "--", color=COLOURS[1], label="left inverter")
    for x, y, side in shown.squares:
        if side > 0:
            axis.add_patch(matplotlib.patches.Rectangle((x, y), side, side, fill=False, color="black", linewidth=1.0))
    margin = f"noise margin {1e3 * shown.noise_margin_v:.0f} mV" if shown.noise_margin_v else "one state is lost"
    axis.set(
        xlabel="left node (V)",
        ylabel="right node (V)",
        aspect="equal",
        title=f"{shown.mode} at {shown.voltage:g} V, {margin}",
    )
    axis.legend(frameon=False, loc="upper right")
    return figure


def _axis(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis
