"""Progress bars: one line for each long step; plain lines where the output is not a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sram.names import printable

Advance = Callable[[int, int, dict[str, float]], None]


@contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[str], Advance]]:
    """Yields `say(title)`, which starts a bar on stderr and returns its `advance(done, total, figures)`.

    `quiet`: nothing is shown.
    """
    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        yield _plain
        return
    columns = (
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def say(title: str) -> Advance:
            bar = progress.add_task(printable(title), total=None, figures="")

            def advance(done: int, total: int, figures: dict[str, float] | None = None) -> None:
                text = "  ".join(f"{name} {value:.3g}" for name, value in (figures or {}).items())
                progress.update(bar, completed=done, total=total, figures=text)

            return advance

        yield say


def silent(title: str) -> Advance:
    """As `say`: nothing is shown."""
    return lambda done, total, figures: None


def _plain(title: str) -> Advance:
    """A line at the start, every 10 seconds, and at the end."""
    title = printable(title)
    print(f"{title} ...", file=sys.stderr, flush=True)
    last = time.monotonic()

    def advance(done: int, total: int, figures: dict[str, float] | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 10:
            last = now
            text = "  ".join(f"{name} {value:.3g}" for name, value in (figures or {}).items())
            print(f"{title}: {done}/{total} {text}".rstrip(), file=sys.stderr, flush=True)

    return advance
