"""What is printed on stdout: names letter by letter; tables as wide as the terminal, and uncut where redirected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sram.names import printable

if TYPE_CHECKING:
    import pandas as pd


class _Plain(Console):
    """Texts in a table are data: no markup, no emoji, no control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def print_table(table: Table) -> None:
    """Print a table."""
    console = _Plain(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)


def print_frame(frame: pd.DataFrame, title: str) -> None:
    """Print a table of numbers under a title: four digits, the first column to the left, a row of totals bold."""
    from simulator.workload import TOTALS

    table = Table(title=title, title_justify="left", header_style="bold")
    for at, name in enumerate(frame.columns):
        table.add_column(name.replace("_", " "), justify="left" if at == 0 else "right", overflow="fold")
    for at, row in enumerate(frame.itertuples(index=False), start=1):
        cells = [f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
                 for value in row]  # fmt: skip
        table.add_row(*cells, style="bold" if at == len(frame) and row[0] in TOTALS else None)
    print_table(table)


def print_line(text: object) -> None:
    """Print a text in one line."""
    print(printable(text))


def print_lines(text: str) -> None:
    """Print a text line by line."""
    for line in text.split("\n"):
        print_line(line)
