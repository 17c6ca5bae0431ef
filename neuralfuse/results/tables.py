"""The tables of a results folder, read as they were written: a name is a text, whatever it spells."""

from pathlib import Path

import pandas as pd

from sram.errors import InputError

# Columns of names in any of the tables; pandas would make numbers of `007`, and nothing of `None` and `NA`.
NAMES = (
    *("variant", "network", "dataset", "accelerator", "curve", "structure", "protection"),
    *("scope", "gain_in", "layer", "kind", "dataflow"),
)


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV table that `DataFrame.to_csv(index=False)` wrote; only an empty cell is missing. InputError for what is
    none."""
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(NAMES, str))
    except FileNotFoundError:
        raise InputError(path, "table", "missing", "one that a sweep wrote") from None
    except (OSError, ValueError) as error:  # of pandas and of the encoding
        raise InputError(path, "table", str(error).strip()[:200], "a CSV table as a sweep wrote it") from None
