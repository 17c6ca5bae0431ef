"""On real chips: is what is said of each what a sweep of all supplies says, and what is saved its energies?"""

import numpy as np
import pytest

from neuralfuse.analysis.each_chip import each_chip, run_descents
from neuralfuse.report import build_report
from neuralfuse.report.yieldplots import own_supplies
from neuralfuse.results.statistics import exact_share, keeps
from neuralfuse.results.tables import read_results, read_table
from neuralfuse.study.files import Study, dump_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.progress import silent
from tests.conftest import run

NETWORK = {"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 4, "flip": False, "shift": 0}}
VOLTAGES = (0.92, 0.88, 0.86, 0.84, 0.82)
CHIPS = 12


def study_of(**keys):
    common = {
        "dataset": {"name": "digits", "test_images": 100},
        "networks": [NETWORK],
        "sram": {"structures": ["column"]},
        "voltages": VOLTAGES,
        "chips": {"evaluation": CHIPS},
        "protections": ["none", "secded72"],
        "each_chip": {"within_points": 5, "share_of_chips": 0.75, "scope": "weight_sram"},
    }
    return Study("each", **common | keys)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(folder, what was found, the rows of the sweep that completed it)."""
    folder = StudyFolder(tmp_path_factory.mktemp("each") / "out", study_of())
    yields = run_descents(folder, choose(workers=1), silent)
    run_study(folder, choose(workers=1), silent)
    return folder, yields, read_results(folder.path)


def holds(rows):
    """bool (chips, supplies falling) by all images."""
    ordered = rows.sort_values(["chip", "voltage"], ascending=[True, False])
    correct, clean, total = (ordered[c].to_numpy().reshape(CHIPS, -1) for c in ("correct", "correct_clean", "total"))
    return keeps(correct, clean, total, 5)


def test_each_chip_is_where_the_whole_grid_says(found):
    """Of 24 chips; those that rise on the way down may be at any supply where they hold and at the next do not."""
    _, yields, rows = found
    levels = set()
    for name, own in yields.chips.groupby("protection"):
        for chip, kept in zip(own.to_dict("records"), holds(rows[rows.protection == name]), strict=True):
            level = 0 if np.isnan(chip["voltage"]) else 1 + VOLTAGES.index(chip["voltage"])
            assert level == 0 or kept[level - 1]
            assert level == len(VOLTAGES) or not kept[level]
            assert chip["or_lower"] == (level == len(VOLTAGES))
            levels.add((name, level))
    assert len(levels) > 5
    assert 0 < yields.share < 0.7


def test_shares_and_energies_are_those_of_the_rows(found):
    _, yields, rows = found
    for name, part in yields.shares.groupby("protection"):
        own = yields.chips[yields.chips.protection == name].voltage
        for row in part.to_dict("records"):
            good = int((own <= row["voltage"]).sum())
            assert (row["good"], row["chips"], row["own"]) == (good, CHIPS, int((own == row["voltage"]).sum()))
            assert (row["share_low"], row["share_high"]) == exact_share(good, CHIPS)
            measured = rows[(rows.protection == name) & (rows.voltage == row["voltage"])]
            for scope in ("weight_sram", "sram", "chip", "system"):
                for column in (f"energy_{scope}_pj", f"saving_{scope}"):
                    assert measured[column].to_numpy() == pytest.approx(row[column], rel=1e-12)


def test_what_binning_saves_follows_from_the_chips_and_the_energies(found):
    _, yields, _ = found
    for (name, scope), part in yields.bins.groupby(["protection", "scope"]):
        own = yields.chips[yields.chips.protection == name].voltage
        energy = yields.shares[yields.shares.protection == name].set_index("voltage")[f"energy_{scope}_pj"]
        one = part[part.bins == 1].iloc[0]
        at = float(one.voltages)
        assert (own <= at).mean() >= 0.75
        lower = [v for v in VOLTAGES if v < at]
        assert not lower or (own <= max(lower)).mean() < 0.75
        kept = own[own <= at]
        assert one.chips == len(kept)
        assert one.energy_pj == pytest.approx(energy[at])
        each = part[part.bins.isna()].iloc[0]
        assert each.energy_pj == pytest.approx(energy[kept].mean())
        assert each.saved == pytest.approx(1 - energy[kept].mean() / energy[at])
        assert (np.diff(part.energy_pj) <= 1e-9 * part.energy_pj.max()).all()


def test_the_command_says_it_and_measures_nothing_twice(found, tmp_path, capsys):
    folder, yields, _ = found
    file = tmp_path / "study.yaml"
    file.write_text(dump_study(folder.study))
    rows = len(folder.rows.read())
    assert run("yield", file, "--out", folder.path, "--workers", 1, "--quiet") == 0
    said = capsys.readouterr().out
    assert len(folder.rows.read()) == rows
    for line in yields.lines:
        assert line in said
    assert "within 5 points of clean" in said
    assert "each its own" in said
    written = read_table(folder.path / "each_chip.csv")
    assert written.voltage.equals(yields.chips.voltage)
    assert run("yield", file, "--out", folder.path, "--workers", 1, "--dask", "tcp://x") == 2


def test_the_page_shows_it(found):
    folder, _, _ = found
    made = build_report(folder.path)
    assert "own-supply" in made.figures
    assert "own lowest supply" in made.page.read_text()


def test_the_figure_says_what_it_shows(found):
    _, yields, _ = found
    figure = own_supplies(yields.shares, "Vmin", 5)
    counted, share = figure.axes
    bars = sum(bar.get_height() for bar in counted.patches)
    assert bars == 2 * CHIPS
    assert (counted.get_ylabel(), share.get_ylabel()) == (
        "Chips with this lowest supply",
        "Chips within 5 points of clean (%)",
    )
    assert "multiples of Vmin" in share.get_xlabel()


def test_chips_of_which_none_holds_have_no_bins(tmp_path):
    low = study_of(voltages=(0.79, 0.78), chips={"evaluation": 3}, protections=["none"])
    (found,) = each_chip(low, tmp_path / "out", quiet=True)
    assert found.chips.voltage.isna().all()
    assert found.bins.empty
    assert "no supply at which 75% of the chips hold" in found.lines[0]
    assert "3 of 3 hold nowhere" in found.lines[0]
    assert (tmp_path / "out" / "each_chip_bins.csv").read_text().startswith("network,")
