"""Supplies in the curve's unit and in volts: is every figure scored against the rail that the machine has?"""

import json

import pytest

from neuralfuse.analysis.hardening import budget
from neuralfuse.analysis.simulate import simulate, workload_of
from neuralfuse.results.tables import read_table
from neuralfuse.study.check import check
from neuralfuse.study.config import ProtectionConfig
from neuralfuse.study.files import Study, dump_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.supplies import at_voltage
from sram.errors import InputError
from sram.failure import curve
from tests.conftest import run

VOLTS = {"curve": "kc705b", "structures": ["iid"]}
NONE = ProtectionConfig(name="none")


@pytest.fixture
def folder(tmp_path):
    """Of a curve in volts, measured on a board at 1.0 V; rails of 0.8 and 1.1 V."""
    study = Study("v", networks=["resnet8"], accelerators=["paper", "eyeriss"], sram=VOLTS, voltages=[0.8, 0.513])
    found = StudyFolder(tmp_path, study)
    found.write_workload(workload_of("resnet8", (1, 16, 16)), "by hand", "resnet8")
    return found


def test_volts_count_against_the_rail_of_the_machine(folder):
    def saving(machine, voltage):
        return folder.cost("resnet8", machine, NONE, at_voltage(folder.study, machine, voltage)).saving_weight_sram

    assert saving("paper", 0.8) == saving("eyeriss", 1.1) == 0
    assert saving("paper", 0.513) == pytest.approx(1 - (0.513 / 0.8) ** 2)
    assert saving("eyeriss", 0.513) == pytest.approx(1 - (0.513 / 1.1) ** 2)


def test_a_study_and_simulate_mean_the_same_rail_at_the_same_volts(folder):
    cost = folder.cost("resnet8", "paper", NONE, at_voltage(folder.study, "paper", 0.513))
    energy = simulate("resnet8", (1, 16, 16), voltage="0.513V").energy
    assert (cost.energy_weight_sram_pj, cost.energy_sram_pj, cost.energy_system_pj) == pytest.approx(
        (energy.weight_sram_pj, energy.sram_pj, energy.system_pj)
    )


def test_what_hardening_may_spend_follows_the_rail(folder):
    most = 1 - (0.513 / 0.8) ** 2
    assert budget(folder.study, 0.513, most / 2) == pytest.approx(0.5)


def test_voltages_far_above_the_rail_are_refused():
    check(Study("v", networks=["resnet8"], sram=VOLTS, voltages=[1.6]))
    with pytest.raises(InputError, match=r"voltages = 1.7 .* at most 1.6; .* nominal 0.8 on paper"):
        check(Study("v", networks=["resnet8"], sram=VOLTS, voltages=[1.7]))


def test_no_faults_at_all_is_the_nominal_supply_of_the_rail():
    study = {"networks": ["resnet8"], "sram": VOLTS, "cell_fault_rates": [0, 0.01]}
    assert Study("v", **study).voltages[0] == 0.8
    assert Study("v", **study, accelerators=["eyeriss"]).voltages[0] == 1.1
    with pytest.raises(InputError, match=r"cell_fault_rates = 0 .* rails of 0.8 V, 1.1 V"):
        Study("v", **study, accelerators=["paper", "eyeriss"])


def test_a_dry_run_lists_unit_volts_and_rate_of_every_voltage(tmp_path, capsys):
    study = Study("v", networks=["resnet8"], accelerators=["paper", "eyeriss"], voltages=[1.0, 0.8333])
    (tmp_path / "study.yaml").write_text(dump_study(study))
    assert run("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "weights of paper (nominally 0.8 V); weights of eyeriss (nominally 1.1 V); all others stay" in said
    assert "placement: streamed" in said
    head, nominal, low = (line.split() for line in said.split("ibm14")[1].splitlines()[1:4])
    assert " ".join(head) == "weights (Vmin) V on paper V on eyeriss cell fault rate"
    assert " ".join(nominal) == "1.0000 0.8000 1.1000 5.03e-08 beyond the curve's data, 0.75 to 0.958333"
    assert low == ["0.8333", "0.6666", "0.9166", "1.04e-02"]


def test_a_dry_run_lists_every_rail_in_the_unit_of_its_own_curve(tmp_path, capsys):
    study = {
        "name": "rails",
        "networks": [{"name": "resnet8", "activations": "int8"}],
        "rails": {"weights": [0.85], "activations": [0.8, 0.55], "logic": [1.0, 0.9]},
        "memories": {"activations": {"curve": "kc705b"}},
        "clock": "follow",
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    assert run("sweep", tmp_path / "study.yaml", "--out", tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 operating points" in said
    tables = {}
    for line in said.splitlines():
        words = line.split()
        if "V on paper" in line:
            rows = tables.setdefault(" ".join(words[:2]), [])
        elif len(words) > 1 and words[0].replace(".", "").isdigit() and words[1].startswith("0."):
            rows.append(words[:3])
    rate = {name: curve(name).probability for name in ("ibm14", "kc705b")}
    assert tables == {
        "weights (Vmin)": [["0.8500", "0.6800", f"{rate['ibm14'](0.85):.2e}"]],
        "activations (V)": [[f"{v:.4f}", f"{v:.4f}", f"{rate['kc705b'](v):.2e}"] for v in (0.8, 0.55)],
        "logic (Vmin)": [["1.0000", "0.8000"], ["0.9000", "0.7200"]],
    }
    assert "failure curve kc705b" in said
    assert "no faults" in said


def test_volts_stand_beside_vmin_in_a_report(tiny, capsys):
    """And the rail, the placement and where the curve is believed stand in provenance and on the page."""
    headline = read_table(tiny / "headline.csv")
    swept = headline.dropna(subset=["voltage"])
    assert len(swept)
    assert swept.volts.to_numpy() == pytest.approx(0.8 * swept.voltage.to_numpy())
    assert run("report", tiny) == 0
    assert " V [" in capsys.readouterr().out
    provenance = StudyFolder.open(tiny).provenance()
    assert [s["extrapolated"] for s in provenance["supplies"]] == [True, False, False]
    assert provenance["notes"]["placement"].startswith("streamed")
    page = (tiny / "report.html").read_text()
    for words in ("= 0.6", "supply: weights of paper", "placement: streamed", "beyond the curve"):
        assert words in page
