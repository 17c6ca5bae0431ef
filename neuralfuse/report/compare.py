"""Two studies side by side: the same headline, one column of each folder."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from neuralfuse import pareto
from neuralfuse.report.build import read_results


def compare(folders: Sequence[str | Path], scope: str = "weight_sram") -> pd.DataFrame:
    """Lowest supply and saving of every protection within each margin: a row each, columns for each folder."""
    tables = []
    for folder in folders:
        table = pareto.headline(read_results(folder), scope)
        table.insert(0, "study", str(folder))
        tables.append(table)
    every = pd.concat(tables, ignore_index=True)
    every["saving_pct"] = (100 * every.saving).round(1)
    every["voltage"] = every.voltage.round(3)
    wide = every.pivot_table(
        index=[*pareto.SETTING, "protection", "points"], columns="study", values=["voltage", "saving_pct"], sort=False
    )
    wide.columns = [f"{value} {study}" for value, study in wide.columns]
    return wide.reset_index()
