"""The tables of a results folder, read as they were written: a name is a text, whatever it spells."""

from pathlib import Path

import pandas as pd

# Columns of names in any of the tables; pandas would make numbers of `007`, and nothing of `None` and `NA`.
NAMES = (
    *("variant", "network", "dataset", "accelerator", "curve", "structure", "protection"),
    *("scope", "gain_in", "layer", "kind", "dataflow"),
)


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV table that `DataFrame.to_csv(index=False)` wrote; only an empty cell is missing."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(NAMES, str))
