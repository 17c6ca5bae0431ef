"""Studies over several curves and data, networks trained in several ways: does every name reach what it stands for?"""

import shutil

import pandas as pd
import pytest
import yaml

from neuralfuse.study.files import load_studies, parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import at_voltage
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.task import Task
from sram import failure
from sram.errors import InputError
from tests.conftest import TINY, run

VARIANTS = {
    "ibm14": {"voltages": [1.0, 0.78]},
    "kc705": {"sram": {"curve": "kc705b"}, "voltages": [0.54]},
}


def study_file(folder, **changes):
    content = yaml.safe_load(TINY.read_text()) | changes
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory, undrawn):
    """Two failure curves with voltages of their own; a network retrained against bit errors beside the plain one."""
    folder = tmp_path_factory.mktemp("variants")
    training = {"epochs": 1, "flip": False, "shift": 1}
    hard = training | {"objective": {"random_bit_errors": {"flip_rate": 0.01}}, "clip": 0.1}
    networks = [
        {"name": "resnet8", "options": {"width": 4}, "training": training},
        {"name": "resnet8 retrained", "build": "resnet8", "options": {"width": 4}, "training": hard},
    ]
    universal = {"name": "universal", "neuralfuse": {"generator": "universal", "training": {"steps": 2, "maps": 1}}}
    path = study_file(
        folder,
        networks=networks,
        variants=VARIANTS,
        protections=["none", universal],
        chips={"evaluation": 2},
        sram={"structures": ["iid"]},
    )
    out = folder / "out"
    assert run("sweep", path, "--out", out, "--workers", 1) == 0
    return path, out


def test_every_variant_has_its_rows_and_one_table_joins_them(swept):
    _, out = swept
    table = pd.read_csv(out / "results.csv")
    assert table.columns[0] == "variant"
    counts = table.groupby(["variant", "curve", "structure"]).size()
    # 2 networks x 2 protections x 2 chips at each voltage
    assert dict(counts) == {("ibm14", "ibm14", "iid"): 16, ("kc705", "kc705b", "iid"): 8}
    for name in VARIANTS:
        own = pd.read_csv(out / name / "results.csv")
        pd.testing.assert_frame_equal(table[table.variant == name].drop(columns="variant").reset_index(drop=True), own)
        assert (out / name / "report.html").is_file()


def test_the_same_network_trained_in_two_ways_are_two_networks(swept):
    _, out = swept
    table = pd.read_csv(out / "ibm14" / "results.csv")
    clean = table.groupby("network").correct_clean.unique()
    assert set(clean.index) == {"resnet8", "resnet8 retrained"}
    assert clean["resnet8"][0] != clean["resnet8 retrained"][0]


def test_what_people_read_tells_the_networks_apart(swept, capsys):
    _, out = swept
    assert run("report", out / "ibm14", "--workers", 1) == 0
    printed = capsys.readouterr().out
    lines = {"resnet8, iid", "resnet8 retrained, iid"}
    assert all(f"universal, {line} maps: at" in printed for line in lines)
    page = (out / "ibm14" / "report.html").read_text()
    for line in lines:
        assert page.count(f"<td>{line}</td>") >= 3 * 2  # a row for each margin at least, without a protection and with
        assert f'"name":"none, {line}"' in page.replace('": "', '":"')
    assert "resnet8 retrained (" in page


def test_dry_run_report_and_merge_know_variants(swept, tmp_path, capsys):
    path, out = swept
    assert run("sweep", path, "--out", out, "--dry-run") == 0
    assert capsys.readouterr().out.count("0 to do") == 2
    assert run("report", out, "--workers", 1) == 0
    assert "voltage" in capsys.readouterr().out
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "kc705" / "rows")
    assert run("merge", out, "--into", copy) == 0
    assert "8 new rows" in capsys.readouterr().out
    (copy / "results.csv").unlink()
    assert run("sweep", path, "--out", copy, "--workers", 1) == 0
    assert (copy / "results.csv").read_bytes() == (out / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ({}, "variants = {}"),
        ({"a/b": {}}, "a/b"),
        ({"a": [1]}, "variants.a"),
        ({"a": {"voltage": [1]}}, "variant a"),
        ({"a": {"voltages": [-1]}}, "variant a"),
    ],
)
def test_bad_variants_are_refused(variants, says, tmp_path):
    with pytest.raises(InputError, match=says.replace("{", "\\{").replace("}", "\\}")):
        load_studies(str(study_file(tmp_path, variants=variants)))


