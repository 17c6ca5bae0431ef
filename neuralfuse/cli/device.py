"""`neuralfuse device`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuralfuse.cli.imports import importing
from neuralfuse.cli.study import Quiet
from neuralfuse.cli.tables import print_line
from sram.names import printable

if TYPE_CHECKING:
    from simulator.device.protocol import Device

app = typer.Typer(help="Chips in the loop: serve, characterize.", no_args_is_help=True)

SECRET = "NEURALFUSE_SECRET"
DEVICE = (
    "simulated:MAP.npz, rtl:MAP.npz (weights; other memories behind it: simulated:MAP.npz,activations=MAP.npz), "
    "tcp:HOST:PORT, or driver:MODULE:CLASS."
)
Device_ = Annotated[str, typer.Argument(metavar="DEVICE", help=DEVICE)]
Machine = Annotated[str, typer.Option(metavar="NAME|FILE.yaml", help="Array of a simulated or RTL chip.")]
Step = Annotated[float, typer.Option(help="Step of the supply of a simulated or RTL chip.")]


@app.callback()
def group() -> None:
    """Chips in the loop: serve, characterize."""


@app.command()
@importing
def serve(
    device: Device_,
    host: Annotated[str, typer.Option(help=f"Beyond loopback only with a secret in {SECRET}.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one; it is printed.")] = 7533,
    accelerator: Machine = "paper",
    step: Step = 0.01,
) -> None:
    """Put a device behind a TCP port, one client at a time, until SIGTERM or Ctrl-C."""
    from simulator.device import serve as server

    secret = os.environ.get(SECRET)
    server.check_secret(host, secret)
    with opened_device(device, accelerator, step) as opened:
        server.serve(opened, host, port, secret)


@app.command()
@importing
def characterize(
    device: Device_,
    out: Annotated[Path, typer.Option(metavar="DIR", help="map.npz, rates.csv, report.html; resumable.")],
    voltages: Annotated[
        str | None,
        typer.Option(metavar="V,V,...", help="Voltages, in the device's unit. Default: every step of its range."),
    ] = None,
    memory: Annotated[str, typer.Option(metavar="NAME", help="Which of its memories.")] = "weights",
    repeats: Annotated[int, typer.Option(min=1, help="Reads of each pattern at each voltage.")] = 8,
    stop: Annotated[float, typer.Option(help="Go no lower once this share of the cells has failed.")] = 0.05,
    accelerator: Machine = "paper",
    step: Step = 0.01,
    quiet: Quiet = False,
) -> None:
    """Read a device's memory at falling voltages: fault map, failure curve with intervals, column statistics, page."""
    from simulator.device.characterize import characterize as read
    from simulator.device.characterize import parse_voltages
    from simulator.device.page import rates_csv, render
    from sram import faultmap
    from sram.files import write_atomic
    from sram.progress import steps

    with opened_device(device, accelerator, step) as opened, steps(quiet) as say:
        chosen = opened.memory(memory)
        planned = parse_voltages(voltages, chosen.info)
        found = read(chosen, planned, repeats, stop, out / "readings", say(chosen.info.title))
    fault_map = found.fault_map()
    faultmap.save(fault_map, out / "map.npz")
    write_atomic(out / "rates.csv", rates_csv(found))
    write_atomic(out / "report.html", render(found))
    lowest = f"{found.voltages[-1]:g} {found.info.voltage_unit}"
    print_line(f"{found.info.title}: {len(fault_map):,} weak cells of {found.geometry.cells:,} down to {lowest}")
    print_line(f"report: {out / 'report.html'}")


@contextmanager
def opened_device(spec: str, machine: str, step: float) -> "Iterator[Device]":
    """The device, back at nominal voltage afterwards, after SIGTERM too. A failing device is not the user's mistake,
    but one line as well."""
    from simulator.device import open_device
    from simulator.device.protocol import DeviceError

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if spec.startswith("rtl:"):
        print("rtl: the first use of an array builds it, which can take minutes", file=sys.stderr, flush=True)
    try:
        with open_device(spec, machine, step, os.environ.get(SECRET)) as device:
            yield device
    except DeviceError as error:
        print(f"neuralfuse: {printable(error)}", file=sys.stderr)
        raise typer.Exit(1) from None
