"""Does the command line show, draw and write layers whatever they are called?"""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.table import Table

from neuralfuse.cli import tables
from neuralfuse.results.tables import read_table
from sram.names import printable
from tests.conftest import run

HEAD = "name, h, w, r, s, c, n, st\n"
ODD = ["block[/a]", "conv[red]", "conv[blue]", r"$\bad$", "$", "conv:0", ":smile:", "_x", "=1+1", "total", "../../x"]
ODD += ["слой"]


@pytest.fixture
def odd(tmp_path):
    """A topology with layers of odd names."""
    path = tmp_path / "odd.csv"
    path.write_text(HEAD + "".join(f"{name},8,8,3,3,3,8,1\n" for name in ODD), encoding="utf-8")
    return path


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Cc"]), min_size=1, max_size=20))
@example("[/a]")
@example(":smile:")
@example("\x1b[2J")
def test_a_cell_shows_its_text_and_nothing_else(name):
    table = Table("name", title=name, box=None)
    table.add_row(f"<{name}>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        tables.print_table(table)
        shown = sys.stdout.getvalue()
    assert f"<{printable(name)}>" in shown
    assert printable(name).strip() in shown.split(f"<{printable(name)}>")[0]


def test_a_network_of_odd_names_is_shown_drawn_and_written(odd, tmp_path, capsys):
    assert run("simulate", "--topology", odd, "--out", tmp_path / "o.csv", "--plots", tmp_path / "p") == 0
    shown = capsys.readouterr().out
    assert all(f"│ {name} " in shown for name in ODD)
    assert read_table(tmp_path / "o.csv").layer.tolist() == [*ODD, "total"]
    assert "'=1+1" in pd.read_csv(tmp_path / "o.csv").layer.tolist()
    assert len(list((tmp_path / "p").iterdir())) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"odd.csv", "o.csv", "p"}


def test_names_with_colons_are_found(odd, tmp_path, capsys):
    assert run("simulate", "--topology", odd, "--where", "conv:0:5") == 0
    assert run("simulate", "--topology", odd, "--trace", f"conv:0:{tmp_path / 't:1.csv'}") == 0
    assert "events in" in capsys.readouterr().out
    assert (tmp_path / "t:1.csv").stat().st_size > 1000


def test_what_stdout_cannot_encode_is_escaped(odd, tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "neuralfuse", "simulate", "--topology", odd, "--out", tmp_path / "o.csv"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u0441\u043b\u043e\u0439" in done.stdout
    assert "слой" in (tmp_path / "o.csv").read_text(encoding="utf-8")


def test_results_are_written_before_anything_is_printed(odd, tmp_path, monkeypatch):
    def fails(table):
        raise RuntimeError("no terminal")

    monkeypatch.setattr(tables, "print_table", fails)
    with pytest.raises(RuntimeError, match="no terminal"):
        run("simulate", "--topology", odd, "--out", tmp_path / "o.csv", "--plots", tmp_path / "p")
    assert len(read_table(tmp_path / "o.csv")) == len(ODD) + 1
    assert len(list((tmp_path / "p").iterdir())) == 8
