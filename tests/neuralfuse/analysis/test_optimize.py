"""Does a search of real chips find what the sweep of its grid finds, say it, and leave a study that holds?"""

import pandas as pd
import pytest
import yaml

from neuralfuse.analysis.optimize import Search, _floor, check_search, optimize, run_search
from neuralfuse.cli import main
from neuralfuse.results.choice import choices
from neuralfuse.results.pareto import summarise
from neuralfuse.results.tables import read_results
from neuralfuse.study.files import Study, dump_study, load_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.errors import InputError
from sram.progress import silent

NETWORK = {"name": "resnet8", "options": {"width": 4}, "activations": "int8"}
NETWORK |= {"training": {"epochs": 4, "flip": False, "shift": 0}}
CODED = {"name": "coded", "sram": {"weights": ["secded72"], "activations": ["secded72"]}}


def study_of(**keys):
    common = {
        "dataset": {"name": "digits", "test_images": 60},
        "networks": [NETWORK],
        "accelerators": ["gap9-like"],
        "sram": {"structures": ["iid"]},
        "chips": {"evaluation": 3},
        "rails": {"weights": [1.0, 0.86, 0.82], "activations": [1.0, 0.9, 0.86], "logic": [1.0, 0.85]},
        "clock": "follow",
        "protections": ["none", CODED],
        "optimize": {"accuracy_points": 2},
    }
    return Study("searched", **common | keys)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """(folder, what the search found, its rows, the rows of the sweep that completed it)."""
    folder = StudyFolder(tmp_path_factory.mktemp("search") / "out", study_of())
    found = run_search(folder, choose(workers=1), silent)
    first = read_results(folder.path)
    keys = set(folder.rows.read())
    run_study(folder, choose(workers=1), silent)
    return folder, found, first, read_results(folder.path), keys


def test_it_chooses_what_the_whole_grid_says(searched):
    _, found, _, rows, _ = searched
    (best,) = choices(summarise(rows), "chip", [2]).to_dict("records")
    chosen = load_study(found.study)
    (point,) = chosen.operating_points
    supplies = point.weights, point.activations, point.logic
    assert supplies == (best["voltage"], best["voltage_activations"], best["voltage_logic"])
    assert chosen.protections[0].name == best["protection"]
    assert chosen.chips.numbers == range(3, 6)
    front = choices(summarise(rows), "chip", [1, 2, 5])
    assert found.front.energy_pj.tolist() == pytest.approx(front.energy_pj.tolist(), rel=1e-12)
    assert found.settled


def test_a_sweep_later_measures_only_what_is_missing(searched):
    folder, found, first, rows, keys = searched
    assert 0 < found.share < 1
    assert len(rows) == 3 * 3 * 2 * 2 * 3
    assert (rows.total == 60).all()
    assert 0 < len(first) < len(rows)
    assert keys <= set(folder.rows.read())
    same = first.merge(rows, how="left", indicator=True)  # every column
    assert (same._merge == "both").all()


def test_energies_are_known_before_they_are_measured(searched):
    folder, _, _, rows, _ = searched
    search = Search(folder, points_of(folder), silent)
    known = pd.DataFrame(
        [(c.point.protection, *c.at.voltages, c.energy_pj) for c in search.settings[0].candidates],
        columns=["protection", "voltage_activations", "voltage_logic", "voltage", "energy"],
    )
    both = rows.merge(known, on=["protection", "voltage", "voltage_activations", "voltage_logic"])
    assert len(both) == len(rows)
    assert both.energy.tolist() == pytest.approx(both.energy_chip_pj.tolist(), rel=1e-12)


def test_what_a_choice_is_worth(searched):
    _, found, _, rows, _ = searched
    worth = found.worth.set_index("put_back")
    nominal = rows[rows.voltage_logic == 1]
    (best,) = choices(summarise(nominal), "chip", [2]).to_dict("records")
    assert worth.energy_pj["logic"] == pytest.approx(best["energy_pj"], rel=1e-12)
    assert (worth.costs_more > 0).all()


def test_the_chosen_point_is_a_study_that_gives_the_same_answer(searched, tmp_path, capsys):
    _, found, _, _, _ = searched
    main_exits(["sweep", str(found.study), "--out", str(tmp_path / "chosen"), "--workers", "1", "--quiet"], 0)
    rows = read_results(tmp_path / "chosen")
    assert rows.chip.tolist() == [3, 4, 5]
    assert f"accuracy {100 * rows.accuracy.mean():.1f}%" in found.lines[0]


def main_exits(arguments, status):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == status


def test_the_command_says_it_and_goes_on_from_what_is_there(searched, tmp_path, capsys):
    folder, found, _, _, _ = searched
    file = tmp_path / "study.yaml"
    file.write_text(dump_study(folder.study))
    rows = len(folder.rows.read())
    main_exits(["optimize", str(file), "--out", str(folder.path), "--workers", "1", "--quiet"], 0)
    said = capsys.readouterr().out
    assert found.lines[0] in said.replace("\n", " ")
    assert "put back" in said
    assert len(folder.rows.read()) == rows
    main_exits(["optimize", str(file), "--out", str(tmp_path / "none"), "--dry-run"], 0)
    assert "18 operating points x 2 protections, on 3 chips" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("goals", "said"),
    [
        ({"inferences_per_second": 1e9}, r"optimize\.inferences_per_second = 1000000000.*at most 102000, the fastest"),
        ({"accuracy_points": 0.01}, r"optimize\.accuracy_points = 0\.01.*or more: so much loses the nearest point"),
    ],
)
def test_constraints_that_no_point_meets_name_the_nearest(goals, said, searched):
    folder, *_ = searched
    low = study_of(optimize=goals, rails={"weights": [0.82], "activations": [0.86], "logic": [1.0]})
    with pytest.raises(InputError, match=said):
        run_search(StudyFolder(folder.path, low), choose(workers=1), silent)


def test_a_fit_that_depends_on_the_other_points_is_refused():
    fit = {"neuralfuse": {"generator": "affine", "calibrate": {"at": "lowest", "steps": 2}}}
    with pytest.raises(InputError, match=r"calibrate\.at = 'lowest'"):
        check_search(study_of(protections=[fit]))


def test_several_settings_are_variants_of_one_file(tmp_path):
    """Voltages that break nothing: each network's choice is the lowest, and the file is a study."""
    network = {"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 4, "flip": False, "shift": 0}}
    study = Study(
        "two", dataset={"name": "digits", "test_images": 60}, networks=[network], voltages=[1.0, 0.98],
        chips={"evaluation": 2},
    )  # fmt: skip
    (found,) = optimize(study, tmp_path / "out", quiet=True)
    variants = yaml.safe_load(found.study.read_text())["variants"]
    assert [each["sram"]["structures"] for each in variants.values()] == [["column"], ["iid"]]
    assert {each["voltages"][0] for each in variants.values()} == {0.98}
    main_exits(["sweep", str(found.study), "--out", str(tmp_path / "again"), "--dry-run"], 0)


def test_floor_never_rounds_up():
    assert [_floor(value) for value in (0.0, 0.9999, 123_456.0)] == [0.0, 0.999, 123_000.0]
