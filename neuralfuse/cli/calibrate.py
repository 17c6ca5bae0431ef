"""`neuralfuse calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.study import Quiet
from neuralfuse.cli.tables import print_line

if TYPE_CHECKING:
    import pandas as pd

    from neuralfuse.analysis.calibrate import Calibration


def calibrate(
    study: Annotated[Path, typer.Argument(help="Study file (YAML) with one network.", metavar="STUDY.yaml")],
    chip: Annotated[
        str,
        typer.Option(
            metavar="MAP.npz|DIR|DEVICE",
            help="A fault map, the folder of `neuralfuse device characterize`, or a device as that command takes it.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="transform.safetensors, calibration.csv, ...")],
    protection: Annotated[
        str | None, typer.Option(help="One of the study's calibrated protections. Default: all of them.")
    ] = None,
    voltage: Annotated[
        float | None, typer.Option(help="Supply of the weight memory. Default: the study's lowest.")
    ] = None,
    cost_limit: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Least saving of weight-SRAM energy of what is picked.")
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option("--map", metavar="MAP.npz", help="Map of a device, if it is characterised already."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fit the study's calibrated protections to one chip, measure them on test images, and pick the most accurate."""
    from neuralfuse.analysis.calibrate import calibrate as fit
    from neuralfuse.study.files import load_study

    limit = None if cost_limit is None else cost_limit / 100
    if ":" in chip and not Path(chip).exists():
        found = _on_device(study, chip, out, protection, voltage, limit, map_file, quiet)
    else:
        found = fit(study, chip, out, protection, voltage, limit, None, quiet)
    _print(found.table, load_study(study).networks[0].name)
    print_line(f"picked: {found.best.protection}, {found.best.correct / found.best.total:.1%} right; {found.path}")


def _on_device(
    study: Path,
    spec: str,
    out: Path,
    protection: str | None,
    voltage: float | None,
    limit: float | None,
    map_file: Path | None,
    quiet: bool,
) -> "Calibration":
    """The same on a live device, which is not kept waiting for what is trained before."""
    from neuralfuse.analysis import one_chip
    from neuralfuse.analysis.calibrate import calibrate as fit
    from neuralfuse.cli.device import opened_device
    from neuralfuse.study.files import load_study
    from neuralfuse.study.folder import StudyFolder
    from neuralfuse.study.prepare import prepare
    from sram import faultmap
    from sram.progress import steps

    wanted = one_chip.candidates(load_study(study), protection)
    known = None if map_file is None else faultmap.load(map_file)
    with steps(quiet) as say:
        prepare(StudyFolder(out / "study", wanted), say)
    with opened_device(spec, wanted.accelerators[0], 0.01) as device:
        return fit(wanted, device, out, protection, voltage, limit, known, quiet)


def _print(rows: "pd.DataFrame", network: str) -> None:
    from rich.table import Table

    from neuralfuse.cli.tables import print_table

    first = rows.iloc[0]
    where = {"device": "device (word i in byte i)"}.get(first.placement, f"schedule = {first.placement}")
    table = Table(
        title=f"{network} on this chip at {first.voltage:g}, weights placed by {where}",
        caption="right: of the test images. saving: weight-SRAM reads per inference, transform included, against "
        "unprotected at nominal supply. bytes: kept for this chip. images: of training, used once or more",
    )
    table.add_column("protection", overflow="fold")
    for name in ("right, %", "saving, %", "bytes", "images", "queries"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_row("unprotected", f"{100 * first.correct_unprotected / first.total:.1f}", "", "0", "", "")
    for row in rows.itertuples():
        right, saving = 100 * row.correct / row.total, 100 * row.saving_weight_sram
        numbers = f"{row.storage_bytes:,}", f"{row.images:,}", f"{row.queries:,}"
        table.add_row(row.protection, f"{right:.1f}", f"{saving:.1f}", *numbers)
    print_table(table)
