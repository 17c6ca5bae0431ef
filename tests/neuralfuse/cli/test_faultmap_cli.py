"""Does `neuralfuse faultmap` do what its help says, and refuse mistakes in one line with exit status 2?"""

import re

import numpy as np
import pytest

from neuralfuse.cli import main
from sram import faultmap, mapplots
from sram.errors import InputError
from sram.geometry import Geometry

BLOCKS = ["--banks", "40", "--rows", "512", "--columns", "16", "--word-bits", "16"]


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["faultmap", *map(str, arguments)])
    return exit_.value.code


@pytest.fixture
def maps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [*BLOCKS, "--curve", "kc705b", "--voltage-floor", "0.48"]
    assert run("make", "a.npz", *common, "--structure", "column=0.4,bank=0.1") == 0
    assert run("make", "b.npz", *common, "--chip", 1, "--mode", "flip", "--noise", 0.1) == 0
    return tmp_path


def test_make_gives_the_map_of_the_library(maps):
    made = faultmap.load(maps / "a.npz")
    geometry = Geometry(40, 512, 16, 16)
    same = faultmap.generate(0, geometry, "kc705b", "column=0.4,bank=0.1", voltage_floor=0.48)
    assert np.array_equal(made.cell, same.cell)
    assert made.structure == same.structure


@pytest.mark.parametrize("capacity", ["nan", "inf", "0", "-1"])
def test_a_capacity_is_a_finite_number(capacity, tmp_path, capsys):
    assert run("make", tmp_path / "c.npz", "--capacity-kib", capacity, "--voltage-floor", 0.8) == 2
    assert f"--capacity-kib = {float(capacity)}" in capsys.readouterr().err


def test_capacity_instead_of_banks(maps):
    assert run("make", "c.npz", "--capacity-kib", 128, "--voltage-floor", 0.8) == 0
    assert faultmap.load("c.npz").geometry == Geometry.of_capacity(128 * 1024)


def test_info_names_counts_and_clustering(maps, capsys):
    assert run("info", "a.npz", "--voltage", 0.5) == 0
    text = capsys.readouterr().out
    m = faultmap.load("a.npz")
    for part in ("kc705b", "40 banks of 512 x 16", f"{m.count(0.5):,}", "variance / mean", "flip rate"):
        assert part in text
    of_cell = m.geometry.bank_row_column(m.at(0.5).cell)
    in_one = (
        np.bincount(of_cell[0] * 16 + of_cell[2]),
        np.bincount(of_cell[0] * 512 + of_cell[1]),
        np.bincount(of_cell[0]),
    )
    (most,) = re.findall("most faults in one(.*)", text)
    assert [int(n) for n in re.findall(r"\d+", most)] == [counts.max() for counts in in_one]


def test_show_and_compare_draw(maps, capsys):
    assert run("show", "a.npz", "--out", "a.png", "--bank", 3) == 0
    assert run("compare", "a.npz", "b.npz", "--out", "c.svg") == 0
    assert (maps / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (maps / "c.svg").read_bytes()
    assert "chi-square" in capsys.readouterr().out


def test_pictures_hold_what_the_map_says(maps):
    m = faultmap.load("a.npz")
    bank, columns, rate = mapplots.show(m, 0.5).axes[:3]
    picture = bank.images[0].get_array()
    inside = m.at(0.5).cell // m.geometry.cells_per_bank
    worst = np.bincount(inside).argmax()
    assert np.isfinite(picture.filled(np.nan)).sum() == (inside == worst).sum()
    assert columns.patches[0].get_data().values.sum() == 40 * 16
    voltages, rates = rate.lines[0].get_data()
    assert rates[0] == m.cell_fault_rate(voltages[0])
    with pytest.raises(InputError, match="bank"):
        mapplots.show(m, 0.5, bank=40)


def test_export_and_import_give_the_same_file(maps):
    for name in ("a", "b"):
        assert run("export", f"{name}.npz", f"{name}.csv") == 0
        assert run("import", f"{name}.csv", f"{name}2.npz") == 0
        assert (maps / f"{name}2.npz").read_bytes() == (maps / f"{name}.npz").read_bytes()


def test_import_of_readbacks_says_how_they_nest(maps, capsys):
    (maps / "r.csv").write_text("voltage,bank,row,column\n0.6,0,0,0\n0.5,0,0,0\n0.5,1,0,0\n")
    assert run("import", "r.csv", "r.npz", *BLOCKS, "--readbacks") == 0
    assert "of 1 cells failing at 0.6, 100.0% also fail" in capsys.readouterr().out
    assert faultmap.load("r.npz").count(0.5) == 2


def test_fit_prints_shares_with_intervals(maps, capsys):
    assert run("fit", "a.npz") == 0
    printed = capsys.readouterr()
    assert "column" in printed.out
    assert printed.err.startswith("resampling banks ...")  # what takes so long


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["info", "none.npz"], "none.npz"),
        (["info", "a.npz", "--voltage", "0.4"], "0.48"),
        (["show", "a.npz", "--out", "a.bmp"], ".png"),
        (["show", "a.npz", "--out", "a.png", "--bank", "40"], "bank"),
        (["make", "x.npz", "--voltage-floor", "0.8"], "--banks"),
        (["make", "x.npz", "--voltage-floor", "0.8", "--banks", "1", "--structure", "column=2"], "column"),
        (["make", "x.npz", "--voltage-floor", "0.8", "--banks", "1", "--curve", "ibm7"], "ibm14"),
        (["make", "x.npz", "--voltage-floor", "low", "--banks", "1"], "voltage-floor"),
        (["import", "a.npz", "x.npz", *BLOCKS], "a.npz"),
        (["compare", "a.npz", "b.npz", "--voltage", "0.3"], "0.48"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else x,
)
def test_mistakes_are_named_and_exit_with_2(maps, capsys, arguments, named):
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "Traceback" not in error
    assert not (maps / "x.npz").exists()
