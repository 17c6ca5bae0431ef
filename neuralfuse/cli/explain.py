"""`neuralfuse explain`: whether generators repair images or paint classes."""

from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Out, Quiet, StudyFile, WorkersOption
from neuralfuse.cli.tables import print_line

if TYPE_CHECKING:
    import pandas as pd

# heading -> measure; percent, or points where it is signed
COLUMNS = {
    "clean": "clean",
    "clean, G": "clean_protected",
    "chips": "bare",
    "chips, G": "protected",
    "gain": "gain",
    "one G for all": "gain_one_for_all",
    "swap": "swap",
    "without G": "swap_bare",
    "class mean": "mean",
    "agrees": "agrees",
    "where it is wrong": "agrees_wrong",
    "probe of G": "probe_painted",
    "of x": "probe_image",
}


def explain(
    study: StudyFile,
    out: Out,
    voltage: Annotated[
        float | None,
        typer.Option(help="Weight-SRAM supply of the study, in the curve's unit; default its lowest point."),
    ] = None,
    workers: WorkersOption = None,
    quiet: Quiet = False,
) -> None:
    """Does a generator repair the image, or paint the class it sees? Table, explain.csv and a figure.

    Every generator of the study that is trained for all chips, on its evaluation chips, first accelerator and
    structure. DIR may be that of a sweep: what it has already is used, what it lacks is trained.
    """
    from neuralfuse.analysis.explain import generators, measure, point
    from neuralfuse.report import plots
    from neuralfuse.results.tables import to_csv
    from neuralfuse.study import variants
    from neuralfuse.study.file_names import slug
    from neuralfuse.study.prepare import prepare
    from neuralfuse.sweep.executors import choose
    from sram.files import write_atomic
    from sram.progress import steps

    chosen = choose(workers)
    studies = variants.claim(study, out).values()
    for folder in studies:  # refused before anything is trained
        generators(folder.study)
        point(folder.study, voltage)
    with steps(quiet) as say:
        for folder in studies:
            prepare(folder, say)
            table, readings = measure(folder, voltage, chosen, say(f"explain ({chosen.label})"))
            parts = {"explain": table, "explain_chips": readings}
            written = [write_atomic(folder.path / f"{name}.csv", to_csv(part)) for name, part in parts.items()]
            for name, rows in table.groupby("network", sort=False):
                figure = plots.explain(rows, readings[readings.network == name], folder.study.curve.unit)
                written += plots.save(figure, folder.path / "plots", f"explain-{slug(name)}")
            _print(table)
            for path in written:
                print_line(path)


def _print(table: "pd.DataFrame") -> None:
    from rich.table import Table

    from neuralfuse.cli.tables import print_table

    first = table.iloc[0]
    shown = Table(
        title=f"{first.chips} chips, {first.images} images, weights at {first.voltage:g}",
        caption="clean, chips: accuracy without and with faults, %. gain, one G for all (the mean of G over images): "
        "points. swap: with G of another image the network says that image's class, %; without G: it says it anyway; "
        "class mean: with the mean of G over another class it says that class. agrees: with a linear probe of "
        "F(x) - x; probes: accuracy, %. [95% over chips]",
    )
    for name in ("network", "protection", *COLUMNS):
        shown.add_column(name)
    for _, row in table.iterrows():
        shown.add_row(row.network, row.protection, *(_cell(row, name) for name in COLUMNS.values()))
    print_table(shown)


def _cell(row: "pd.Series", name: str) -> str:
    sign = "+" if name.startswith("gain") else ""
    if f"{name}_low" not in row:
        return f"{row[name]:.1f}"
    return f"{row[name]:{sign}.1f} [{row[f'{name}_low']:{sign}.1f}, {row[f'{name}_high']:{sign}.1f}]"
