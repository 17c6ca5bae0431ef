"""`neuralfuse curve`."""

import typer

app = typer.Typer(help="Voltage to cell failure probability: list, show, fit.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Voltage to cell failure probability: list, show, fit."""
