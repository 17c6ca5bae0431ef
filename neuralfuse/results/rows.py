"""Rows of results in a folder, append-only: one file of JSON lines per writing process, joined by key when read.

A process that is killed leaves at most one unfinished last line, which readers skip. Two processes in one folder never
write to the same file; where both did the same task, its two rows are equal and count once. A row that cannot be, for
the file was damaged, does not count: its task is done again.
"""

import itertools
import json
import math
import os
import uuid
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from neuralfuse.results.scale import ACCURACY
from sram.files import make_folder, sync_folder
from sram.locks import Claims

ALONE = "weights alone"  # `rails` of a point at which nothing else is lowered


@dataclass(frozen=True)
class Result:
    """What one task found. Counts are of the images that it measured, all of the test set or a sample, and add up;
    energies and cycles are per inference, and the same for all chips but where a protection gives each a supply of its
    own.

    Of another `metric` than accuracy `correct` and its like are sums of scores, of which more is better (an error
    counts against them), in whole steps of `quantized.metric.STEP`; and `total` counts what has a score of its own:
    items, or their positions."""

    key: str
    network: str
    dataset: str
    accelerator: str
    curve: str
    rails: str  # what the operating point does beside the supply of the weights
    structure: str
    protection: str
    voltage: float  # of the weight memory, in the unit of its curve
    voltage_activations: float  # of the input buffer, in the unit of its curve
    voltage_accumulators: float  # of the output buffer
    voltage_logic: float  # in the unit of the weight memory's curve
    chip: int
    correct: float  # whole, of accuracy
    total: int
    correct_clean: float  # of the bare network without a fault, on the same images
    correct_both: float  # with the chip's faults and without one: sum of the lesser score of each
    test_images: int  # of the whole test set, counted as `total` is
    clean_accuracy: float  # of the bare network without a fault on all of them
    cell_fault_rate: float  # share of this chip's weight-SRAM cells that are faulty at this voltage
    flip_rate: float  # share of the stored weight bits that are read wrong
    cell_fault_rate_activations: float  # of the buffers of activations; 0 if no rail of theirs is named
    energy_weight_sram_pj: float
    energy_sram_pj: float
    energy_chip_pj: float
    energy_system_pj: float
    saving_weight_sram: float  # share of the unprotected network's energy at nominal voltage, same scope
    saving_sram: float
    saving_chip: float
    saving_system: float
    cycles: int
    clock_hz: float
    inference_s: float  # of the accelerator, at this clock
    seconds: float  # this task took so long; kept for estimates, not part of results.csv
    metric: str = ACCURACY.name  # as the study names it

    @property
    def accuracy(self) -> float:
        """Share of the test set that is answered right. Of a sample: the clean accuracy less what the sample lost, for
        how hard its images are then cancels (a difference estimator: Cochran, Sampling Techniques, 1977, section 7)."""
        return self.correct / self.total + (self.clean_accuracy - self.correct_clean / self.total)

    @property
    def inferences_per_s(self) -> float:
        """Of the accelerator, one after the other."""
        return 1 / self.inference_s if self.inference_s else math.inf

    @property
    def energy_delay_chip_pj_s(self) -> float:
        """Energy of an inference at the scope `chip` times its time."""
        return self.energy_chip_pj * self.inference_s


FIELDS = Result.__dataclass_fields__
ABOUT = tuple(FIELDS)[1 : list(FIELDS).index("chip") + 1]  # one chip at one point
COUNTS = ("correct", "total", "correct_clean", "correct_both")
SHARES = ("cell_fault_rate", "flip_rate", "cell_fault_rate_activations")
AMOUNTS = (
    *("chip", "cycles", "clock_hz", "inference_s"),
    *("energy_weight_sram_pj", "energy_sram_pj", "energy_chip_pj", "energy_system_pj"),
)


