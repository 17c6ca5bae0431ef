"""`neuralfuse curve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.tables import print_line

if TYPE_CHECKING:
    from sram.cell.technology import Conditions
    from sram.failure import FailureCurve

app = typer.Typer(help="Voltage to cell failure probability: list, show, fit.", no_args_is_help=True)

PLOT = typer.Option(metavar="FILE", help="Figure: .png, .svg or .pdf.")
NODE = "Computed nodes only"


@app.callback()
def group() -> None:
    """Voltage to cell failure probability: list, show, fit."""


@app.command("list")
def list_curves() -> None:
    """The published curves, and the nodes for which a curve can be computed."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from sram.cell.technology import technology_names
    from sram.failure import curve, curve_names

    table = Table("curve", "unit", "1 %", "1e-6", "1e-9", "data from", "to", "source", box=None, pad_edge=False)
    for name in curve_names():
        c = curve(name)
        at = [f"{float(c.voltage(p)):.3f}" for p in (1e-2, 1e-6, 1e-9)]
        table.add_row(name, c.unit, *at, f"{c.low:.3f}", f"{c.high:.3f}", c.source)
    print_table(table)
    print(f"\nComputed from a 6T cell (illustrative, in V): {', '.join(technology_names())}.")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="CURVE|FILE.json|NODE", help="See `neuralfuse curve list`.")],
    voltage: Annotated[
        list[float] | None, typer.Option(help="Voltages to tabulate, in the unit of the curve; may be repeated.")
    ] = None,
    probability: Annotated[
        list[float] | None, typer.Option(help="Probabilities whose voltages to tabulate; may be repeated.")
    ] = None,
    plot: Annotated[Path | None, PLOT] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the curve, for use in studies.")] = None,
    temperature: Annotated[float, typer.Option(help="Kelvin.", rich_help_panel=NODE)] = 300.0,
    corner: Annotated[str, typer.Option(help="tt, ss, ff, sf or fs: nMOS, then pMOS.", rich_help_panel=NODE)] = "tt",
    age: Annotated[float, typer.Option(help="Years in use.", rich_help_panel=NODE)] = 0.0,
    clock: Annotated[float | None, typer.Option(help="Clock period in ns.", rich_help_panel=NODE)] = None,
    butterfly: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Figure of the mean cell's butterfly.", rich_help_panel=NODE)
    ] = None,
    supply: Annotated[
        float | None, typer.Option(help="Of the butterfly, in V. Default: nominal.", rich_help_panel=NODE)
    ] = None,
) -> None:
    """A curve as a table of voltage and probability, and as a figure."""
    from sram.cell.technology import Conditions, technology_names
    from sram.errors import InputError
    from sram.failure import curve, curve_names

    if name in technology_names():
        conditions = Conditions(temperature, corner, age, clock)
        shown = _computed(name, conditions)
    elif butterfly is not None or (temperature, corner, age, clock) != (300.0, "tt", 0.0, None):
        raise InputError("command line", "curve", name, "with these options one of " + ", ".join(technology_names()))
    elif name in curve_names() or name.endswith(".json"):
        shown = curve(name)
    else:
        known = ", ".join([*curve_names(), *technology_names()])
        raise InputError("command line", "curve", name, f"{known}, or a .json file")
    written = [] if out is None else [_write(shown, out)]
    if plot is not None:
        from sram import curveplots

        written.append(curveplots.save(curveplots.curves([shown]), plot))
    if butterfly is not None:
        from sram import curveplots
        from sram.cell.butterfly import butterfly as butterfly_of

        found = butterfly_of(name, supply or shown.nominal, conditions)
        written.append(curveplots.save(curveplots.butterfly(found), butterfly))
    _tabulate(shown, voltage or [], probability or [])
    for path in written:
        print_line(path)


