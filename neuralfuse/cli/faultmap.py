"""`neuralfuse faultmap`."""

import typer

app = typer.Typer(help="Persistent fault maps: make, info, show, import, export, compare.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Persistent fault maps: make, info, show, import, export, compare."""
