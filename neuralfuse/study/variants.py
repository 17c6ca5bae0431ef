"""Studies with variants: each is a study folder of its own below the results folder; one table joins them."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from neuralfuse.results.tables import read_table, to_csv
from neuralfuse.study.files import load_studies
from neuralfuse.study.folder import StudyFolder, check_empty
from sram.errors import InputError
from sram.files import write_atomic

STUDY = "variants.yaml"


def studies_of(path: Path, folder: Path) -> dict[str, StudyFolder]:
    """{name: its folder} of a study file; a study without variants has the name "" and the folder itself.

    InputError where `folder`, or the folder of a variant, is neither new nor theirs. Writes nothing.
    """
    studies = {name: StudyFolder(folder / name, study) for name, study in load_studies(path).items()}
    if "" not in studies:
        _check_top(studies, folder)
    for part in studies.values():
        part.check()
    return studies


def _check_top(studies: Iterable[str], folder: Path) -> None:
    """A folder of variants has no study of its own, and knows one of the variants at least."""
    if (folder / "study.yaml").is_file():
        other = StudyFolder.open(folder).study
        raise InputError(folder, "--out", "study.yaml", f"a folder of variants, not that of the study {other.name!r}")
    if not (folder / STUDY).is_file():
        check_empty(folder)
    elif not set(studies) & set(there := load_studies(folder / STUDY)):
        raise InputError(folder, "variants", ", ".join(studies), f"{', '.join(there)}, which are in this folder")


def claim(path: Path, folder: Path) -> dict[str, StudyFolder]:
    """`studies_of`; a folder of variants keeps the file that it was made from."""
    studies = studies_of(path, folder)
    if "" not in studies:
        write_atomic(folder / STUDY, Path(path).read_text(encoding="utf-8"))
    return studies


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
            table = read_table(path)
            table.insert(0, "variant", name)
            tables.append(table)
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    write_atomic(folder / "results.csv", to_csv(table))
    return table
