"""`neuralfuse faultmap`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Quiet
from neuralfuse.cli.tables import print_line
from sram import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sram.faultmap import FaultMap
    from sram.geometry import Geometry

app = typer.Typer(help="Persistent fault maps: make, info, show, import, export, compare, fit.", no_args_is_help=True)

MapFile = Annotated[Path, typer.Argument(help="Fault map (.npz).", show_default=False)]
Voltage = Annotated[float | None, typer.Option(help="In the unit of the map's curve. [default: the map's floor]")]
Banks = Annotated[int | None, typer.Option(help="Number of banks.", show_default=False)]
CapacityKib = Annotated[float | None, typer.Option(help="Capacity in KiB instead of --banks.", show_default=False)]
Rows = Annotated[int, typer.Option(help="Rows of a bank.")]
Columns = Annotated[int, typer.Option(help="Columns of a bank.")]
WordBits = Annotated[int, typer.Option(help="Bits of a word.")]
UNKNOWN_POLARITY = {
    "flip": "read the opposite of what was stored, the worst case",
    "stuck": "be stuck by chance, half of them at 0 and half at 1",
}
Chip = Annotated[int, typer.Option(help="Number of the chip.")]


@app.callback()
def group() -> None:
    """Persistent fault maps: make, info, show, import, export, compare, fit."""


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Where to write the map (.npz).", show_default=False)],
    voltage_floor: Annotated[
        float, typer.Option(help="Lowest voltage that will be asked for, in the curve's unit.", show_default=False)
    ],
    banks: Banks = None,
    capacity_kib: CapacityKib = None,
    rows: Rows = 512,
    columns: Columns = 64,
    word_bits: WordBits = 64,
    curve: Annotated[str, typer.Option(help="Failure curve: a name of `curve list`, or a JSON file.")] = "ibm14",
    structure: Annotated[
        str, typer.Option(help="iid, column, column_runs, or shares of variance such as column=0.4,bank=0.1.")
    ] = "iid",
    chip: Chip = 0,
    seed: Annotated[int, typer.Option(help="Seed of the study.")] = 0,
    mode: Annotated[str, typer.Option(help="stuck: reads a constant; flip: reads the opposite.")] = "stuck",
    stuck_at_one: Annotated[float, typer.Option(help="Share of the stuck cells that read 1.")] = 0.5,
    noise: Annotated[
        float, typer.Option(help="Access-to-access noise, as a share of the spread between cells (silicon 0.07-0.15).")
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """Make the fault map of one chip."""
    from sram import faultmap
    from sram import memory as silicon

    geometry = _geometry(banks, capacity_kib, rows, columns, word_bits)
    with progress.steps(quiet) as say:
        bar = say("banks") if geometry.banks >= 4096 else None  # smaller maps take less than a second
        fault_map = silicon.Chip(chip, seed).fault_map(
            silicon.Memory(geometry, curve, structure, mode, stuck_at_one),
            voltage_floor,
            noise=noise,
            advance=lambda done, banks: bar and bar(done, banks, {}),
        )
    faultmap.save(fault_map, out)
    _say_written(out, fault_map)


@app.command()
def info(map_file: MapFile, voltage: Voltage = None) -> None:
    """What is in a map: its origin, its rate at some voltages, its clustering at one."""
    import numpy as np
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from sram import compare, faultmap

    m = faultmap.load(map_file)
    unit, geometry = m.curve.unit, m.geometry
    s = compare.statistics(m, m.voltage_floor if voltage is None else voltage)
    shares = {name: share for name, share in vars(m.structure).items() if share} or "every cell on its own"
    print_line(f"{map_file}: chip {m.chip}, seed {m.seed}, curve {m.curve.name} (voltages in {unit})")
    print_line(
        f"{geometry.banks} banks of {geometry.rows} x {geometry.columns} cells, {geometry.word_bits}-bit words, "
        f"{geometry.capacity_bytes / 1024:g} KiB; structure: {shares}"
    )
    if m.noise is not None:
        print_line(f"intermittent cells: noise width {m.noise.min():.3g} to {m.noise.max():.3g} {unit}")
    table = Table("voltage", "faulty cells", "cell fault rate", "failure curve", "flip rate on balanced data")
    top = float(m.critical_voltage[0]) if len(m) else m.voltage_floor
    for v in sorted({*np.linspace(m.voltage_floor, max(top, m.voltage_floor), 6).tolist(), s.voltage}, reverse=True):
        rates = m.cell_fault_rate(v), float(m.curve.probability(v)), m.flip_rate(v)
        table.add_row(f"{v:.4g} {unit}", f"{m.count(v):,}", *(f"{rate:.3g}" for rate in rates))
    print_table(table)
    table = Table(f"at {s.voltage:g} {unit}", "column", "row", "bank")
    spreads = s.columns, s.rows, s.banks
    table.add_row("groups", *(f"{g.groups:,}" for g in spreads))
    table.add_row("with faults", *(f"{g.with_faults:,}" for g in spreads))
    table.add_row("most faults in one", *(f"{g.most:,}" for g in spreads))
    table.add_row("variance / mean (1: independent)", *(f"{g.variance_to_mean:.3g}" for g in spreads))
    print_table(table)
    stuck = "" if np.isnan(s.stuck_at_one) else f"; {s.stuck_at_one:.1%} of the stuck cells at 1"
    print_line(
        f"worst tenth of the banks: {s.worst_tenth_of_banks:.1%} of the faults; words with faults "
        f"{s.words_with_faults:.3%}, with two or more {s.words_with_two_or_more:.3%}{stuck}"
    )
    if not np.isnan(s.adjacent_rows):
        print_line(f"neighbouring rows of a column fail together {s.adjacent_rows:.2f} times as often as by chance")


@app.command()
def show(
    map_file: MapFile,
    out: Annotated[Path, typer.Option(help="Picture to write (.png, .svg or .pdf).", show_default=False)],
    voltage: Voltage = None,
    bank: Annotated[int | None, typer.Option(help="[default: the bank with most faults]")] = None,
) -> None:
    """Picture of a bank, histogram of faults per column, rate against the failure curve."""
    from sram import faultmap, mapplots

    m = faultmap.load(map_file)
    _save(mapplots.show(m, m.voltage_floor if voltage is None else voltage, bank), out)


@app.command("import")
def import_(
    csv_file: Annotated[
        Path,
        typer.Argument(
            help="CSV: bank, row, column, voltage (or voltage_mv) at which it first fails[, polarity][, noise].",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Where to write the map (.npz).", show_default=False)],
    banks: Banks = None,
    capacity_kib: CapacityKib = None,
    rows: Rows = 512,
    columns: Columns = 64,
    word_bits: WordBits = 64,
    curve: Annotated[
        str | None, typer.Option(help="Failure curve: name or JSON file. [default: through the map's own rates]")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of the voltages, if the map gets a curve of its own.")] = "V",
    nominal: Annotated[float, typer.Option(help="Nominal voltage in that unit.")] = 1.0,
    voltage_floor: Annotated[
        float | None, typer.Option(help="Lowest voltage tested. [default: the lowest in the file]")
    ] = None,
    chip: Chip = 0,
    readbacks: Annotated[
        bool, typer.Option("--readbacks", help="A line for every voltage at which a cell failed, not just the highest.")
    ] = False,
    unknown: Annotated[
        str,
        typer.Option(
            "--unknown-polarity",
            metavar="flip|stuck",
            help="Without a column polarity, cells read the opposite of what was stored (flip, the worst case), or are "
            "stuck by chance, half of them at 0 and half at 1: half as many wrong bits (stuck).",
        ),
    ] = "flip",
) -> None:
    """Bring in a measured map. Files written by `export` know their geometry and curve; others need --banks."""
    from sram import faultmap, measured
    from sram.errors import InputError

    if unknown not in UNKNOWN_POLARITY:
        raise InputError("command line", "--unknown-polarity", unknown, "flip or stuck")
    given = banks is not None or capacity_kib is not None
    with _working(f"reading {csv_file}"):
        got = measured.read(
            csv_file,
            geometry=_geometry(banks, capacity_kib, rows, columns, word_bits) if given else None,
            curve=curve,
            unit=unit,
            nominal=nominal,
            voltage_floor=voltage_floor,
            chip=chip,
            readbacks=readbacks,
        )
    known = got.polarity_known
    found = measured.stuck_by_chance(got.fault_map) if unknown == "stuck" and not known else got.fault_map
    faultmap.save(found, out)
    _say_written(out, found)
    if not known:
        print(f"polarity unknown: cells are taken to {UNKNOWN_POLARITY[unknown]} (--unknown-polarity {unknown})")
    for step in got.steps:
        share = step.still_failing / step.failing
        print_line(
            f"of {step.failing:,} cells failing at {step.voltage:g}, {share:.1%} also fail at the next lower voltage"
        )


@app.command()
def export(
    map_file: MapFile, csv_file: Annotated[Path, typer.Argument(help="CSV to write.", show_default=False)]
) -> None:
    """Write a map as CSV; `import` gives the same map back."""
    from sram import faultmap, measured

    with _working(f"writing {csv_file}"):
        measured.export(faultmap.load(map_file), csv_file)


@app.command()
def compare(
    map_a: MapFile,
    map_b: Annotated[Path, typer.Argument(help="The other (.npz).", show_default=False)],
    voltage: Annotated[float | None, typer.Option(help="[default: the higher of the two floors]")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write.", show_default=False)] = None,
) -> None:
    """Overlap of two maps, their column statistics, and whether their columns are distributed alike (chi-square)."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from sram import compare, faultmap

    a, b = faultmap.load(map_a), faultmap.load(map_b)
    voltage = max(a.voltage_floor, b.voltage_floor) if voltage is None else voltage
    c = compare.compare(a, b, voltage)
    table = Table(f"at {voltage:g} {a.curve.unit}", map_a.name, map_b.name)
    rows: list[tuple[str, str]] = [
        ("faulty cells", "{s.faulty:,}"),
        ("cell fault rate", "{s.cell_fault_rate:.4g}"),
        ("columns with faults", "{s.columns.with_faults:,}"),
        ("most faults in a column", "{s.columns.most:,}"),
        ("variance / mean of faults per column", "{s.columns.variance_to_mean:.3g}"),
        ("neighbouring rows of a column, times chance", "{s.adjacent_rows:.3g}"),
        ("faults in the worst tenth of the banks", "{s.worst_tenth_of_banks:.1%}"),
        ("stuck at 1, of the stuck cells", "{s.stuck_at_one:.1%}"),
    ]
    for name, form in rows:
        table.add_row(name, form.format(s=c.a), form.format(s=c.b))
    print_table(table)
    print_line(
        f"faulty in both: {c.both:,} cells; Jaccard {c.jaccard:.4g} (independent maps: {c.jaccard_by_chance:.4g}); "
        f"{c.b_given_a:.1%} of the first and {c.a_given_b:.1%} of the second; same way in {c.same_kind:.1%}"
    )
    print_line(
        f"faults per column: correlation {c.column_correlation:.3f}; same distribution: chi-square {c.chi_square:.1f} "
        f"on {c.dof} degrees of freedom, p = {c.p_value:.3g}"
    )
    if out is not None:
        from sram import mapplots

        _save(mapplots.compare(a, b, voltage, (map_a.stem, map_b.stem)), out)


