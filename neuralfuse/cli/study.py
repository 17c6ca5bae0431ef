"""`neuralfuse demo`, `sweep`, `train`, `report`, `merge`, `results`."""

import gc
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from neuralfuse.cli.tables import print_line, print_lines
from sram.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    import pandas as pd

    from neuralfuse.report import Report
    from neuralfuse.study.config import StudyConfig
    from neuralfuse.study.folder import StudyFolder
    from neuralfuse.study.making import Say
    from neuralfuse.sweep.collect import Failure
    from neuralfuse.sweep.executors import Workers

Out = Annotated[Path, typer.Option("--out", help="Folder for everything the study makes; run again to go on.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Processes; default one for each core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
Dask = Annotated[str | None, typer.Option(help="Address of a Dask scheduler that shares this file system.")]


class Found(Protocol):
    """What a command found in the folder of a study."""

    @property
    def failures(self) -> "list[Failure]":
        """Tasks that could not be done."""


F = TypeVar("F", bound=Found)


def in_each(
    study: Path,
    out: Path,
    workers: int | None,
    dask: str | None,
    quiet: bool,
    run: "Callable[[StudyFolder, Workers, Say], F]",
    show: "Callable[[F, StudyFolder], None]",
) -> None:
    """Run something in the folder of a study, of each of its variants, and show what it found. Ends with status 1 where
    tasks failed: nothing is shown of a folder with such."""
    from neuralfuse.sweep.executors import choose
    from neuralfuse.sweep.run import claimed
    from sram.progress import steps

    chosen, failed = choose(workers, dask), False
    for folder in claimed(study, out).values():
        with steps(quiet) as say:
            found = run(folder, chosen, say)
        for failure in found.failures:
            print_line(f"not done: {len(failure.tasks)} tasks: {failure.reason}")
        failed |= bool(found.failures)
        if not found.failures:
            show(found, folder)
    if failed:
        raise typer.Exit(1)


def check_workers(workers: int | None, dask: str | None) -> None:
    """InputError where both options are given."""
    if dask is not None and workers is not None:
        raise InputError("command line", "--dask", dask, "only one of --workers and --dask")


def demo(out: Out = Path("out/demo"), workers: WorkersOption = None, quiet: Quiet = False) -> None:
    """The main job on embedded data: train, make chips, sweep, plot, report. About four minutes on two cores."""
    with resources.as_file(resources.files("neuralfuse.studies") / "demo.yaml") as path:
        _sweep(path, out, workers, None, None, quiet)


def sweep(
    study: StudyFile,
    out: Out,
    workers: WorkersOption = None,
    dask: Dask = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Run the I-th of N parts; `merge` joins them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done and how long it takes.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: what is missing in DIR is run, what is there is kept. Resumable at any moment."""
    check_workers(workers, dask)
    part = _parse_shard(shard)
    if dry_run:
        _dry_run(study, out, workers, part)
    else:
        _sweep(study, out, workers, dask, part, quiet)


def train(
    study: StudyFile,
    out: Out,
    quiet: Quiet = False,
) -> None:
    """Train the study's networks and generators, and stop there. Resumable."""
    from neuralfuse.study.prepare import prepare
    from neuralfuse.sweep.run import claimed
    from sram.progress import steps

    with steps(quiet) as say:
        for folder in claimed(study, out).values():
            prepare(folder, say)
    for kind in ("networks", "generators"):
        for path in sorted(out.glob(f"**/{kind}/*.safetensors")):
            print_line(path)


def report(
    folders: Annotated[list[Path], typer.Argument(help="Results folders; two or more are compared.", metavar="DIR...")],
    against: Annotated[
        str | None, typer.Option(help="Instead, every protection (or network) against this one on the same chips.")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Table, PNG/SVG/PDF figures and one self-contained HTML page from a results folder."""
    from neuralfuse.report import build_report
    from neuralfuse.report.compare import compare, draw
    from neuralfuse.study import variants
    from neuralfuse.sweep.executors import choose

    if against is not None:
        from neuralfuse.report import paired

        for folder in folders:
            print_lines(paired.write(folder, against))
        return
    gc.freeze()  # libraries stay: to search them again and again for what is not needed takes a tenth of a report
    parts = [part for folder in folders for part in variants.folders(folder).values()]
    with choose(workers).make() as executor:
        for part in parts:
            _print_report(build_report(part, executor))
    if len(parts) > 1:
        print_lines(compare(parts).to_string(index=False))
        print_line(f"fronts in one plot: {draw(parts)[0]}")


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders whose rows are wanted (shards of one study).")],
    into: Annotated[Path, typer.Option("--into", help="A folder of the same study.")],
) -> None:
    """Bring the rows of other folders of one study into a folder in which it was trained or run; none is doubled."""
    from neuralfuse.study import variants
    from neuralfuse.study.folder import StudyFolder

    new = 0
    for name, part in variants.folders(into).items():
        new += StudyFolder.open(part).merge(StudyFolder.open(source / name) for source in sources)
    print_line(f"{new} new rows in {into}; `neuralfuse sweep STUDY.yaml --out {into}` writes results.csv")


def results(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    query: Annotated[
        str | None, typer.Option("--query", help='Rows to keep: "voltage < 0.85 and chip in [0, 1]".')
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Names, with commas between them.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Over chips, instead of chip by chip.")] = False,
) -> None:
    """Print results as CSV for a shell: all rows, or those of a query."""
    from neuralfuse.results.query import rows
    from neuralfuse.results.tables import read_results, to_csv

    table = read_results(folder)
    if summary:
        table = _summary(table, folder)
    if query is not None:
        table = rows(table, query, folder)
    if columns is not None:
        wanted = [name.strip() for name in columns.split(",")]
        unknown = [name for name in wanted if name not in table.columns]
        if unknown:
            raise InputError(folder, "--columns", unknown[0], ", ".join(table.columns))
        table = table[wanted]
    print(to_csv(table), end="")


def _summary(table: "pd.DataFrame", folder: Path) -> "pd.DataFrame":
    """Over chips; of variants each on its own, for they may differ in more than a summary's settings."""
    import pandas as pd

    from neuralfuse.results.pareto import summarise
    from neuralfuse.study.folder import scale_at

    scale = scale_at(folder)
    if "variant" not in table:
        return summarise(table, scale=scale)
    parts = {name: summarise(rows, scale=scale) for name, rows in table.groupby("variant", sort=False)}
    for name, part in parts.items():
        part.insert(0, "variant", name)
    return pd.concat(parts.values(), ignore_index=True)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise InputError("command line", "--shard", text, "I/N with 1 <= I <= N, such as 2/8")


def _sweep(
    path: Path, out: Path, workers: int | None, dask: str | None, part: tuple[int, int] | None, quiet: bool
) -> None:
    from neuralfuse.report.compare import compare
    from neuralfuse.study import variants
    from neuralfuse.sweep.executors import choose
    from neuralfuse.sweep.run import claimed

    chosen = choose(workers, dask)
    studies = claimed(path, out)
    failed = False
    with choose(workers).make() as local:
        for folder in studies.values():
            failed |= not _sweep_one(folder, chosen, part, quiet, local)
    if "" not in studies and part is None and variants.join(out) is not None:
        print_lines(compare([folder.path for folder in studies.values()]).to_string(index=False))
        print_line(f"all variants: {out / 'results.csv'}")
    if failed:
        raise typer.Exit(1)


def _sweep_one(
    folder: "StudyFolder", chosen: "Workers", part: tuple[int, int] | None, quiet: bool, local: "Executor"
) -> bool:
    """Run one study and report on it, drawing with `local`; False where something could not be had."""
    from neuralfuse.report import build_report
    from neuralfuse.sweep.run import run_study
    from sram.progress import steps

    with steps(quiet) as say:
        outcome = run_study(folder, chosen, say, part)
        if outcome.rows and part is None:
            advance = say("report")
            made = build_report(folder.path, local)
            advance(1, 1, {})
    print_line(f"{outcome.rows} of {outcome.wanted} results in {outcome.results}")
    if outcome.rows and part is None:
        _print_report(made)
    for failure in outcome.failures:
        first = failure.tasks[0]
        where = f"{first.point.network}, {first.point.structure}, {first.point.protection}, chip {first.chip}"
        print_line(f"not done: {len(failure.tasks)} tasks ({where}): {failure.reason}")
    return not outcome.failures


def _dry_run(path: Path, out: Path, workers: int | None, part: tuple[int, int] | None) -> None:
    from neuralfuse.study import variants
    from neuralfuse.sweep.executors import choose

    for folder in variants.studies_of(path, out).values():
        _dry_run_one(folder, choose(workers), part)


def _dry_run_one(folder: "StudyFolder", chosen: "Workers", part: tuple[int, int] | None) -> None:
    from neuralfuse.study.check import check
    from neuralfuse.study.supplies import operating_points
    from neuralfuse.sweep.run import estimate

    study = folder.study
    check(study)
    guess = estimate(folder, chosen, part)
    print(f"{guess.tasks} tasks: {len(study.networks)} networks x {len(study.accelerators)} accelerators x", end=" ")
    print(f"{len(study.forms)} structures x {len(study.protections)} protections x", end=" ")
    points = len(operating_points(study, study.accelerators[0]))
    print(f"{points} {'voltages' if points == len(study.voltages) else 'operating points'}", end=" ")
    fewer = any(protection.second for protection in study.protections)
    print(f"x {study.chips.evaluation} chips" + ", no network with itself as the second" * fewer)
    _print_supplies(study)
    _print_apart(study)
    trainings = ", ".join(guess.trainings) or "none"
    print_line(f"{guess.done} done in {folder.path}, {guess.tasks - guess.done} to do; trainings to do: {trainings}")
    if guess.seconds is None:
        print("time: not known before the first rows are there")
    else:
        print(f"time: about {guess.seconds:.0f} s for the tasks on {chosen.label}")


def _print_apart(study: "StudyConfig") -> None:
    """Which parameters of each network no fault reaches."""
    from neuralfuse.chips.stored import not_in_weak_cells
    from neuralfuse.study.data import build_network, workload_of

    for config in study.networks:
        network = build_network(config, study)
        apart = not_in_weak_cells(network, workload_of(network, config, study))
        print_line(f"not in weak cells of {config.name}: {', '.join(apart) or 'none'}")


def _print_supplies(study: "StudyConfig") -> None:
    """Unit, volts and cell fault rate of every supply of each rail; and which weight lies in which cell."""
    from rich.markup import escape
    from rich.table import Table

    from neuralfuse.chips.memory import PLACEMENTS
    from neuralfuse.cli.tables import print_table
    from neuralfuse.study.supplies import curve_of_role, rails, roles_of, swept_voltages

    print(f"supply: {rails(study)}")
    print(f"placement: {PLACEMENTS[study.sram.schedule]}")
    for role in roles_of(study):
        curve, machines = curve_of_role(study, role), study.accelerators
        head = [f"{role} ({curve.unit})", *(f"V on {name}" for name in machines)]
        head += [] if role == "logic" else ["cell fault rate", ""]
        title = "sums are late" if study.late_sums else "no faults"
        title = title if role == "logic" else f"failure curve {curve.name}"
        table = Table(*map(escape, head), title=escape(title), box=None, pad_edge=False)
        for supply in swept_voltages(study, role):
            row = [f"{supply.voltage:.4f}", *(f"{value:.4f}" for value in supply.volts.values())]
            if supply.cell_fault_rate is not None:
                beyond = f"beyond the curve's data, {curve.low:g} to {curve.high:g}" if supply.extrapolated else ""
                row += [f"{supply.cell_fault_rate:.2e}", beyond]
            table.add_row(*row)
        print_table(table)


def _print_report(made: "Report") -> None:
    alone = made.headline.rails.nunique() == 1
    if alone:
        _print_headline(made)
    _print_choice(made)
    for line in [*(made.gains + made.yields if alone else []), *([made.warning] if made.warning else [])]:
        print_line(line)
    print_line(f"page: {made.page}")


def _print_headline(made: "Report") -> None:
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from neuralfuse.report import headline_lines

    table = Table(
        title=f"Lowest weight-SRAM supply that stays within so many {made.scale.unit} of clean {made.scale.name}",
        caption=f"supply: of {made.rails}. saving: weight-SRAM reads per inference, protection included, against "
        "unprotected at nominal supply",
    )
    for name in ("maps", "protection", made.scale.unit, f"supply, {made.unit} [95%]", "saving, % [95%]"):
        table.add_column(name, no_wrap=True)
    for row in headline_lines(made.headline[made.headline.protection.isin(made.drawn)]):
        table.add_row(*row)
    print_table(table)
    if others := made.headline.protection.nunique() - len(made.drawn):
        print(f"{others} more protections are in headline.csv")


def _print_choice(made: "Report") -> None:
    """Which operating point takes least energy within so many points of clean."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from neuralfuse.report import choice_cells

    scale = made.scale
    cells = choice_cells(made.choice, made.unit, scale)
    title = f"Least energy of an inference within so many {scale.unit} of clean {scale.name}, on the chip"
    table = Table(title=title)
    for name in cells[0] if cells else ():
        table.add_column(name)
    for row in cells:
        table.add_row(*row.values())
    if cells:
        print_table(table)
    else:
        print(f"no operating point keeps the mean {scale.name} within {scale.within(scale.margins[-1])} of clean")
