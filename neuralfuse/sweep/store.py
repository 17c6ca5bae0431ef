"""Append-only results in a folder: one file of JSON lines per writing process, joined by task key when read.

A process that is killed leaves at most one unfinished last line, which readers skip. Two processes in one folder
never write to the
same file; where both did the same task, its two rows are equal and count once.
"""

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from neuralfuse.study.ownership import check_same, study_of
from neuralfuse.sweep.task import COLUMNS, Result, Task
from sram.files import write_atomic


class Store:
    """The rows of one results folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "rows"
        self._seen: dict[Path, int] = {}
        self._rows: dict[str, Result] = {}
        self._file: Path | None = None

    def read(self) -> dict[str, Result]:
        """All finished rows by key; only what was appended since the last call is parsed again."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._seen.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                block = file.read()
            end = block.rfind(b"\n") + 1
            for line in block[:end].splitlines():
                try:
                    row = Result(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # torn by a full disk or a killed process: its task is simply done again
                self._rows.setdefault(row.key, row)
            self._seen[path] = start + end
        return self._rows

    def append(self, results: Iterable[Result]) -> None:
        """Add rows in one write; they are on disk when this returns. A full disk raises OSError and loses no older
        row."""
        lines = "".join(json.dumps(asdict(row)) + "\n" for row in results).encode()
        if not lines:
            return
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            written = 0
            while written < len(lines):
                written += os.write(handle, lines[written:])
            os.fsync(handle)
        except OSError:
            self._file = None  # a half-written line must not be continued
            raise
        finally:
            os.close(handle)


def merge(sources: Iterable[str | Path], into: str | Path) -> int:
    """Copy the rows of other folders of one study that `into` does not have yet; returns how many came."""
    study = study_of(Path(into))
    store = Store(into)
    have = dict(store.read())
    fresh: dict[str, Result] = {}
    for source in sources:
        check_same(study_of(Path(source)), study, Path(into))
        for key, row in Store(source).read().items():
            if key not in have:
                fresh.setdefault(key, row)
    store.append(fresh.values())
    return len(fresh)


def frame(rows: dict[str, Result], tasks: Iterable[Task]) -> pd.DataFrame:
    """The finished rows of `tasks`, in their order, with the columns of results.csv."""
    found = [rows[task.key] for task in tasks if task.key in rows]
    return pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in found], columns=COLUMNS)


def write_results_csv(rows: dict[str, Result], tasks: Iterable[Task], folder: str | Path) -> Path:
    """Write results.csv: the same tasks give the same bytes, whoever computed them and in whichever order."""
    return write_atomic(Path(folder) / "results.csv", frame(rows, tasks).to_csv(index=False))
