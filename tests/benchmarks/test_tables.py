"""Do the committed tables say what the committed rows say?"""

from pathlib import Path

import pytest

from benchmarks import tables
from neuralfuse.report import plots

FILES = sorted(path for path in tables.RESULTS.glob("**/*") if path.name in ("table.md", "rows.csv"))


@pytest.mark.parametrize("name", tables.FOLDERS)
def test_a_table_follows_from_its_rows(name, monkeypatch):
    written: dict[str, str] = {}
    pictures: set[Path] = set()
    monkeypatch.setattr(tables, "write_atomic", lambda path, text: written.update({path.name: text}))
    monkeypatch.setattr(plots, "save", lambda figure, folder, name: pictures.add(folder / f"{name}.svg"))
    folder = tables.RESULTS / name
    assert tables.FOLDERS[name](folder) == (folder / "table.md").read_text()
    assert {name: (folder / name).read_text() for name in written} == written
    assert pictures == set(folder.glob("*.svg"))


def test_every_folder_with_a_table_or_rows_is_made_here():
    assert {path.parent for path in FILES} == {tables.RESULTS / name for name in tables.FOLDERS}