@app.command()
def fit(map_file: MapFile, voltage: Voltage = None) -> None:
    """Shares of the variation owed to bank, column, row and runs of rows, with 95% intervals over banks."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from sram import faultmap, structurefit

    m = faultmap.load(map_file)
    with _working("resampling banks"):
        found = structurefit.fit(m, voltage)
    table = Table(f"at {found.voltage:g} {m.curve.unit}, {found.faulty:,} faults", "share of variance", "95% interval")
    for name in ("bank", "column", "row", "run"):
        share = getattr(found, name)
        table.add_row(name, f"{share.value:.3f}", f"{share.low:.3f} to {share.high:.3f}")
    print_table(table)
    times = found.adjacent
    print_line(
        f"neighbouring rows of a column fail together {times.value:.2f} times as often as by chance "
        f"(95% {times.low:.2f} to {times.high:.2f})"
    )


def _geometry(banks: int | None, capacity_kib: float | None, rows: int, columns: int, word_bits: int) -> "Geometry":
    from sram.errors import InputError
    from sram.geometry import Geometry

    if (banks is None) == (capacity_kib is None):
        given = "neither" if banks is None else "both"
        raise InputError("faultmap", "--banks, --capacity-kib", given, "one of the two")
    if banks is not None:
        return Geometry(banks, rows, columns, word_bits)
    if capacity_kib is None or not (math.isfinite(capacity_kib) and capacity_kib > 0):
        raise InputError("faultmap", "--capacity-kib", capacity_kib, "a finite number above 0")
    return Geometry.of_capacity(round(capacity_kib * 1024), rows, columns, word_bits)


def _say_written(path: Path, fault_map: "FaultMap") -> None:
    floor, unit = fault_map.voltage_floor, fault_map.curve.unit
    rate = fault_map.cell_fault_rate(floor)
    print_line(f"{path}: {fault_map.count(floor):,} faulty cells at {floor:g} {unit}, cell fault rate {rate:.4g}")


def _save(figure: "Figure", path: Path) -> None:
    from sram.errors import InputError
    from sram.files import write_atomic

    kind = path.suffix.lstrip(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise InputError("picture", "file", str(path), "a name that ends in .png, .svg or .pdf")
    write_atomic(path, lambda file: figure.savefig(file, format=kind, dpi=150))
    print_line(path)


@contextmanager
def _working(title: str) -> Iterator[None]:
    with progress.steps() as say:
        say(title)
        yield