@app.command("fit")
def fit(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS.csv", help="Columns voltage, faulty_cells, cells.")],
    name: Annotated[str | None, typer.Option(help="Default: the name of the file.")] = None,
    unit: Annotated[str, typer.Option(help="Of the voltages: V or Vmin.")] = "V",
    nominal: Annotated[float, typer.Option(help="Nominal voltage in this unit.")] = 1.0,
    quadratic: Annotated[bool, typer.Option("--quadratic", help="Let the probit line bend.")] = False,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the band.")] = 0.95,
    source: Annotated[str | None, typer.Option(help="Where the counts come from. Default: the file.")] = None,
    plot: Annotated[Path | None, PLOT] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the curve, for use in studies.")] = None,
) -> None:
    """Calibrate a curve to counts of faulty cells, by binomial maximum likelihood."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from sram import curvefit
    from sram.errors import InputError

    if unit not in ("V", "Vmin"):
        raise InputError("command line", "unit", unit, "V or Vmin")
    found = curvefit.fit(
        name or counts.stem,
        curvefit.read_counts(counts),
        quadratic=quadratic,
        unit=unit,
        nominal=nominal,
        source=source or f"binomial maximum likelihood on {counts.name}",
    )
    written = [] if out is None else [_write(found.curve, out)]
    if plot is not None:
        from sram import curveplots

        written.append(curveplots.save(curveplots.curves([found.curve], found, confidence), plot))
    shape, data = found.line, found.counts
    bend = f", bent by {shape.quadratic:.4g} per {unit}^2" if quadratic else ""
    print_line(f"{found.curve.name}: mu {shape.mu:.4f} {unit}, sigma {shape.sigma:.4f} {unit}{bend}")
    print(
        f"Pearson chi-square {found.chi_square:.1f} on {found.dof} degrees of freedom (p = {found.p_value:.2g}); "
        f"bands widened {found.dispersion**0.5:.2f} times"
    )
    head = (f"voltage ({unit})", "faulty cells", "cells", "counted", "fitted", f"{confidence:.0%} low", "high")
    table = Table(*head, box=None, pad_edge=False)
    low, high = found.band(data.voltage, confidence)
    for i, v in enumerate(data.voltage):
        rates = (data.faulty[i] / data.cells[i], float(found.curve.probability(v)), low[i], high[i])
        table.add_row(f"{v:.4f}", f"{data.faulty[i]:.0f}", f"{data.cells[i]:.0f}", *(f"{rate:.3e}" for rate in rates))
    print_table(table)
    for path in written:
        print_line(path)


def _computed(node: str, conditions: Conditions) -> FailureCurve:
    """The curve of a node, with a bar while it is computed; at once when it has been before."""
    from sram.cell.physics import failure_curve
    from sram.progress import steps

    with steps() as say:
        bars: list[Callable] = []

        def show_progress(done: float) -> None:
            if not bars:
                bars.append(say(f"6T cell, {node}"))
            bars[0](round(100 * done), 100, {})

        return failure_curve(node, conditions, progress=show_progress)


def _tabulate(shown: FailureCurve, voltages: list[float], probabilities: list[float]) -> None:
    from rich.table import Table

    from neuralfuse.cli.tables import print_table

    if not voltages and not probabilities:
        probabilities = [0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9]
    points = [*voltages, *(float(shown.voltage(p)) for p in probabilities)]
    table = Table(f"voltage ({shown.unit})", "of nominal", shown.rate.replace("_", " "), "z", box=None, pad_edge=False)
    for v in sorted(points, reverse=True):
        log = float(shown.log10_probability(v))
        rate = f"{float(shown.probability(v)):.3e}" if log > -300 else f"1e{log:.1f}"
        beyond = " (beyond the data)" if shown.extrapolates(v) else ""
        table.add_row(f"{v:.4f}", f"{v / shown.nominal:.4f}", rate, f"{float(shown.z(v)):.3f}{beyond}")
    print_line(f"{shown.name}: {shown.source}")
    print_table(table)


def _write(shown: FailureCurve, out: Path) -> Path:
    import json

    from sram.errors import InputError
    from sram.files import write_atomic

    if out.suffix != ".json":
        raise InputError("command line", "out", str(out), "a name that ends in .json")
    return write_atomic(out, json.dumps(shown.to_dict(), indent=2) + "\n")
