"""Rows of results in a folder, append-only: one file of JSON lines per writing process, joined by key when read.

A process that is killed leaves at most one unfinished last line, which readers skip. Two processes in one folder never
write to the same file; where both did the same task, its two rows are equal and count once.
"""

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from sram.files import make_folder, sync_folder


@dataclass(frozen=True)
class Result:
    """What one task found. Counts add up; energies and cycles are per inference, and the same for all chips but where a
    protection gives each a supply of its own."""

    key: str
    network: str
    dataset: str
    accelerator: str
    curve: str
    structure: str
    protection: str
    voltage: float  # in the unit of the curve
    chip: int
    correct: int
    total: int
    correct_clean: int  # of the bare network without a fault, on the same images
    cell_fault_rate: float  # share of this chip's weight-SRAM cells that are faulty at this voltage
    flip_rate: float  # share of the stored weight bits that are read wrong
    energy_weight_sram_pj: float
    energy_sram_pj: float
    energy_system_pj: float
    saving_weight_sram: float  # share of the unprotected network's energy at nominal voltage, same scope
    saving_sram: float
    saving_system: float
    cycles: int
    seconds: float  # this task took so long; kept for estimates, not part of results.csv

    @property
    def accuracy(self) -> float:
        """Share of the images that were answered right."""
        return self.correct / self.total


COLUMNS = [name for name in Result.__dataclass_fields__ if name not in {"key", "seconds"}]
COLUMNS.insert(COLUMNS.index("correct_clean") + 1, "accuracy")


class Rows:
    """The finished rows in one folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._seen: dict[Path, int] = {}
        self._rows: dict[str, Result] = {}
        self._file: Path | None = None

    def read(self) -> dict[str, Result]:
        """All finished rows by key; only what was appended since the last call is parsed again."""
        for path in sorted(self._folder.glob("*.jsonl")):
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
            make_folder(self._folder)
            self._file = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
        new = not self._file.exists()
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            written = 0
            while written < len(lines):
                written += os.write(handle, lines[written:])
            os.fsync(handle)
            if new:
                sync_folder(self._folder)
        except OSError:
            self._file = None  # a half-written line must not be continued
            raise
        finally:
            os.close(handle)

    def frame(self, keys: Iterable[str]) -> pd.DataFrame:
        """The finished rows of these keys, in their order, with the columns of results.csv: the same keys give the same
        table, whoever computed them and in whichever order."""
        rows = self.read()
        found = [rows[key] for key in keys if key in rows]
        return pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in found], columns=COLUMNS)
