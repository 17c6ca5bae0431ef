"""`neuralfuse simulate`, `place`, `trace`: a network on an accelerator, without faults."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from neuralfuse.cli.tables import print_frame, print_line
from sram.errors import InputError
from sram.names import printable

if TYPE_CHECKING:
    import pandas as pd

    from neuralfuse.analysis.simulate import Simulation
    from simulator.accelerator import Accelerator
    from simulator.energy import Scope
    from simulator.workload import Workload

WORKLOAD, MACHINE, RESULT = "Workload (one of)", "Accelerator (one of)", "Results"
LINE = "command line"
TOTALS: tuple[Scope, ...] = ("chip", "system")  # scopes of what is said of the whole inference
MOST = 1 << 24  # of an axis

Network = Annotated[
    str | None,
    typer.Option(help="Built-in network or generator, or package.module:callable.", rich_help_panel=WORKLOAD),
]
Model = Annotated[Path | None, typer.Option(help="File: .onnx or .pt2.", rich_help_panel=WORKLOAD)]
Topology = Annotated[Path | None, typer.Option(help="SCALE-Sim topology (.csv).", rich_help_panel=WORKLOAD)]
Input = Annotated[
    str | None,
    typer.Option(
        metavar="CxHxW",
        help="Shape of one sample: 3x32x32; 128:int of whole numbers; 128:int,3x8 of two inputs.",
        rich_help_panel=WORKLOAD,
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Samples that run together.", rich_help_panel=WORKLOAD)]
Machine = Annotated[str | None, typer.Option(metavar="NAME|FILE.yaml", help="Default: paper.", rich_help_panel=MACHINE)]
ScalesimConfig = Annotated[
    Path | None, typer.Option(metavar="FILE.cfg", help="SCALE-Sim configuration.", rich_help_panel=MACHINE)
]
Rails = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RAIL=SUPPLY",
        help="Supply of a rail, or of weights, activations, accumulators, cache; again for another.",
        rich_help_panel=MACHINE,
    ),
]
Clock = Annotated[
    str | None,
    typer.Option(metavar="follow|HZ", help="As fast as all supplies allow, or so fast.", rich_help_panel=MACHINE),
]
Energies = Annotated[
    str, typer.Option(metavar="NAME|FILE.yaml", help="Energies of the components.", rich_help_panel=MACHINE)
]
Schedule = Annotated[str, typer.Option(help="streamed, resident or paper.")]
TILES = "Tiles and loop order of each layer: search, fixed (no tiles), or a YAML file. Default: the accelerator's."
Tiles = Annotated[str | None, typer.Option(metavar="search|fixed|FILE.yaml", help=TILES)]


def simulate(
    network: Network = None,
    model: Model = None,
    topology: Topology = None,
    input: Input = None,
    batch: Batch = 1,
    accelerator: Machine = None,
    scalesim_config: ScalesimConfig = None,
    voltage: Annotated[
        str | None,
        typer.Option(
            help="Short for --rail weights=SUPPLY: 0.7V, or 0.83Vmin of its nominal.", rich_help_panel=MACHINE
        ),
    ] = None,
    rail: Rails = None,
    clock: Clock = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Inferences a second, with leakage between them.", rich_help_panel=MACHINE),
    ] = None,
    energy_table: Energies = "published",
    compat: Annotated[
        str | None,
        typer.Option(metavar="scalesim", help="Count as SCALE-Sim v3 does, quirk for quirk.", rich_help_panel=RESULT),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Print only so many layers, those of most energy first.", rich_help_panel=RESULT),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="layer|block", help="Print rows of layers, or of blocks.", rich_help_panel=RESULT)
    ] = "layer",
    out: Annotated[Path | None, typer.Option(help="All columns as CSV.", rich_help_panel=RESULT)] = None,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Energy and cycles of each layer, roofline.", rich_help_panel=RESULT),
    ] = None,
    where: Annotated[str | None, typer.Option(hidden=True)] = None,
    trace: Annotated[str | None, typer.Option(hidden=True)] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="search|fixed|FILE.yaml", help=TILES, rich_help_panel=MACHINE)
    ] = None,
    save_schedule: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write the schedule of each layer.", rich_help_panel=RESULT)
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Exit with 0, not 3, if operators are not counted.", rich_help_panel=RESULT
        ),
    ] = False,
) -> None:
    """Cycles, memory accesses and energy of a network on an accelerator, per layer.

    Counts are those of the whole batch, energies those of one inference.
    """
    if compat not in (None, "scalesim"):
        raise InputError(LINE, "--compat", compat, "scalesim")
    if by not in ("layer", "block"):
        raise InputError(LINE, "--by", by, "layer, block")
    _check_modes(
        {"--where": where, "--trace": trace, "--compat": compat},
        {
            "--voltage": voltage,
            "--rail": rail,
            "--clock": clock,
            "--rate": rate is not None,
            "--plots": plots,
            "--energy-table": energy_table != "published",
            "--top": top,
        }
        | {"--by": by == "block"},
        {"--out": out, "--schedule": schedule, "--save-schedule": save_schedule},
    )
    machine = _machine(accelerator, scalesim_config, compat is not None)
    workload = _workload(network, model, topology, input, batch)
    if where is not None:
        _moved("--where", "place LAYER:INDEX")
        return _print_cells(workload, machine, where, schedule or "streamed", None)
    if trace is not None:
        _moved("--trace", "trace LAYER FILE")
        named = (layer.name for layer in workload.layers if trace.startswith(f"{layer.name}:"))
        name = max(named, key=len, default=trace.partition(":")[0])  # there may be colons in names
        return _write_trace(workload, machine, name, Path(trace[len(name) + 1 :]), None)
    for entry in workload.unknown:
        print(f"not counted: {printable(entry)}", file=sys.stderr)
    if not workload.layers:
        raise InputError(LINE, "workload", workload.name, "a network with an operator that is counted")
    if compat:
        from simulator.compat import scalesim

        frame = scalesim.simulate(workload, machine)
        show = partial(print_frame, frame, f"{workload.name} on {machine.name}, as SCALE-Sim counts")
    else:
        from neuralfuse.analysis.simulate import simulate as count

        supplies = supplies_of(rail or [], voltage)
        given = partial(count, voltage=supplies, clock=clock_of(clock), table=energy_table)
        found = given(workload, accelerator=machine, schedule=schedule)
        idle = None if rate is None else (rate, found.idle_pj(rate))
        frame = found.frame()
        if save_schedule is not None:
            from simulator.array.schedule import save

            save(found.counts.plan, save_schedule)
        lowered = "".join(f", rail {name} at {supply}" for name, supply in supplies.items())
        show = partial(_draw_and_print, found, lowered, plots, (by, top), idle)
    if out is not None:
        from neuralfuse.results.tables import to_csv
        from sram.files import write_atomic

        write_atomic(out, to_csv(frame))
    show()
    if workload.unknown and not allow_partial:
        raise typer.Exit(3)


def supplies_of(texts: list[str], voltage: str | None) -> dict[str, str]:
    """Supplies by rail; `voltage` is that of the weights."""
    found: dict[str, str] = {} if voltage is None else {"weights": voltage}
    for text in texts:
        name, equals, supply = text.partition("=")
        if name == "weights" and voltage is not None:
            raise InputError(LINE, "--voltage", voltage, "only one of it and --rail weights")
        if not (name and equals and supply) or name in found:
            raise InputError(LINE, "--rail", text, "RAIL=SUPPLY, each rail once: weights=0.83Vmin, logic=0.72V")
        found[name] = supply
    return found


def clock_of(text: str | None) -> float | Literal["follow"] | None:
    """Of an option: None, follow, or Hz. InputError for anything else."""
    if text is None or text == "follow":
        return cast(Literal["follow"] | None, text)
    try:
        return float(text)
    except ValueError:
        raise InputError(LINE, "--clock", text, "follow, or a number of Hz") from None


def _check_modes(modes: Mapping[str, object], energies: Mapping[str, object], others: Mapping[str, object]) -> None:
    """What is given and would not be used is a mistake."""
    mode = next((option for option, value in modes.items() if value), None)
    unused = {
        None: {},
        "--where": {**energies, "--compat": modes["--compat"], "--trace": modes["--trace"], "--out": others["--out"]},
        "--trace": {**energies, "--compat": modes["--compat"], **others},
        "--compat": {**energies, **{key: value for key, value in others.items() if key != "--out"}},
    }[mode]
    for option, value in unused.items():
        if value:
            allowed = f"not with {mode}, which does not use it"
            raise InputError(LINE, option, str(value), allowed)


def place(
    weight: Annotated[str, typer.Argument(metavar="LAYER:INDEX", help="Which weight of the layer, from 0.")],
    network: Network = None,
    model: Model = None,
    topology: Topology = None,
    input: Input = None,
    accelerator: Machine = None,
    scalesim_config: ScalesimConfig = None,
    schedule: Schedule = "streamed",
    tiles: Tiles = None,
) -> None:
    """Which cells hold a weight: bank, row and columns, for every time that it is in the weight memory."""
    machine = _machine(accelerator, scalesim_config)
    _print_cells(_workload(network, model, topology, input, 1), machine, weight, schedule, tiles)


def trace(
    layer: Annotated[str, typer.Argument(help="Name of a layer, as `neuralfuse simulate` prints it.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet|FILE.csv", help="What to write.")],
    network: Network = None,
    model: Model = None,
    topology: Topology = None,
    input: Input = None,
    batch: Batch = 1,
    accelerator: Machine = None,
    scalesim_config: ScalesimConfig = None,
    tiles: Tiles = None,
) -> None:
    """Write which element passes which port of the array in which cycle, for one layer."""
    machine = _machine(accelerator, scalesim_config)
    _write_trace(_workload(network, model, topology, input, batch), machine, layer, file, tiles)


def _moved(option: str, command: str) -> None:
    """Old spellings go with the next release."""
    print(
        f"neuralfuse: simulate {option} is now `neuralfuse {command}`; it goes with the next release", file=sys.stderr
    )


def _machine(accelerator: str | None, scalesim_config: Path | None, compat: bool = False) -> Accelerator:
    from simulator.accelerator import accelerator as named
    from simulator.accelerator import scalesim_config as read

    if scalesim_config is None:
        return named(accelerator or "paper")
    if accelerator is not None:
        raise InputError(LINE, "--accelerator", accelerator, "only one of --accelerator and --scalesim-config")
    return read(scalesim_config, user_bandwidth=not compat)


def _workload(
    network: str | None, model: Path | None, topology: Path | None, shape: str | None, batch: int
) -> Workload:
    from neuralfuse.analysis.simulate import workload_of

    given = {"--network": network, "--model": model, "--topology": topology}
    named = [(option, value) for option, value in given.items() if value is not None]
    if len(named) != 1:
        text = ", ".join(option for option, _ in named) or None
        raise InputError(LINE, "workload", text, "exactly one of --network, --model, --topology")
    if topology is not None and topology.suffix != ".csv":
        raise InputError(LINE, "--topology", str(topology), "a .csv file")
    return workload_of(named[0][1], None if shape is None else _shapes(shape), batch)


def _shapes(text: str) -> list[tuple[int, ...]]:
    """Of each input, in their order."""
    from simulator.readers.read import Integers
    from simulator.userfile import whole

    found = []
    for shape in text.lower().split(","):
        sizes = [whole(part, MOST) for part in shape.removesuffix(":int").split("x")]
        if None in sizes:
            raise InputError(LINE, "--input", text, "whole numbers with x between them: 3x32x32, 128:int, 3x8,128:int")
        kind = Integers if shape.endswith(":int") else tuple
        found.append(kind(size for size in sizes if size))
    return found


def _draw_and_print(
    found: Simulation, lowered: str, plots: Path | None, rows: tuple[str, int | None], idle: tuple[float, float] | None
) -> None:
    workload, machine, frame = found.counts.workload, found.counts.accelerator, found.frame()
    drawn: list[Path] = []
    if plots is not None:
        from simulator.plots import save_all

        drawn = save_all(plots, found.counts, found.energy)
    shown = frame[["layer", "schedule", "macs", "cycles", "stall_cycles", "utilization_pct"]].copy()
    shown["dram_bytes"] = frame[[name for name in frame.columns if "_dram_" in name]].sum(axis=1)
    for scope in ("weight_sram", "sram", "chip", "system"):
        shown[f"{scope}_uj"] = frame[f"scope_{scope}_pj"] / 1e6
    by, top = rows
    if by == "block" or machine.schedule == "fixed":
        shown = shown.drop(columns="schedule")
    if by == "block":
        shown = _blocks(shown)
    if top is not None:
        most = shown[:-1].nlargest(top, "system_uj").index
        shown = shown.loc[[*most, shown.index[-1]]]
    print_frame(shown, f"{workload.name} on {machine.name}{lowered}")
    _print_summary(found, idle)
    for path in drawn:
        print_line(path)


def _print_summary(found: Simulation, idle: tuple[float, float] | None) -> None:
    """Time, and energy with time; `idle`: inferences a second, and pJ that leak between two of them."""
    from simulator.timing import beyond_data

    workload, machine, spent = found.counts.workload, found.counts.accelerator, found.energy
    samples = workload.batch * machine.batch
    print(f"{spent.seconds * samples * 1e3:.4g} ms for {samples} inference(s) at {found.clock_hz / 1e6:.4g} MHz")
    products = ", ".join(f"{scope} {spent.energy_delay_pj_s(scope) * 1e-12:.4g}" for scope in TOTALS)
    print(f"{1 / spent.seconds:.4g} inferences/s; energy-delay product in J s: {products}")
    if idle is not None:
        rate, pj = idle
        each = ", ".join(f"{scope} {(spent.scope_pj(scope) + pj) / 1e6:.4g}" for scope in TOTALS)
        state = "no rail lowered" if machine.retention_v is None else f"logic off, buffers at {machine.retention_v:g} V"
        print(f"at {rate:g} inferences/s, with {pj / 1e6:.4g} uJ of leakage between two ({state}), in uJ: {each}")
    if found.at.clock_hz == "follow" and beyond_data(machine, found.at):
        print("the clock is a guess: the logic's supply lies below all data on its delay")


def _blocks(shown: pd.DataFrame) -> pd.DataFrame:
    """Layers summed up by block, which is what their names have before the last dot; the totals stay last."""
    import pandas as pd

    layers, totals = shown[:-1], shown[-1:]
    block = [name.rpartition(".")[0] or name for name in layers.layer]
    busy = layers.utilization_pct * layers.cycles
    summed = layers.assign(layer=block, utilization_pct=busy).groupby("layer", sort=False, as_index=False).sum()
    summed["utilization_pct"] /= summed.cycles.clip(lower=1)
    return pd.concat([summed, totals], ignore_index=True)


def _print_cells(workload: Workload, machine: Accelerator, weight: str, schedule: str, tiles: str | None) -> None:
    """Bank, row and columns of the bits of one weight, for every time that it is in the memory."""
    from neuralfuse.analysis.simulate import scheduled
    from simulator.placement import first_weight, place
    from sram import paper
    from sram.geometry import Geometry

    name, _, text = weight.rpartition(":")
    named = {layer.name: layer for layer in workload.layers if layer.weights}
    layer = named.get(name)
    if layer is None:
        raise InputError(LINE, "weight", weight, f"LAYER:INDEX with a layer of: {', '.join(named)}")
    if not text.isdigit() or int(text) >= layer.weights:
        raise InputError(LINE, "weight", weight, f"{name}:0 to {name}:{layer.weights - 1}")
    buffer = machine.weight_buffer
    own = Geometry.of_capacity(buffer.capacity_bytes, buffer.bank_rows, buffer.bank_columns, buffer.word_bits)
    geometry = replace(own, banks=machine.cores * own.banks)
    if schedule == "paper":
        geometry = paper.GEOMETRY
    machine, plan = scheduled(machine, tiles)
    placement = place(workload, machine, geometry, schedule, plan=plan)
    first = first_weight(placement.tensors, layer)
    cells = [placement.locate(first + int(text), bit) for bit in range(placement.bits)]
    print_line(
        f"{weight}: bits 0 to {len(cells) - 1} of weight {first + int(text)} of the network, schedule {schedule}"
    )
    for residency in range(len(cells[0])):
        row, _ = divmod(int(cells[0][residency]), geometry.columns)
        columns = ", ".join(str(int(cell[residency]) % geometry.columns) for cell in cells)
        core = f"core {row // geometry.rows // own.banks}, " if machine.cores > 1 else ""
        print(f"residency {residency}: {core}bank {row // geometry.rows}, row {row % geometry.rows}, columns {columns}")


def _write_trace(workload: Workload, machine: Accelerator, name: str, file: Path, tiles: str | None) -> None:
    from neuralfuse.analysis.simulate import scheduled
    from simulator.array import traces
    from simulator.array.cycles import plan_of

    layers = {layer.name: layer for layer in workload.array_layers}
    if name not in layers:
        raise InputError(LINE, "layer", name, "one of " + ", ".join(layers))
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(LINE, "file", str(file), "a name that ends in .parquet or .csv")
    machine, plan = scheduled(machine, tiles)
    plan = plan or plan_of(workload, machine)
    print_line(f"{traces.write(layers[name], machine, file, plan)} events in {file}")
