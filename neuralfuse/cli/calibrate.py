"""`neuralfuse calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neuralfuse.analysis.one_chip import Fitted
    from sram.faultmap import FaultMap


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
) -> None:
    """Fit the study's calibrated protections to one chip, measure them on test images, and pick the most accurate."""
    from dataclasses import asdict

    import pandas as pd

    from neuralfuse.analysis import one_chip
    from neuralfuse.cli.progress import steps
    from neuralfuse.quantized import checkpoint
    from neuralfuse.study.file_names import slug
    from neuralfuse.study.files import load_study
    from neuralfuse.study.folder import StudyFolder
    from neuralfuse.study.prepare import prepare
    from neuralfuse.sweep.bench import Bench, one_thread
    from sram.files import write_atomic

    wanted = one_chip.candidates(load_study(study), protection)
    at = wanted.voltage_floor if voltage is None else voltage
    fault_map = _map_of(chip)
    if fault_map is not None:
        one_chip.check_unit(wanted, fault_map.curve.unit)
        fault_map.count(at)  # refuses voltages below the map's before anything is trained
    rows: list[Fitted] = []
    with steps() as say:
        folder = StudyFolder(out / "study", wanted)
        prepare(folder, say)
        bench = Bench(folder)
        bits = {p.name: p.neuralfuse.bits for p in wanted.protections if p.neuralfuse is not None}

        def keep(fitted: "Fitted", made) -> None:
            rows.append(fitted)
            path = out / "transforms" / f"{slug(fitted.protection)}.safetensors"
            record, words = asdict(fitted) | {"chip": chip}, bits[fitted.protection]
            if words is None:  # measured with floats, kept as floats
                checkpoint.save(path, made.generator.state_dict(), record | {"bits": None})
            else:
                checkpoint.save_network(path, made.generator, record, words)

        with one_thread():
            if fault_map is not None:
                for candidate in wanted.protections:
                    keep(*one_chip.fit_to_map(bench, candidate, fault_map, at, say))
            else:
                _on_device(bench, chip, map_file, at, out, say, keep)
    table = pd.DataFrame([asdict(row) for row in rows])
    write_atomic(out / "calibration.csv", table.to_csv(index=False))
    _print(rows, wanted.networks[0].name)
    best = one_chip.best(rows, None if cost_limit is None else cost_limit / 100)
    found = out / "transforms" / f"{slug(best.protection)}.safetensors"
    write_atomic(out / "transform.safetensors", found.read_bytes())
    write_atomic(out / "transform.json", pd.Series(asdict(best) | {"chip": chip}).to_json(indent=1))
    print(f"picked: {best.protection}, {best.correct / best.total:.1%} right; {out / 'transform.safetensors'}")


def _map_of(chip: str) -> "FaultMap | None":
    """The map that a path names, in a folder or as a file; None for a device."""
    from sram import faultmap
    from sram.errors import InputError

    path = Path(chip)
    if path.is_dir():
        path = path / "map.npz"
    if path.suffix == ".npz" and ":" not in chip:
        return faultmap.load(path)
    if ":" not in chip:
        allowed = "MAP.npz, a folder with one, or a device: simulated:MAP.npz, rtl:MAP.npz, tcp:HOST:PORT, driver:M:C"
        raise InputError("command line", "--chip", chip, allowed)
    return None


def _on_device(bench, spec: str, map_file: Path | None, at: float, out: Path, say, keep) -> None:
    """Fit on a live device, after reading its cells if no map is given."""
    import numpy as np

    from neuralfuse.analysis import one_chip
    from neuralfuse.cli.device import opened_device
    from simulator.device.characterize import characterize
    from sram import faultmap

    with opened_device(spec, bench.study.accelerators[0], 0.01) as device:
        info = device.info
        if map_file is not None:
            known = faultmap.load(map_file)
        else:
            lowest = max(info.voltage_lowest, at - 2 * info.voltage_step)  # canaries lie on both sides of the supply
            planned = np.arange(info.voltage_nominal, lowest - info.voltage_step / 2, -info.voltage_step)
            read = characterize(device, planned.tolist(), 4, 1.0, out / "readings", say(f"read {info.name}"))
            known = read.fault_map()
            faultmap.save(known, out / "map.npz")
        for candidate in bench.study.protections:
            keep(*one_chip.fit_to_device(bench, candidate, device, known, at, say))


def _print(rows: "list[Fitted]", network: str) -> None:
    from rich.console import Console
    from rich.table import Table

    first = rows[0]
    table = Table(
        title=f"{network} on this chip at {first.voltage:g}",
        caption="right: of the test images. saving: weight-SRAM reads per inference, transform included, against "
        "unprotected at nominal supply. bytes: kept for this chip. images: of training, used once or more",
    )
    table.add_column("protection", overflow="fold")
    for name in ("right, %", "saving, %", "bytes", "images", "queries"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_row("unprotected", f"{100 * first.correct_unprotected / first.total:.1f}", "", "0", "", "")
    for row in rows:
        right, saving = 100 * row.correct / row.total, 100 * row.saving_weight_sram
        numbers = f"{row.storage_bytes:,}", f"{row.images:,}", f"{row.queries:,}"
        table.add_row(row.protection, f"{right:.1f}", f"{saving:.1f}", *numbers)
    Console().print(table)
