"""Does the main job hold together, from a study file to the page, and does bad input cost nothing?"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from neuralfuse.data import Dataset
from neuralfuse.results.rows import COLUMNS
from neuralfuse.study import data as study_data
from neuralfuse.study.config import DatasetConfig
from tests.conftest import TINY, run

CONTRACT = (
    "network dataset protection voltage chip correct total accuracy cell_fault_rate flip_rate "
    "energy_weight_sram_pj energy_sram_pj energy_system_pj cycles"
).split()


def study_with(tmp_path, **changes):
    """A study file like the tiny one, with some keys changed (None: left out)."""
    study = yaml.safe_load(TINY.read_text()) | changes
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in study.items() if v is not None}))
    return path


def test_results_have_the_columns_of_the_contract(tiny):
    results = pd.read_csv(tiny / "results.csv")
    assert list(results.columns) == COLUMNS
    assert set(CONTRACT) <= set(results.columns)
    assert len(results) == 2 * 2 * 3 * 3  # structures, protections, voltages, chips
    assert (results.accuracy == results.correct / results.total).all()


def test_unprotected_at_vmin_is_clean_and_everything_is_paired(tiny):
    """At Vmin 2 Mbit of this curve have 0.1 faulty cells on average; these six chips have none."""
    results = pd.read_csv(tiny / "results.csv")
    top = results[(results.voltage == 1.0) & (results.protection == "none")]
    assert (top.flip_rate == 0).all()
    assert (top.correct == top.correct_clean).all()
    rates = results.pivot_table(index=["structure", "voltage", "chip"], columns="protection", values="cell_fault_rate")
    assert (rates["none"] == rates["fuse"]).all()  # the same chips
    assert results.groupby("voltage").cell_fault_rate.mean().is_monotonic_decreasing


def test_flips_are_half_the_faults_on_balanced_data(tiny):
    """A cell stuck at either value hides behind half of the bits. 62,000 bits at 16%: 2 sigma is 3% of the ratio."""
    low = pd.read_csv(tiny / "results.csv").query("voltage == 0.76 and structure == 'iid' and protection == 'none'")
    assert (low.flip_rate / low.cell_fault_rate).mean() == pytest.approx(0.5, abs=0.08)


def test_energy_is_the_square_of_the_voltage_and_the_generator_costs(tiny):
    results = pd.read_csv(tiny / "results.csv")
    bare = results[results.protection == "none"].groupby("voltage").energy_weight_sram_pj.first()
    assert bare[0.8] / bare[1.0] == pytest.approx(0.64, rel=1e-12)
    fuse = results[results.protection == "fuse"].groupby("voltage").energy_weight_sram_pj.first()
    extra = fuse - bare  # the generator runs at nominal supply whatever the sweep does
    assert extra.min() == pytest.approx(extra.max(), rel=1e-9)
    assert extra.min() > 0
    saving = results.set_index(["protection", "voltage"]).saving_weight_sram
    assert saving["none", 1.0].iloc[0] == 0
    assert saving["fuse", 0.8].iloc[0] == pytest.approx(1 - fuse[0.8] / bare[1.0])


def test_layers_add_up_to_the_results(tiny):
    layers = pd.read_csv(tiny / "layers.csv")
    results = pd.read_csv(tiny / "results.csv").query("voltage == 1.0").groupby("protection").first()
    total = layers[layers.layer == "total"].set_index("network")
    assert total.loc["resnet8", "scope_system_pj"] == pytest.approx(results.loc["none", "energy_system_pj"])
    both = total.loc[["resnet8", "resnet8-fuse"]]
    assert both.scope_sram_pj.sum() == pytest.approx(results.loc["fuse", "energy_sram_pj"])
    assert both.cycles.sum() == results.loc["fuse", "cycles"]


def test_figures_and_page_are_there(tiny):
    names = {p.name for p in (tiny / "plots").iterdir()}
    fronts = [f"pareto-{scope}" for scope in ("weight_sram", "sram", "chip", "system")]
    fronts += [f"attainment-{scope}" for scope in ("weight_sram", "chip")]
    silicon = ["failure-curve", "bank-column", "bank-iid"]
    for name in [*fronts, *silicon, "accuracy", "yield", "layers-resnet8-paper", "images-resnet8-fuse"]:
        assert {f"{name}.png", f"{name}.svg", f"{name}.pdf"} <= names
    page = (tiny / "report.html").read_text()
    captions = re.findall(
        r'<img alt="([^"]*)" src="data:image/png', page
    )  # fronts of the page's own for those in plots/
    assert sum(caption.startswith("Energy saved against accuracy, chip by chip") for caption in captions) == 2
    for words in (
        "Accuracy against supply",
        "Share of faulty cells",
        "(column maps)",
        "(iid maps)",
        "(resnet8 on paper)",
    ):
        assert any(words in caption for caption in captions), words
    assert "Lowest supply" in page
    assert "<script src" not in page  # nothing is fetched


def test_second_run_measures_nothing_and_writes_the_same(tiny_copy):
    before = (tiny_copy / "results.csv").read_bytes()
    rows = sorted(p.name for p in (tiny_copy / "rows").iterdir())
    assert run("sweep", TINY, "--out", tiny_copy, "--workers", 1) == 0
    assert (tiny_copy / "results.csv").read_bytes() == before
    assert sorted(p.name for p in (tiny_copy / "rows").iterdir()) == rows


def test_shards_merged_are_the_whole(tiny, tiny_copy, tmp_path):
    import shutil

    expected = (tiny / "results.csv").read_bytes()
    for i in (1, 2, 3):
        part = tmp_path / f"part{i}"
        shutil.copytree(tiny_copy, part)
        shutil.rmtree(part / "rows")
        assert run("sweep", TINY, "--out", part, "--shard", f"{i}/3", "--workers", 1) == 0
    shutil.rmtree(tiny_copy / "rows")
    (tiny_copy / "results.csv").unlink()
    assert run("merge", *(tmp_path / f"part{i}" for i in (1, 2, 3)), "--into", tiny_copy) == 0
    assert run("sweep", TINY, "--out", tiny_copy, "--workers", 1) == 0
    assert (tiny_copy / "results.csv").read_bytes() == expected


def test_more_chips_and_voltages_extend_a_folder(tiny_copy, tmp_path):
    wider = study_with(tmp_path, voltages=[1.0, 0.8, 0.78, 0.76], chips={"evaluation": 4})
    before = pd.read_csv(tiny_copy / "results.csv")
    assert run("sweep", wider, "--out", tiny_copy, "--workers", 1) == 0
    after = pd.read_csv(tiny_copy / "results.csv")
    assert len(after) == 2 * 2 * 4 * 4
    merged = before.merge(after, how="left", indicator=True)
    assert (merged._merge == "both").all()


def test_dry_run_counts_and_writes_nothing(tiny, tmp_path, capsys):
    assert run("sweep", TINY, "--out", tmp_path / "new", "--dry-run") == 0
    assert "36 tasks" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    assert run("sweep", TINY, "--out", tiny, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "36 done" in out
    assert "0 to do" in out


def test_results_for_a_shell(tiny, capsys):
    assert run("results", tiny, "--query", "voltage < 0.79 and protection == 'none'", "--columns", "chip,accuracy") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "chip,accuracy"
    assert len(lines) == 1 + 6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volts": [1.0]}, "volts"),
        ({"voltages": "low"}, "voltages"),
        ({"voltages": []}, "voltages"),
        ({"voltages": [1.0, -0.5]}, "voltages"),
        ({"voltages": [1.0, 5.0]}, "voltages"),
        ({"chips": {"evaluation": 0}}, "chips.evaluation"),
        ({"networks": []}, "networks"),
        ({"networks": None}, "networks"),
        ({"networks": [{"name": "resnet9"}]}, "resnet9"),
        ({"networks": [{"name": "resnet8", "bits": 9}]}, "bits"),
        ({"networks": [{"name": "resnet8", "checkpoint": "nowhere.safetensors"}]}, "nowhere.safetensors"),
        ({"sram": {"curve": "ibm15"}}, "ibm15"),
        ({"sram": {"structures": ["diagonal"]}}, "diagonal"),
        ({"sram": {"structures": []}}, "structures"),
        ({"accelerators": ["abacus"]}, "abacus"),
        ({"dataset": {"name": "digitz"}}, "digitz"),
        ({"dataset": {"name": "digits", "test_images": 10**6}}, "test_images"),
        ({"protections": ["none", {"name": "x", "neuralfuse": {"generator": "ConvXL"}}]}, "ConvXL"),
        ({"protections": ["none", "none"]}, "protections"),
    ],
)
def test_bad_studies_are_refused_in_one_line_and_nothing_is_written(changes, says, tmp_path, capsys):
    path = study_with(tmp_path, **changes)
    assert run("sweep", path, "--out", tmp_path / "out", "--workers", 1) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert says in message
    assert not (tmp_path / "out").exists()


def test_missing_file_and_foreign_folders(tiny, tmp_path, capsys):
    assert run("sweep", tmp_path / "none.yaml", "--out", tmp_path / "out") == 2
    other = study_with(tmp_path, seed=4)
    before = (tiny / "study.yaml").read_bytes()
    assert run("sweep", other, "--out", tiny, "--workers", 1) == 2
    assert "seed" in capsys.readouterr().err
    assert (tiny / "study.yaml").read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    assert run("sweep", TINY, "--out", tmp_path / "full") == 2
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert run("report", tmp_path / "full") == 2


def test_weights_that_are_not_numbers_are_refused(tiny, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    weights = load_file(next((tiny / "networks").glob("*.safetensors")))
    name = next(n for n in weights if n.endswith("weight") and weights[n].dim() == 4)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    network = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(tmp_path / "nan.safetensors")}
    path = study_with(tmp_path, networks=[network])
    assert run("sweep", path, "--out", tmp_path / "out") == 2
    assert "finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_kill_9_of_the_command_then_the_same_results(tiny, tiny_copy):
    """The command itself, killed while it sweeps; the next run ends with the same bytes."""
    expected = (tiny / "results.csv").read_bytes()
    for path in (tiny_copy / "rows").iterdir():
        path.unlink()
    (tiny_copy / "results.csv").unlink()
    command = [sys.executable, "-m", "neuralfuse", "sweep", str(TINY), "--out", str(tiny_copy), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(p.stat().st_size for p in (tiny_copy / "rows").glob("*.jsonl")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert run("sweep", TINY, "--out", tiny_copy, "--workers", 1) == 0
    assert (tiny_copy / "results.csv").read_bytes() == expected


def test_provenance_names_versions_and_sources(tiny):
    provenance = json.loads((tiny / "provenance.json").read_text())
    assert provenance["voltage_unit"] == "Vmin"
    assert {"torch", "numpy", "results", "python"} <= set(provenance["versions"])
    assert provenance["energy_sources"]
    assert all(entry["source"] and entry["unit"] for entry in provenance["energy_sources"])


def test_energy_of_every_row_is_finite_and_positive(tiny):
    results = pd.read_csv(tiny / "results.csv")
    energies = results.filter(like="energy_")
    assert np.isfinite(energies.to_numpy()).all()
    assert (energies.to_numpy() > 0).all()
    assert (results.energy_weight_sram_pj < results.energy_sram_pj).all()
    assert (results.energy_sram_pj < results.energy_system_pj).all()


def test_some_test_images_are_of_all_classes_and_nested(monkeypatch):
    """A file sorted by class must not make a study of one class: 100 of 1,000 such images hold each of ten classes.

    Drawn without replacement a class is missing with probability under 1e-4 each; the draw is fixed.
    """
    labels = torch.arange(10).repeat_interleave(100)
    sorted_data = Dataset("sorted", torch.zeros(1, 1, 2, 2), labels[:1], labels.view(-1, 1, 1, 1).float(), labels, 10)
    monkeypatch.setattr(study_data, "load_data", lambda config: sorted_data)
    images, found = study_data.test_set(DatasetConfig(test_images=100))
    assert len(found) == 100
    assert len(found.unique()) == 10
    assert torch.equal(images.flatten(), found.float())  # images and labels stay together
    fewer = study_data.test_set(DatasetConfig(test_images=50))[1]
    assert torch.equal(fewer, found[:50])
    assert torch.equal(study_data.test_set(DatasetConfig())[1], labels)
