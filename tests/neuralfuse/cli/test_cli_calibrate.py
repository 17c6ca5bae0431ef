"""Is one chip's transform fitted, costed, picked and written; and are mistakes named?"""

import json

import pandas as pd
import pytest
import torch
import yaml

from neuralfuse import networks
from neuralfuse.analysis import one_chip
from neuralfuse.analysis.one_chip import CANDIDATES, Fitted, best, candidates
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.quantize import quantize_in_place
from neuralfuse.study.files import parse_study
from neuralfuse.transforms import generators
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry
from tests.conftest import run

SHORT = {"steps": 4, "images": 64, "batch": 32}
STUDY = {
    "name": "one chip",
    "dataset": {"name": "digits", "test_images": 100},
    "sram": {"structures": ["iid"], "schedule": "resident"},
    "voltages": [0.8],
    "protections": [
        "none",
        {"name": "affine", "neuralfuse": {"generator": "affine", "calibrate": SHORT}},
        "calibrated(ConvS, width=2, steps=4, images=64, batch=32)",
    ],
}


@pytest.fixture(scope="module")
def lot(tmp_path_factory):
    """A study whose network is a checkpoint, and the map of a chip."""
    folder = tmp_path_factory.mktemp("lot")
    network = networks.build("resnet8", in_channels=1, width=4)
    checkpoint.save(folder / "base.safetensors", quantize_in_place(network).state_dict(), {})
    config = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(folder / "base.safetensors")}
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"networks": [config]}))
    chip = faultmap.generate(5, Geometry.of_capacity(256 * 1024), "ibm14", voltage_floor=0.78)
    faultmap.save(chip, folder / "map.npz")
    return folder


def test_candidates_are_costed_and_the_best_is_written(lot, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("calibrate", lot / "study.yaml", "--chip", lot / "map.npz", "--out", out, "--cost-limit", 20) == 0
    table = pd.read_csv(out / "calibration.csv")
    assert list(table.protection) == ["affine", STUDY["protections"][2]]
    assert (table.saving_weight_sram < 1 - 0.8**2).all()
    affine = table.iloc[0]
    assert affine.storage_bytes == 2 * 16 * 16
    picked = json.loads((out / "transform.json").read_text())
    within = table[table.saving_weight_sram >= 0.2]
    assert picked["correct"] == within.correct.max()
    generator = generators.build("affine", 1, size=(16, 16))
    record = checkpoint.load_network(generator, out / "transforms" / "affine.safetensors")
    assert record["correct"] == affine.correct
    assert generator.scale.abs().max() > 0
    assert "picked" in capsys.readouterr().out


def test_a_simulated_device_is_read_and_tuned(lot, tmp_path):
    """Its map is what the chip's own map says down to the supply in use."""
    out = tmp_path / "out"
    device = f"simulated:{lot / 'map.npz'}"
    assert run("calibrate", lot / "study.yaml", "--chip", device, "--out", out, "--protection", "affine") == 0
    found, own = faultmap.load(out / "map.npz"), faultmap.load(lot / "map.npz")
    assert found.count(0.8) == own.count(0.8)
    row = pd.read_csv(out / "calibration.csv").iloc[0]
    assert row.queries == 4 * 32
    assert row.images == 64


@pytest.mark.parametrize("bits", [None, 5])
def test_what_is_written_is_what_was_measured_on_the_device(lot, tmp_path, monkeypatch, bits):
    """By queries, with words and without: the file holds the numbers that the device ran behind."""
    study = yaml.safe_load((lot / "study.yaml").read_text())
    fuse = {"generator": "affine", "bits": bits, "calibrate": SHORT | {"access": "queries"}}
    study |= {"protections": [{"name": "affine", "neuralfuse": fuse}]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    made, original = [], one_chip.fit_to_device

    def spy(*given):
        made.append(original(*given))
        return made[-1]

    monkeypatch.setattr(one_chip, "fit_to_device", spy)
    device, out = f"simulated:{lot / 'map.npz'}", tmp_path / "out"
    assert run("calibrate", tmp_path / "study.yaml", "--chip", device, "--out", out) == 0
    ((_, transform),) = made
    kept = generators.build("affine", 1, size=(16, 16))
    assert checkpoint.load_network(kept, out / "transforms" / "affine.safetensors")["bits"] == bits
    for number, its in zip(kept.parameters(), transform.generator.parameters(), strict=True):
        assert torch.allclose(number, its, rtol=1e-6)
        assert number.unique().numel() <= 31 if bits else number.unique().numel() > 255


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--chip", "MAP", "--voltage", 0.7], "0.78"),
        (["--chip", "nowhere"], "simulated:MAP.npz"),
        (["--chip", "MAP", "--protection", "secded72"], "one of affine, calibrated(ConvS"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, says, lot, tmp_path, capsys):
    given = [str(lot / "map.npz") if a == "MAP" else a for a in arguments]
    assert run("calibrate", lot / "study.yaml", "--out", tmp_path / "out", *given) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_most_accurate_within_the_limit():
    def row(name, correct, saving):
        return Fitted(name, 0.8, 10, correct, 100, saving, 0.1, 0.1, 0.1, 5, 512, 10, 64, 0, "streamed")

    rows = [row("a", 90, 0.20), row("b", 80, 0.30), row("c", 80, 0.35), row("d", 70, 0.36)]
    assert best(rows).protection == "a"
    assert best(rows, 0.25).protection == "c"  # of equals the cheapest
    with pytest.raises(InputError, match="at most 36"):
        best(rows, 0.4)


def test_without_calibrated_protections_four_are_tried():
    study = parse_study(STUDY | {"networks": [{"name": "resnet8"}], "protections": ["none"]}, "here")
    assert [p.name for p in candidates(study).protections] == list(CANDIDATES)
    two = parse_study(STUDY | {"networks": [{"name": "resnet8"}, {"name": "resnet14"}]}, "here")
    with pytest.raises(InputError, match="which the chip holds"):
        candidates(two)
