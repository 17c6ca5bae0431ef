"""`neuralfuse networks`, `accelerator`, `version`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

networks = typer.Typer(help="Built-in networks: list.", no_args_is_help=True)
accelerator = typer.Typer(help="Accelerators: list, show.", no_args_is_help=True)


@networks.callback()
def networks_group() -> None:
    """Built-in networks: list."""


@networks.command("list")
def list_networks() -> None:
    """The names that a study and `neuralfuse simulate --network` know, with parameters for their own inputs."""
    import torch
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from neuralfuse.networks import build, names

    table = Table("network", "parameters", box=None, pad_edge=False)
    with torch.device("meta"):  # shapes without memory
        for name in names():
            table.add_row(name, f"{sum(p.numel() for p in build(name).parameters()):,}")
    print_table(table)


@accelerator.callback()
def accelerator_group() -> None:
    """Accelerators: list, show."""


@accelerator.command("list")
def list_accelerators() -> None:
    """The presets."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from simulator.accelerator import accelerator, accelerator_names

    table = Table("accelerator", "array", "dataflow", "weight buffer", "clock", "node", box=None, pad_edge=False)
    for name in accelerator_names():
        a = accelerator(name)
        size = f"{a.weight_buffer.capacity_bytes / 1024:g} KiB"
        array = f"{a.array_rows} x {a.array_cols}"
        table.add_row(name, array, a.dataflow, size, f"{a.clock_hz / 1e6:g} MHz", f"{a.node_nm:g} nm")
    print_table(table)


@accelerator.command("show")
def show_accelerator(name: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml")]) -> None:
    """Every key of an accelerator's file: its value here, its default, what it means."""
    from rich.table import Table

    from neuralfuse.cli.tables import print_table
    from simulator.accelerator import accelerator
    from simulator.keys import meanings

    table = Table("key", "value", "default", "meaning", box=None, pad_edge=False)
    for row in meanings(accelerator(name)):
        table.add_row(*row)
    print_table(table)


def version() -> None:
    """The version, and those of what results depend on."""
    import platform
    from importlib.metadata import version

    from neuralfuse.study.digest import RESULTS_VERSION

    print(f"neuralfuse {version('neuralfuse-sim')}, results version {RESULTS_VERSION}")
    print(f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("torch", "numpy", "numba")))
