"""`neuralfuse yield`."""

from typing import TYPE_CHECKING

from neuralfuse.cli.study import Dask, Out, Quiet, StudyFile, WorkersOption, check_workers, in_each
from neuralfuse.cli.tables import print_line, print_table

if TYPE_CHECKING:
    import pandas as pd

    from neuralfuse.analysis.each_chip import Yields
    from neuralfuse.study.folder import StudyFolder


def yields(
    study: StudyFile,
    out: Out,
    workers: WorkersOption = None,
    dask: Dask = None,
    quiet: Quiet = False,
) -> None:
    """Find the lowest supply of each chip, without all supplies and images, and what binning by it saves. Resumable."""
    from neuralfuse.analysis.each_chip import run_descents

    check_workers(workers, dask)
    in_each(study, out, workers, dask, quiet, run_descents, _print)


def _print(found: "Yields", folder: "StudyFolder") -> None:
    from neuralfuse.analysis.each_chip import SETTING, asked_of
    from neuralfuse.results.scale import ACCURACY

    asked, unit = asked_of(folder.study), folder.study.curve.unit
    print_line(f"a chip holds where its own accuracy is within {ACCURACY.within(asked.within_points)} of clean")
    for line in found.lines:
        print_line(line)
    alike = {name for name in SETTING if found.shares[name].nunique() < 2}
    names = [name for name in SETTING if name not in alike]
    _print_shares(found.shares, names, asked.scope, unit)
    bins = found.bins[found.bins.scope == asked.scope]
    if len(bins):
        _print_bins(bins, names, asked.scope, unit, asked.share_of_chips)
    print_line(f"measured: {100 * found.share:.2g}% of chips x supplies x images")
    print_line(f"tables: {folder.path / 'each_chip.csv'}, each_chip_shares.csv, each_chip_bins.csv")
    print_line(f"figure: {found.figures[0]}")


def _print_shares(shares: "pd.DataFrame", names: list[str], scope: str, unit: str) -> None:
    heads = ["holds, % of the chips [95%]", "own lowest of", f"saving, {scope} (%)"]
    rows = [
        [
            *(str(row[name]) for name in names),
            f"{row['voltage']:g}",
            f"{100 * row['share']:.1f} [{100 * row['share_low']:.1f}, {100 * row['share_high']:.1f}]",
            str(row["own"]),
            f"{100 * row[f'saving_{scope}']:.1f}",
        ]
        for row in shares.to_dict("records")
    ]
    _print_table("How many chips hold at each supply, and at all above", [*names, f"supply, {unit}", *heads], rows)


def _print_bins(bins: "pd.DataFrame", names: list[str], scope: str, unit: str, share: float) -> None:
    title = (
        f"What sorting chips by their own supply saves, {scope}, of the chips at the one supply for {100 * share:g}%"
    )
    rows = []
    for row in bins.to_dict("records"):
        each = "each its own" if row["bins"] != row["bins"] else f"{row['bins']:.0f}"  # NaN
        saved = f"{100 * row['saved']:z.1f} [{100 * row['saved_low']:z.1f}, {100 * row['saved_high']:z.1f}]"
        cells = [each, row["voltages"] or "-", str(row["chips"]), f"{row['energy_pj'] * 1e-6:.4g}", saved]
        rows.append([*(str(row[name]) for name in names), *cells])
    _print_table(title, [*names, "bins", f"supplies, {unit}", "chips", "energy, µJ", "saved, % [95%]"], rows)


def _print_table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for head in heads:
        table.add_column(escape(head))
    for row in rows:
        table.add_row(*map(escape, row))
    print_table(table)
