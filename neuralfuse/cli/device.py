"""`neuralfuse device`."""

import typer

app = typer.Typer(help="Chips in the loop: serve, characterize.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Chips in the loop: serve, characterize."""
