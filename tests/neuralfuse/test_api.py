"""Does a study from Python do what the same study does from a file?"""

import shutil

import pandas as pd
import pytest
import torch
import yaml

import neuralfuse as nf
import sram
from neuralfuse.quantized import checkpoint
from neuralfuse.study.file_names import slug
from tests.conftest import TINY


def test_the_rows_and_the_report_of_a_folder(tiny_copy, undrawn, capsys):
    keys = yaml.safe_load(TINY.read_text())
    rows = nf.sweep(nf.Study(**keys), tiny_copy, quiet=True)
    pd.testing.assert_frame_equal(rows, nf.read_results(tiny_copy))
    pd.testing.assert_frame_equal(rows, nf.sweep(TINY, tiny_copy, quiet=True))
    made = nf.report(tiny_copy)
    assert made.page == tiny_copy / "report.html"
    assert set(made.summary.protection) == {"none", "fuse"}
    assert capsys.readouterr().err == ""


def test_rows_that_are_missing_are_run(tiny, tiny_copy):
    keys = yaml.safe_load(TINY.read_text()) | {"voltages": [0.8, 0.78], "protections": ["none"]}
    rows = nf.sweep(nf.Study(**keys), tiny_copy, quiet=True)
    assert sorted(set(rows.voltage)) == [0.78, 0.8]
    before = nf.read_results(tiny).query("voltage == 0.8 and protection == 'none'")
    again = rows[rows.voltage == 0.8]
    assert again.correct.tolist() == before.correct.tolist()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"voltage": [0.8]}, "voltage = .* allowed: voltages, "),
        ({"voltages": [0.8], "sram": {"colums": 64}}, "sram.colums = 64 .* allowed: columns, "),
        ({"voltages": []}, "voltages = "),
        ({"voltages": [0.8], "networks": []}, "networks = "),
        ({"voltages": [0.8], "protections": [{"naem": "x"}]}, "naem"),
    ],
)
def test_mistakes_name_their_key(keys, says):
    with pytest.raises(nf.InputError, match=says):
        nf.Study(**{"name": "wrong", "networks": ["resnet8"]} | keys)


def test_another_study_s_folder_is_refused(tiny):
    with pytest.raises(nf.InputError, match="seed"):
        nf.sweep(nf.Study(**yaml.safe_load(TINY.read_text()) | {"seed": 4}), tiny, quiet=True)


def test_variants_have_reports_of_their_own(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "out" / "one")
    content = yaml.safe_load(TINY.read_text()) | {"variants": {"one": {}}}
    (tmp_path / "out" / "variants.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(nf.InputError, match=r"one of .*one"):
        nf.report(tmp_path / "out")


def test_calibrate_returns_what_it_writes(tiny, tmp_path):
    trained = next((tiny / "networks").glob("*.safetensors"))
    network = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(trained)}
    fuse = {
        "name": "affine",
        "neuralfuse": {"generator": "affine", "calibrate": {"steps": 3, "images": 64, "batch": 32}},
    }
    study = nf.Study("chip", dataset={"test_images": 60}, networks=[network], voltages=[0.8], protections=[fuse])
    chip = sram.generate(5, sram.Geometry(banks=64), "ibm14", voltage_floor=0.78)
    found = nf.calibrate(study, chip, tmp_path / "out", quiet=True)
    pd.testing.assert_frame_equal(found.table, pd.read_csv(tmp_path / "out" / "calibration.csv"))
    assert found.best.protection == "affine"
    kept, _ = checkpoint.load(tmp_path / "out" / "transforms" / f"{slug('affine')}.safetensors")
    assert found.path.read_bytes() == (tmp_path / "out" / "transforms" / "affine.safetensors").read_bytes()
    image = torch.zeros(1, 1, 16, 16)
    assert found.transform(image).shape == image.shape
    assert kept
