"""`neuralfuse simulate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sram.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from simulator.accelerator import Accelerator
    from simulator.workload import Workload

WORKLOAD, MACHINE, RESULT = "Workload (one of)", "Accelerator (one of)", "Results"
LINE = "command line"


def simulate(
    network: Annotated[
        str | None,
        typer.Option(help="Built-in network or generator, or package.module:callable.", rich_help_panel=WORKLOAD),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="File: .onnx or .pt2.", rich_help_panel=WORKLOAD)] = None,
    topology: Annotated[Path | None, typer.Option(help="SCALE-Sim topology (.csv).", rich_help_panel=WORKLOAD)] = None,
    input: Annotated[
        str | None,
        typer.Option(metavar="CxHxW", help="Shape of one sample, such as 3x32x32.", rich_help_panel=WORKLOAD),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples that run together.", rich_help_panel=WORKLOAD)] = 1,
    accelerator: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.yaml", help="Default: paper.", rich_help_panel=MACHINE)
    ] = None,
    scalesim_config: Annotated[
        Path | None, typer.Option(metavar="FILE.cfg", help="SCALE-Sim configuration.", rich_help_panel=MACHINE)
    ] = None,
    voltage: Annotated[
        str | None,
        typer.Option(help="Supply of the weight memory: 0.7V, or 0.83Vmin of its nominal.", rich_help_panel=MACHINE),
    ] = None,
    energy_table: Annotated[
        str, typer.Option(metavar="NAME|FILE.yaml", help="Energies of the components.", rich_help_panel=MACHINE)
    ] = "published",
    compat: Annotated[
        str | None,
        typer.Option(metavar="scalesim", help="Count as SCALE-Sim v3 does, quirk for quirk.", rich_help_panel=RESULT),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="All columns as CSV.", rich_help_panel=RESULT)] = None,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Energy and cycles of each layer, roofline.", rich_help_panel=RESULT),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER:INDEX", help="Print the cells that hold this weight, and stop.", rich_help_panel=RESULT
        ),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER:FILE",
            help="Write who passes which port when (.parquet or .csv), and stop.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="For --where: streamed, resident or paper.", rich_help_panel=RESULT)
    ] = "streamed",
) -> None:
    """Cycles, memory accesses and energy of a network on an accelerator, per layer.

    Counts are those of the whole batch, energies those of one inference.
    """
    if compat not in (None, "scalesim"):
        raise InputError(LINE, "--compat", compat, "scalesim")
    from rich.console import Console

    say = Console(stderr=True).status
    machine = _machine(accelerator, scalesim_config)
    with say("reading the network"):
        workload = _workload(network, model, topology, input, batch)
    if where is not None:
        _print_cells(workload, machine, where, schedule)
        return
    if trace is not None:
        _write_trace(workload, machine, trace)
        return
    for entry in workload.unknown:
        print(f"not counted: {entry}", file=sys.stderr)
    if compat:
        from simulator.compat import scalesim

        with say(f"counting {len(workload.array_layers)} layers as SCALE-Sim does"):
            frame = scalesim.simulate(workload, machine)
        _print(frame, list(frame.columns), f"{workload.name} on {machine.name}, as SCALE-Sim counts")
    else:
        frame = _energies_and_counts(workload, machine, voltage, energy_table, plots)
    if out is not None:
        from sram.files import write_atomic

        write_atomic(out, frame.to_csv(index=False))


def _write_trace(workload: Workload, machine: Accelerator, text: str) -> None:
    from rich.console import Console

    from simulator.array import traces

    name, _, file = text.partition(":")
    layers = {layer.name: layer for layer in workload.array_layers}
    if name not in layers or not file.endswith((".csv", ".parquet")):
        raise InputError(
            LINE, "--trace", text, "LAYER:FILE.parquet or LAYER:FILE.csv, LAYER one of " + ", ".join(layers)
        )
    with Console(stderr=True).status(f"tracing {name}"):
        rows = traces.write(layers[name], machine, Path(file))
    print(f"{rows} events in {file}")


def _machine(accelerator: str | None, scalesim_config: Path | None) -> Accelerator:
    from simulator import accelerator as accelerators

    if scalesim_config is not None:
        if accelerator is not None:
            raise InputError(LINE, "--accelerator", accelerator, "only one of --accelerator and --scalesim-config")
        return accelerators.scalesim_config(scalesim_config)
    return accelerators.accelerator(accelerator or "paper")


def _workload(
    network: str | None, model: Path | None, topology: Path | None, shape: str | None, batch: int
) -> Workload:
    from simulator.readers.read import load, trace

    given = [name for name, value in (("--network", network), ("--model", model), ("--topology", topology)) if value]
    if len(given) != 1:
        raise InputError(LINE, "workload", ", ".join(given) or None, "exactly one of --network, --model, --topology")
    sample = _shape(shape) if shape is not None else None
    if network is None:
        path = model or topology
        assert path is not None
        if topology is not None and topology.suffix != ".csv":
            raise InputError(LINE, "--topology", str(topology), "a .csv file")
        return load(path, sample, batch)
    from neuralfuse import networks
    from neuralfuse.transforms import generators

    if sample is None:
        raise InputError(LINE, "--input", None, "the shape of one sample, such as 3x32x32, with --network")
    build = generators.build if network in generators.names() else networks.build
    return trace(build(network, in_channels=sample[0]), sample, batch, name=network)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(LINE, "--input", text, "whole numbers with x between them, such as 3x32x32")
    return tuple(int(part) for part in parts)


def _supply(text: str | None) -> tuple[float | None, float | None]:
    """(voltage, nominal) of --voltage: volts have no nominal of their own, multiples of Vmin have 1."""
    if text is None:
        return None, None
    number, nominal = (text[:-4], 1.0) if text.endswith("Vmin") else (text.removesuffix("V"), None)
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < 10:
        raise InputError(LINE, "--voltage", text, "a positive supply: 0.7V, or 0.83Vmin")
    return value, nominal


def _energies_and_counts(
    workload: Workload, machine: Accelerator, voltage: str | None, table: str, plots: Path | None
) -> pd.DataFrame:
    import pandas as pd

    from simulator.accelerator import with_weight_rail
    from simulator.array.cycles import simulate
    from simulator.energy import energy, energy_table
    from simulator.operating_point import NOMINAL, weights_at

    machine = with_weight_rail(machine)
    volts, nominal = _supply(voltage)
    at = NOMINAL if volts is None else weights_at(machine, volts, nominal)
    counts = simulate(workload, machine)
    found = energy(counts, at, table=energy_table(table))
    frame = pd.concat([counts.frame(), found.frame().drop(columns="layer")], axis=1)
    shown = frame[["layer", "macs", "cycles", "stall_cycles", "utilization_pct"]].copy()
    shown["dram_bytes"] = frame[[name for name in frame.columns if "_dram_" in name]].sum(axis=1)
    for scope in ("weight_sram", "sram", "system"):
        shown[f"{scope}_uj"] = frame[f"scope_{scope}_pj"] / 1e6
    lowered = f", rail {machine.weight_buffer.rail} at {voltage}" if voltage else ""
    _print(shown, list(shown.columns), f"{workload.name} on {machine.name}{lowered}")
    seconds = counts.latency_s
    print(f"{seconds * 1e3:.4g} ms for {workload.batch * machine.batch} inference(s) at {machine.clock_hz / 1e6:g} MHz")
    if plots is not None:
        from simulator.plots import save_all

        for path in save_all(plots, counts, found):
            print(path)
    return frame


def _print(frame: pd.DataFrame, columns: list[str], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="left" if name == "layer" else "right", overflow="fold")
    for row in frame[columns].itertuples(index=False):
        cells = [f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
                 for value in row]  # fmt: skip
        table.add_row(*cells, style="bold" if row[0] == "total" else None)
    console = Console()
    Console(width=max(console.width, 150) if not console.is_terminal else None).print(table)


def _print_cells(workload: Workload, machine: Accelerator, where: str, schedule: str) -> None:
    """Bank, row and columns of the bits of one weight, for every time that it is in the memory."""
    from simulator.placement import first_weight, place
    from sram import paper
    from sram.geometry import Geometry

    name, _, text = where.rpartition(":")
    named = {layer.name: layer for layer in workload.layers if layer.weights}
    layer = named.get(name)
    if layer is None:
        raise InputError(LINE, "--where", where, f"LAYER:INDEX with a layer of: {', '.join(named)}")
    if not text.isdigit() or int(text) >= layer.weights:
        raise InputError(LINE, "--where", where, f"{name}:0 to {name}:{layer.weights - 1}")
    buffer = machine.weight_buffer
    geometry = Geometry.of_capacity(buffer.capacity_bytes, buffer.bank_rows, buffer.bank_columns, buffer.word_bits)
    if schedule == "paper":
        geometry = paper.GEOMETRY
    placement = place(workload, machine, geometry, schedule)
    first = first_weight(placement.tensors, layer)
    cells = [placement.locate(first + int(text), bit) for bit in range(placement.word_bits_per_weight)]
    print(f"{where}: bits 0 to {len(cells) - 1} of weight {first + int(text)} of the network, schedule {schedule}")
    for residency in range(len(cells[0])):
        row, _ = divmod(int(cells[0][residency]), geometry.columns)
        columns = ", ".join(str(int(cell[residency]) % geometry.columns) for cell in cells)
        print(f"residency {residency}: bank {row // geometry.rows}, row {row % geometry.rows}, columns {columns}")
