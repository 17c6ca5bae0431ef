"""Tables on stdout: as wide as the terminal, and uncut where the output is redirected."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print a table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
