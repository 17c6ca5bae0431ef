"""Pictures of fault maps. Each function returns a matplotlib Figure, made without pyplot's global state."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from scipy.special import gammaln, xlogy

from sram.compare import per_column
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.names import plot_label

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's


def show(fault_map: FaultMap, voltage: float, bank: int | None = None) -> Figure:
    """A bank (the one with most faults unless told), faults per column of all banks, and the rate against the curve.

    Raises InputError below the map's floor or for a bank that is not there.
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    columns = per_column(fault_map, voltage)
    if bank is None:
        bank = int(columns.sum(axis=1).argmax())
    if not 0 <= bank < fault_map.geometry.banks:
        raise InputError("show", "bank", bank, f"0 to {fault_map.geometry.banks - 1}")
    unit = fault_map.curve.unit
    figure.suptitle(
        f"chip {fault_map.chip}, {plot_label(fault_map.curve.name)}: {fault_map.count(voltage):,} of "
        f"{fault_map.geometry.cells:,} cells faulty at {voltage:g} {unit}",
        fontsize=10,
    )
    _bank(axes[0], fault_map, voltage, bank)
    _columns(axes[1], {f"chip {fault_map.chip}": columns})
    _rate(axes[2], {f"chip {fault_map.chip}": fault_map}, voltage)
    return figure


def compare(a: FaultMap, b: FaultMap, voltage: float, names: tuple[str, str]) -> Figure:
    """Faults per column of two maps, one against the other column by column, and both rates against their curves."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    counts = [per_column(m, voltage) for m in (a, b)]
    names = plot_label(names[0]), plot_label(names[1])
    _columns(axes[0], dict(zip(names, counts, strict=True)))
    pair, weight = np.unique(np.stack([c.ravel() for c in counts]), axis=1, return_counts=True)
    axes[1].scatter(*pair, s=8 + 10 * np.log10(weight), color=BLUE, alpha=0.6, linewidths=0)
    axes[1].set(xlabel=f"faults in a column of {names[0]}", ylabel=f"of {names[1]}", title="column by column")
    _rate(axes[2], dict(zip(names, (a, b), strict=True)), voltage)
    return figure


def _plain(*axes: Axis) -> None:
    """Powers of ten as 0.01 or 1e-06, nothing at what lies between: figures as letters take a tenth of the time that
    formulas take to set."""
    for axis in axes:
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter("")


def _legend(axes: Axes) -> None:
    """Below the axes, never over data."""
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17))


def _bank(axes: Axes, fault_map: FaultMap, voltage: float, bank: int) -> None:
    """Critical voltage of the faulty cells of one bank, white where a cell works."""
    geometry, n = fault_map.geometry, fault_map.count(voltage)
    which, row, column = geometry.bank_row_column(fault_map.cell[:n])
    inside = which == bank
    picture = np.full((geometry.rows, geometry.columns), np.nan)
    picture[row[inside], column[inside]] = fault_map.critical_voltage[:n][inside]
    image = axes.imshow(picture, aspect="auto", interpolation="none", cmap="plasma")
    axes.figure.colorbar(image, ax=axes, label=f"fails below ({fault_map.curve.unit})")
    axes.set(xlabel="column", ylabel="row")
    axes.set_title(f"bank {bank}: {inside.sum():,} faulty cells", y=1)


def _columns(axes: Axes, counts: dict[str, np.ndarray]) -> None:
    """How many columns have 0, 1, 2... faults, and how many would if faults fell independently (Poisson)."""
    top = max(int(c.max()) for c in counts.values())
    k = np.arange(top + 1)
    for (name, c), colour in zip(counts.items(), (BLUE, ORANGE), strict=False):
        ratio = c.var() / c.mean() if c.any() else float("nan")
        axes.stairs(
            np.bincount(c.ravel(), minlength=top + 1),
            np.arange(top + 2) - 0.5,
            fill=len(counts) == 1,
            color=colour,
            alpha=0.8,
            label=f"{name}: variance / mean {ratio:.2g}",
        )
        expected = c.size * np.exp(xlogy(k, c.mean()) - c.mean() - gammaln(k + 1))  # Poisson
        axes.plot(k[expected > 0.5], expected[expected > 0.5], "o", ms=3, color="black", mfc="none")
    axes.plot([], [], "o", ms=3, color="black", mfc="none", label="independent faults")
    axes.set(xlabel="faulty cells in a column", ylabel="columns", yscale="log")
    axes.set_title("clustering by column", y=1)
    axes.set_xscale("symlog", linthresh=4)
    _plain(axes.xaxis, axes.yaxis)
    axes.set_xlim(left=-0.5)
    axes.set_ylim(bottom=0.5)
    _legend(axes)


def _rate(axes: Axes, maps: dict[str, FaultMap], voltage: float) -> None:
    """Cell fault rate against voltage, each map with its failure curve."""
    for (name, m), colour in zip(maps.items(), (BLUE, ORANGE), strict=False):
        top = float(m.critical_voltage[0]) if len(m) else m.voltage_floor
        v = np.linspace(m.voltage_floor, max(top, m.voltage_floor + 1e-3), 300)
        rate = np.array([m.cell_fault_rate(x) for x in v])
        axes.plot(v, np.where(rate > 0, rate, np.nan), color=colour, drawstyle="steps-pre", label=name)
        axes.plot(v, m.curve.probability(v), "--", color=colour, lw=0.9, label=f"curve {plot_label(m.curve.name)}")
        unit = m.curve.unit
    axes.axvline(voltage, color="black", lw=0.6, ls=":")
    axes.set(xlabel=f"voltage ({unit})", ylabel="cell fault rate", yscale="log")
    axes.set_title("rate and failure curve", y=1)
    _plain(axes.yaxis)
    _legend(axes)
