"""Studies side by side: the same headline, one column of each folder; their fronts in one plot."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from neuralfuse.report import plots
from neuralfuse.report.wording import saving, supply
from neuralfuse.results import pareto
from neuralfuse.results.tables import read_results, read_table
from neuralfuse.study.folder import scale_at


def compare(folders: Sequence[str | Path], scope: str = "weight_sram") -> pd.DataFrame:
    """Lowest supply and saving (%) of every protection within each margin: a row each, columns for each folder, texts.

    `≤` where accuracy held down to the lowest swept voltage, `none swept` where it holds at no voltage, `no chip` where
    none was measured at every voltage, `-` for what a folder does not have.
    """
    columns = []
    for folder in dict.fromkeys(map(str, folders)):
        table = pareto.headline(read_results(folder), scope, scale=scale_at(folder)).set_index(
            [*pareto.SETTING, "protection", "points"]
        )
        rows = list(table.itertuples())
        columns.append(pd.Series([supply(row) for row in rows], table.index, name=f"voltage {folder}"))
        columns.append(pd.Series([saving(row) for row in rows], table.index, name=f"saving_pct {folder}"))
    wide = pd.concat([*columns[::2], *columns[1::2]], axis=1, sort=False).fillna("-")
    return wide.reset_index()


def draw(folders: Sequence[str | Path], scope: str = "weight_sram") -> list[Path]:
    """Fronts of folders that have been reported on, in one plot: plots/compared.* of the first; their paths."""
    tables = [read_table(Path(folder) / "summary.csv").assign(study=str(folder)) for folder in folders]
    together = pd.concat(tables, ignore_index=True)
    varying = [name for name in ("study", *pareto.SETTING[:-1]) if together[name].nunique() > 1]
    setting = [", ".join(row) for row in together[varying].itertuples(index=False)]
    figure = plots.settings_front(together.assign(setting=setting), scope, scale_at(folders[0]))
    return plots.save(figure, Path(folders[0]) / "plots", "compared")
