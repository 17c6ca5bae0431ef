"""The tables of a results folder, read as they were written: a name is a text, whatever it spells."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from neuralfuse.results.rows import COLUMNS, possible
from neuralfuse.results.scale import ACCURACY
from sram.errors import InputError

# Columns of names in any of the tables; pandas would make numbers of `007`, and nothing of `None` and `NA`.
NAMES = (
    *("variant", "network", "dataset", "metric", "accelerator", "curve", "rails", "structure", "protection"),
    *("scope", "gain_in", "layer", "kind", "dataflow", "name", "rail", "component", "point"),
)
FORMULA = r"'*[=+\-@\t\r]"  # what a spreadsheet computes, behind any apostrophes


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV. A name that a spreadsheet would take for a formula gets an apostrophe before it.

    >>> print(to_csv(pd.DataFrame({"layer": ["=1+1", "conv"], "change": [-1, 2]})), end="")
    layer,change
    '=1+1,-1
    conv,2
    """
    table = _renamed(table, FORMULA, lambda name: f"'{name}")
    returns = any("\r" in str(text) for name in _names(table) for text in [name, *table[name].unique()])
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV table that `to_csv` wrote; only an empty cell is missing. InputError for what is none."""
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(NAMES, str))
    except FileNotFoundError:
        raise InputError(path, "table", "missing", "one that a sweep wrote") from None
    except (OSError, ValueError) as error:  # of pandas and of the encoding
        raise InputError(path, "table", str(error).strip()[:200], "a CSV table as a sweep wrote it") from None
    return _renamed(table, f"'{FORMULA}", lambda name: name[1:])


def read_results(folder: str | Path) -> pd.DataFrame:
    """results.csv of a folder."""
    path = Path(folder) / "results.csv"
    if not path.is_file():
        raise InputError(folder, "results", path.name, "a folder filled by `neuralfuse sweep`")
    results = read_table(path)
    if "metric" not in results:  # written before there was another
        results["metric"] = ACCURACY.name
    if missing := [name for name in COLUMNS if name not in results]:
        raise InputError(path, "column", missing[0], "a table with it, as `neuralfuse sweep` writes it")
    if results.empty:
        raise InputError(path, "rows", 0, "at least one finished task; run the sweep first")
    _check_values(results, path)
    return results


def _check_values(results: pd.DataFrame, path: Path) -> None:
    """Refuse the first value that no task can have had."""
    again = "what a task can have found; `neuralfuse sweep` writes the table anew from rows/"
    numbers = [name for name in COLUMNS if name not in NAMES]
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(results[name]):
            bad = results[name][pd.to_numeric(results[name], errors="coerce").isna()]
            raise InputError(path, name, bad.iloc[0] if len(bad) else results[name].iloc[0], again)
    found = results.clean_accuracy + (results.correct - results.correct_clean) / results.total
    off = (results.accuracy - found).abs() > 1e-9
    for name, fine in (possible(results) | {"accuracy": ~off}).items():
        if not fine.all():
            raise InputError(path, name, results[name][~fine].iloc[0].item(), again)


def _names(table: pd.DataFrame) -> list[str]:
    return [column for column in NAMES if column in table]


def _renamed(table: pd.DataFrame, pattern: str, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with the names changed that begin so."""
    changed = {}
    for column in _names(table):
        found = {name: change(name) for name in table[column].unique() if re.match(pattern, str(name))}
        if found:
            changed[column] = table[column].map(lambda name, found=found: found.get(name, name))
    return table.assign(**changed)
