"""A characterised chip for people: a table of rates, and one page that works offline."""

import csv
import io

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.device import plots
from simulator.device.characterization import Characterization
from simulator.device.readings import PATTERNS
from sram.errors import InputError

RATES = ("voltage", "faulty_cells", "cells", "cell_fault_rate", "low", "high", "flip_rate")


def rates(found: Characterization) -> list[dict[str, float]]:
    """One row a voltage: RATES; low and high are of the cell fault rate, 95%."""
    low, high = found.interval()
    cells = found.geometry.cells
    faulty = [int(k) for k in found.faulty]
    columns = (found.voltages, faulty, [cells] * len(faulty), [k / cells for k in faulty], low, high, found.flip_rate)
    return [dict(zip(RATES, row, strict=True)) for row in zip(*columns, strict=True)]


def rates_csv(found: Characterization) -> str:
    """`rates` as CSV; `neuralfuse curve fit` reads it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, RATES, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in rates(found))
    return out.getvalue()


def facts(found: Characterization) -> list[tuple[str, str]]:
    """What is known of the curve, the cells and their columns, in words and numbers."""
    unit, kinds, steady = found.info.voltage_unit, found.kind, found.repeatability
    out = []
    try:
        fit = found.fit()
        shape = fit.curve.shape
        out.append(("probit fit: mean", f"{shape.mu:.4f} {unit}"))  # type: ignore[union-attr]
        out.append(("probit fit: standard deviation", f"{shape.sigma:.4f} {unit}"))  # type: ignore[union-attr]
        out.append(("probit fit: p-value", f"{fit.p_value:.3g} (chi-square {fit.chi_square:.3g} on {fit.dof})"))
    except InputError as error:
        out.append(("probit fit", f"none: {error.allowed}"))
    for number, name in enumerate(("stuck at 0", "stuck at 1", "flip")):
        out.append((f"weak cells: {name}", f"{int((kinds == number).sum()):,}"))
    if len(steady):
        out.append(("weak cells that failed every read where they first fail", f"{(steady == 1).mean():.1%}"))
    out.append(("noise of a critical voltage from read to read", f"{found.noise_voltage():.5f} {unit}"))
    out.append(("cells that fail under checkerboards only", f"{found.company_only:,}"))
    for name, value in found.columns().items():
        out.append((name.replace("_", " "), f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"))
    return out


def render(found: Characterization) -> str:
    """The page as text; nothing in it is fetched."""
    environment = Environment(loader=PackageLoader("simulator.device", "."), autoescape=True, undefined=StrictUndefined)
    figures = {"rate_svg": plots.rate_figure, "column_svg": plots.column_figure, "map_svg": plots.map_figure}
    return environment.get_template("characterization.html.j2").render(
        info=found.info,
        unit=found.info.voltage_unit,
        cells=found.geometry.cells,
        repeats=found.repeats,
        patterns=PATTERNS,
        rows=rates(found),
        facts=facts(found),
        **{name: Markup(plots.svg(draw(found))) for name, draw in figures.items()},
    )
