"""What is printed on stdout: names letter by letter; tables as wide as the terminal, and uncut where redirected."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sram.names import printable


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


def print_line(text: object) -> None:
    """Print a text in one line."""
    print(printable(text))


def print_lines(text: str) -> None:
    """Print a text line by line."""
    for line in text.split("\n"):
        print_line(line)
