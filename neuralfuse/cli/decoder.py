"""`neuralfuse decoder`: what a transformer takes to read a prompt and to make tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuralfuse.cli.simulate import MACHINE, RESULT, Clock, Energies, Rails, clock_of, supplies_of
from neuralfuse.cli.study import Quiet
from neuralfuse.cli.tables import print_frame, print_line

RUN = "Run"


def decoder(
    network: Annotated[
        str, typer.Argument(metavar="NAME|FILE.yaml", help="A preset, or the sizes of a decoder; `list` names presets.")
    ],
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt.", rich_help_panel=RUN)] = 128,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens to make.", rich_help_panel=RUN)] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Sequences that run together.", rich_help_panel=RUN)] = 1,
    accelerator: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.yaml",
            help="With cache_buffer in its file, keys and values stay on the chip; else they are in DRAM.",
            rich_help_panel=MACHINE,
        ),
    ] = "paper",
    rail: Rails = None,
    clock: Clock = None,
    energy_table: Energies = "published",
    out: Annotated[Path | None, typer.Option(help="Both phases as CSV.", rich_help_panel=RESULT)] = None,
    layers: Annotated[
        Path | None, typer.Option(help="Layers of the prompt and of the last token as CSV.", rich_help_panel=RESULT)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Tokens a second and energy a token of a decoder-only transformer, for prompt and generation apart."""
    import pandas as pd

    from neuralfuse.analysis.generate import generate
    from neuralfuse.results.tables import to_csv
    from simulator.accelerator import accelerator as named
    from simulator.decoder import decoder as sizes_of
    from simulator.decoder import decoder_names
    from sram.files import write_atomic
    from sram.progress import steps

    if network == "list":
        found = [sizes_of(name) for name in decoder_names()]
        return print_frame(
            pd.DataFrame({"decoder": [d.name for d in found], "parameters": [d.parameters for d in found]}), "Decoders"
        )
    supplies = supplies_of(rail or [], None)
    machine = named(accelerator)
    with steps(quiet) as say:
        given = (prompt, tokens, batch, machine, supplies, clock_of(clock), energy_table)
        made = generate(network, *given, advance=say("tokens"))
    frame = made.frame()
    if out is not None:
        write_atomic(out, to_csv(frame))
    if layers is not None:
        parts = ((phase, run.frame()) for phase, run in (("prefill", made.prefill), ("decode", made.steps[-1])))
        write_atomic(layers, to_csv(pd.concat([f.assign(phase=phase) for phase, f in parts], ignore_index=True)))
    lowered = "".join(f", rail {name} at {supply}" for name, supply in supplies.items())
    print_frame(frame.drop(columns=["macs"]), f"{made.decoder.name} on {machine.name}{lowered}")
    where = "DRAM" if machine.cache_buffer is None else "cache_buffer"
    print_line(f"keys and values: {made.cache_bytes:,.0f} bytes in {where} at the last token")
