"""`neuralfuse optimize`."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Dask, Out, Quiet, StudyFile, WorkersOption, check_workers, in_each
from neuralfuse.cli.tables import print_line, print_table

if TYPE_CHECKING:
    import pandas as pd

    from neuralfuse.analysis.optimize import Optimum
    from neuralfuse.study.folder import StudyFolder


def optimize(
    study: StudyFile,
    out: Out,
    workers: WorkersOption = None,
    dask: Dask = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is searched, under which constraints.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find the operating point and protection of least energy that keep accuracy, without the whole grid. Resumable."""
    from neuralfuse.analysis.optimize import run_search
    from neuralfuse.study import variants

    check_workers(workers, dask)
    if dry_run:
        for folder in variants.studies_of(study, out).values():
            _dry_run(folder)
        return
    in_each(study, out, workers, dask, quiet, run_search, _print)


def _dry_run(folder: "StudyFolder") -> None:
    from neuralfuse.analysis.optimize import check_search, goals_of
    from neuralfuse.study.supplies import operating_points

    study = folder.study
    check_search(study)
    goals, chips = goals_of(study), study.chips.evaluation
    points = len(operating_points(study, study.accelerators[0]))
    settings = len(study.networks) * len(study.accelerators) * len(study.forms)
    print(
        f"{settings} searches of {points} operating points x {len(study.protections)} protections, on {chips} chips;",
        end=" ",
    )
    print_line(f"the answer on {chips} more")
    asked = [f"mean accuracy within {goals.accuracy_points:g} points of clean"]
    if goals.share_of_chips is not None:
        asked.append(f"{100 * goals.share_of_chips:g}% of the chips within them, each for itself")
    if goals.inferences_per_second is not None:
        asked.append(f"{goals.inferences_per_second:g} inferences/s or more")
    print_line(f"least energy at the scope {goals.scope} with {', '.join(asked)}")
    print_line(f"at most {100 * goals.evaluations:g}% of the grid is measured for the search")


def _print(found: "Optimum", folder: "StudyFolder") -> None:
    for line in found.lines:
        print_line(line)
    if not found.settled:
        print_line("the budget `optimize.evaluations` left points open (search.csv): one of them may take less energy")
    _print_table("Least energy for other margins, on the chips of the search", found.front, "loss_points")
    if len(found.worth):
        _print_table("What each choice is worth: the best point with one of them put back", found.worth, "costs_more")
    print_line(f"measured: {100 * found.share:.2g}% of the grid; every point: {folder.path / 'search.csv'}")
    print_line(f"the chosen point as a study: {found.study}")


def _print_table(title: str, rows: "pd.DataFrame", last: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    units = {"energy_pj": ("µJ", 1e-6), "saving": ("saving (%)", 100.0), "clock_hz": ("clock (MHz)", 1e-6)}
    units |= {"costs_more": ("energy more (%)", 100.0), "loss_points": ("loses (points)", 1.0)}
    units |= {"inferences_per_s": ("inferences/s", 1.0), "put_back": ("put back", 1.0)}
    alike = {name for name in ("network", "accelerator", "structure") if rows.get(name, rows[last]).nunique() < 2}
    shown = [name for name in rows.columns if name not in {"scope", "settled", last, *alike}]
    table = Table(title=title)
    for name in [*shown, last]:
        table.add_column(escape(units.get(name, (name, 1.0))[0]))
    for row in rows.to_dict("records"):
        none = "none keeps" if row.get("settled", True) else "not settled"
        cells = [_cell(row[name], units.get(name, (name, 1.0))[1], "-") for name in shown]
        table.add_row(*map(escape, [*cells, _cell(row[last], units[last][1], none)]))
    print_table(table)


def _cell(value: object, times: float, missing: str) -> str:
    if isinstance(value, float):
        return missing if math.isnan(value) else f"{value * times:.4g}"
    return str(value)
