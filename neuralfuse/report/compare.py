"""Two studies side by side: the same headline, one column of each folder."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from neuralfuse.report.build import read_results
from neuralfuse.report.wording import saving, supply
from neuralfuse.results import pareto


def compare(folders: Sequence[str | Path], scope: str = "weight_sram") -> pd.DataFrame:
    """Lowest supply and saving (%) of every protection within each margin: a row each, columns for each folder, texts.

    `≤` where accuracy held down to the lowest swept voltage, `none swept` where it holds at no voltage, `no chip` where
    none was measured at every voltage, `-` for what a folder does not have.
    """
    columns = []
    for folder in dict.fromkeys(map(str, folders)):
        table = pareto.headline(read_results(folder), scope).set_index([*pareto.SETTING, "protection", "points"])
        rows = list(table.itertuples())
        columns.append(pd.Series([supply(row) for row in rows], table.index, name=f"voltage {folder}"))
        columns.append(pd.Series([saving(row) for row in rows], table.index, name=f"saving_pct {folder}"))
    wide = pd.concat([*columns[::2], *columns[1::2]], axis=1, sort=False).fillna("-")
    return wide.reset_index()
