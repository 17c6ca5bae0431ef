"""Studies with variants: each is a study folder of its own below the results folder; one table joins them."""

from pathlib import Path

import pandas as pd

from neuralfuse.config import load_studies
from sram.files import write_atomic

STUDY = "variants.yaml"


def claim(path: Path, folder: Path) -> dict[str, tuple]:
    """{name: (study, its folder)} of a study file; a study without variants has the name "" and the folder itself.

    A folder of variants keeps the file that it was made from.
    """
    studies = load_studies(path)
    if "" in studies:
        return {"": (studies[""], folder)}
    write_atomic(folder / STUDY, Path(path).read_text(encoding="utf-8"))
    return {name: (study, folder / name) for name, study in studies.items()}


def folders(folder: Path) -> dict[str, Path]:
    """Study folders in a results folder by name of variant; {"": folder} where there are no variants."""
    if not (folder / STUDY).is_file():
        return {"": folder}
    return {name: folder / name for name in load_studies(folder / STUDY)}


def join(folder: Path) -> pd.DataFrame | None:
    """Write the results of all variants into one results.csv, `variant` its first column; None before there are any."""
    tables = []
    for name, part in folders(folder).items():
        path = part / "results.csv"
        if name and path.is_file():
            table = pd.read_csv(path)
            table.insert(0, "variant", name)
            tables.append(table)
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    write_atomic(folder / "results.csv", table.to_csv(index=False))
    return table