@pytest.mark.parametrize(
    ("objective", "says"), [("hope", "one of cross_entropy, random_bit_errors"), ({"adversarial": {"eps": 1}}, "eps")]
)
def test_unknown_objectives_are_refused(objective, says, tmp_path, capsys):
    networks = [{"name": "resnet8", "training": {"objective": objective}}]
    assert run("sweep", study_file(tmp_path, networks=networks), "--out", tmp_path / "out") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rates_stand_for_voltages(tmp_path):
    """The ibm14 curve has 1% at about 20/24 of Vmin (IBM 14 nm, MLSys 2021)."""
    fuse = {"name": "fuse", "neuralfuse": {"generator": "ConvS", "train_cell_fault_rates": [0.015]}}
    content = yaml.safe_load(TINY.read_text())
    del content["voltages"]
    study = parse_study(content | {"cell_fault_rates": [0, 0.01], "protections": [fuse]}, "here")
    curve = failure.curve("ibm14")
    assert study.voltages[0] == curve.nominal
    assert float(curve.probability(study.voltages[1])) == pytest.approx(0.01, rel=1e-4)
    assert float(curve.probability(study.protections[0].neuralfuse.train_voltages[0])) == pytest.approx(0.015, rel=1e-4)
    with pytest.raises(InputError, match="only one of voltages and cell_fault_rates"):
        parse_study(content | {"cell_fault_rates": [0.01], "voltages": [1.0]}, "here")
    with pytest.raises(InputError, match=r"here: cell_fault_rates = \[1\] .* from 0 to"):
        parse_study(content | {"cell_fault_rates": [1]}, "here")
    for curve in (5, "hope"):  # named by its key, whoever looked it up
        with pytest.raises(InputError, match=f"here: sram.curve = {curve!r}"):
            parse_study(content | {"cell_fault_rates": [0.01], "sram": {"curve": curve}}, "here")


def test_a_generator_trained_on_surrogates_is_one_generator(tmp_path):
    """Two networks, one generator trained on both in turn: both run behind the same file."""
    training = {"epochs": 1, "flip": False, "shift": 1}
    networks = [
        {"name": name, "build": "resnet8", "options": {"width": width}, "training": training}
        for name, width in (("source", 4), ("target", 5))
    ]
    fuse = {"generator": "affine", "train_on": ["source", "target"], "training": {"steps": 2, "maps": 1}}
    content = yaml.safe_load(TINY.read_text()) | {"networks": networks, "voltages": [0.8]}
    content |= {"protections": [{"name": "fuse", "neuralfuse": fuse}], "sram": {"structures": ["iid"]}}
    study = parse_study(content, "here")
    points = prepare(StudyFolder(tmp_path / "out", study), lambda name: lambda *_: None)
    assert [path.name for path in (tmp_path / "out" / "generators").iterdir()] == ["source+target-fuse.safetensors"]
    bench = Bench(StudyFolder.open(tmp_path / "out"))
    rows = [bench.measure(Task(point, 0, at_voltage(study, point.accelerator, 0.8))) for point in points]
    assert [row.network for row in rows] == ["source", "target"]
    with pytest.raises(InputError, match="train_on = 'source' is not allowed; allowed: target"):
        parse_study(content | {"networks": networks[1:]}, "here")


def test_a_device_that_is_not_there_is_refused(tmp_path, capsys):
    assert run("sweep", study_file(tmp_path, device="cuda:77"), "--out", tmp_path / "out") == 2
    assert "device = 'cuda:77'" in capsys.readouterr().err


def test_a_training_watched_on_held_out_chips_keeps_the_best_and_stops_early(tmp_path):
    """Steps of a learning rate of nothing never get better: after the first look, `patience` looks end the training."""
    training = {"steps": 50, "maps": 1, "batch": 32, "learning_rate": 1e-12}
    fuse = {
        "generator": "affine",
        "training": training,
        "held_out": {"images": 64, "chips": 2, "every": 2, "patience": 3},
    }
    content = yaml.safe_load(TINY.read_text()) | {"protections": [{"name": "fuse", "neuralfuse": fuse}]}
    seen = []
    prepare(
        StudyFolder(tmp_path / "out", parse_study(content, "here")),
        lambda name: lambda step, steps, found: seen.append(found),
    )
    watched = [found["held_out_accuracy"] for found in seen if "held_out_accuracy" in found]
    assert len(set(watched)) == 1
    assert len(watched) == 2 * 3 + 1  # from step 2 on: three more looks, two steps each
    content["protections"][0]["neuralfuse"]["held_out"] = {"images": 10**6}
    with pytest.raises(InputError, match="images"):
        prepare(StudyFolder(tmp_path / "other", parse_study(content, "here")), lambda name: lambda *_: None)