def possible(rows: Any) -> dict[str, Any]:
    """By field, whether the values of a `Result`, or of a table of them, are within their range."""
    other = rows.metric != ACCURACY.name  # whose scores may be any numbers
    answers = ("correct", "correct_clean")
    counted = {name: other | (0 <= getattr(rows, name)) & (getattr(rows, name) <= rows.total) for name in answers}
    counted |= {name: counted[name] & (abs(getattr(rows, name)) < math.inf) for name in answers}
    both = (rows.correct_both <= rows.correct) & (rows.correct_both <= rows.correct_clean)
    counted["correct_both"] = both & (other | (rows.correct_both >= rows.correct + rows.correct_clean - rows.total))
    clean = rows.clean_accuracy
    counted["clean_accuracy"] = (abs(clean) < math.inf) & (other | (0 <= clean) & (clean <= 1))
    shares = {name: (0 <= getattr(rows, name)) & (getattr(rows, name) <= 1) for name in SHARES}
    amounts = {name: (0 <= getattr(rows, name)) & (getattr(rows, name) < math.inf) for name in AMOUNTS}
    return {"total": rows.total >= 1, "test_images": rows.test_images >= rows.total, **counted, **shares, **amounts}


def added(rows: Sequence[Result]) -> Result:
    """Samples of one chip at one point as one: counts and times add up, the rest is a mean over images."""
    if len(rows) == 1:
        return rows[0]
    found: dict[str, Any] = {}
    for name in FIELDS:
        values = [getattr(row, name) for row in rows]
        if name in COUNTS or name == "seconds":
            found[name] = sum(values)
        elif name != "key" and len(set(values)) > 1:  # as what a check finds wrong costs
            mean = sum(row.total * value for row, value in zip(rows, values, strict=True)) / sum(r.total for r in rows)
            found[name] = round(mean) if FIELDS[name].type is int else mean
    return replace(rows[0], **found)


def _sound(row: Result) -> bool:
    """Whether a row that was read has the types of its fields, and values within their range."""
    kinds = {str: (str,), int: (int,), float: (int, float)}
    typed = all(type(getattr(row, name)) in kinds[field.type] for name, field in FIELDS.items())  # type: ignore[index]
    return typed and all(possible(row).values())


SUM = b', "crc32": "01234567"}'  # the end of a line: by it a digit that changed on a disk is noticed


def _sum(body: bytes) -> bytes:
    return b', "crc32": "%08x"}' % zlib.crc32(body)


COLUMNS = [name for name in FIELDS if name not in {"key", "seconds"}]
COLUMNS.insert(COLUMNS.index("clean_accuracy"), "accuracy")
COLUMNS += ["inferences_per_s", "energy_delay_chip_pj_s"]


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
                    values, crc = json.loads(line), line[-len(SUM) :]
                    del values["crc32"]
                    row = Result(**values)
                except (ValueError, TypeError, KeyError):
                    continue  # torn by a full disk or a killed process: its task is simply done again
                if crc == _sum(line[: -len(SUM)]) and _sound(row):
                    self._rows.setdefault(row.key, row)
                else:
                    warnings.warn(f"{path}: a row that was not written so is not counted: {line[:200]!r}", stacklevel=2)
            self._seen[path] = start + end
        return self._rows

    def append(self, results: Iterable[Result]) -> None:
        """Add rows in one write; they are on disk when this returns. A full disk raises OSError and loses no older
        row."""
        bodies = (json.dumps(asdict(row)).encode()[:-1] for row in results)
        lines = b"".join(body + _sum(body) + b"\n" for body in bodies)
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

    def claims(self) -> Claims:
        """By which processes share what is still to do."""
        return Claims(self._folder / ".claims")

    def frame(self, keys: Iterable[str]) -> pd.DataFrame:
        """The finished rows of these keys, in their order, with the columns of results.csv; samples of a chip at a
        point, which follow each other, as one. The same keys give the same table, whoever computed them and in
        whichever order."""
        rows = self.read()
        every = [rows[key] for key in keys if key in rows]
        found = [added(list(same)) for _, same in itertools.groupby(every, attrgetter(*ABOUT))]
        return pd.DataFrame([{name: getattr(row, name) for name in COLUMNS} for row in found], columns=COLUMNS)
