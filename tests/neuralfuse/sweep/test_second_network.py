"""Is a second network at nominal supply a protection like any other: right, costed, and the same rows everywhere?"""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.report import build_report
from neuralfuse.results.rows import added
from neuralfuse.study import records
from neuralfuse.study.check import check
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.supplies import at_voltage, operating_points
from neuralfuse.sweep import bench as bench_module
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.task import Task
from simulator.energy import energy
from simulator.operating_point import NOMINAL
from sram import faultmap
from sram.errors import InputError
from tests.conftest import swept

LOT, OWN = "fused(small, chips=2, images=64)", "fused(small, fit=per_chip, images=64)"
CASCADE = "cascade(small, 0.6)"
PROTECTIONS = ["none", "secded72", "smaller(small)", LOT, OWN, CASCADE]
PROTECTIONS += [{"sram": ["secded72"], "fused": {"network": "small", "chips": 2, "images": 64}}]
TRAINING = {"epochs": 4, "flip": False, "shift": 1}
STUDY = {
    "name": "second",
    "dataset": {"name": "digits", "test_images": 100},
    "networks": [
        {"name": "big", "build": "resnet8", "options": {"width": 8}, "training": TRAINING},
        {"name": "small", "build": "resnet8", "options": {"width": 4}, "training": TRAINING},
    ],
    "sram": {"structures": ["iid"]},
    "voltages": [0.8, 0.76],
    "chips": {"evaluation": 2},
    "protections": PROTECTIONS,
}


def studied(**changes):
    return parse_study(STUDY | changes, "here")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second") / "out"
    swept(folder, studied())
    return folder


@pytest.fixture(scope="module")
def rows(finished):
    return pd.read_csv(finished / "results.csv")


def answers(finished, chip, voltage, sram=()):
    """Logits of the big network on a chip, and of the small one, worked out apart from `measure`."""
    bench = Bench(StudyFolder.open(finished))
    at = at_voltage(bench.study, "paper", voltage)
    small = bench.nominal("small")(bench.images)
    stored = bench.chip("big", bench_module.Die("paper", "iid", chip), tuple(sram))
    bench.network("big").set_faults(*stored.faults(voltage))
    return bench.network("big")(bench.images), small, bench.labels, at


def test_rows_are_complete_and_none_puts_a_network_beside_itself(rows):
    assert len(rows[rows.network == "big"]) == len(PROTECTIONS) * 2 * 2
    assert set(rows[rows.network == "small"].protection) == {"none", "secded72"}


def test_a_smaller_network_is_itself_without_a_fault(rows, finished):
    smaller = rows[rows.protection == "smaller(small)"]
    alone = rows[(rows.network == "small") & (rows.protection == "none")]
    assert set(smaller.correct) == set(alone.correct_clean)
    assert set(smaller.flip_rate) == {0}
    assert set(smaller.clean_accuracy) == set(rows[rows.network == "big"].clean_accuracy)  # margins are against the big
    folder = StudyFolder.open(finished)
    none = folder.study.protection("none")
    small, big = (folder.cost(name, "paper", none, NOMINAL) for name in ("small", "big"))
    for scope in ("weight_sram", "sram", "chip", "system"):
        energy, reference = (getattr(cost, f"energy_{scope}_pj") for cost in (small, big))
        np.testing.assert_allclose(smaller[f"energy_{scope}_pj"], energy, rtol=1e-12)
        np.testing.assert_allclose(smaller[f"saving_{scope}"], 1 - energy / reference, rtol=1e-12)
    assert set(smaller.cycles) == {small.cycles}


@pytest.mark.parametrize("protection", [LOT, OWN, "secded72+fused(small)"])
def test_fused_answers_are_those_of_the_sum(rows, finished, protection):
    for row in rows[rows.protection == protection].itertuples():
        low, small, labels, at = answers(finished, row.chip, row.voltage, ["secded72"] * (protection[0] == "s"))
        (point,) = (p for p in points_of(StudyFolder.open(finished)) if p.protection == protection)
        weight = Bench(StudyFolder.open(finished)).second.weight(Task(point, row.chip, at))
        shares = [np.exp(x.numpy().astype(float)) for x in (small, low)]
        shares = [x / x.sum(1, keepdims=True) for x in shares]
        product = shares[0] * shares[1] ** weight
        assert (product.argmax(1) == labels.numpy()).sum() == row.correct


def test_both_networks_of_a_fusion_are_paid_for(rows, finished):
    folder = StudyFolder.open(finished)
    none = folder.study.protection("none")
    small = folder.cost("small", "paper", none, NOMINAL)
    for name, behind in ((LOT, "none"), ("secded72+fused(small)", "secded72")):
        fused, alone = (rows[(rows.network == "big") & (rows.protection == each)] for each in (name, behind))
        for column in ("energy_weight_sram_pj", "energy_system_pj", "cycles", "inference_s"):
            expected = alone[column].to_numpy() + getattr(small, column)
            np.testing.assert_allclose(fused[column], expected, rtol=1e-12)


def test_a_cascade_asks_about_the_images_that_the_small_network_is_unsure_of(rows, finished):
    folder = StudyFolder.open(finished)
    small_cost = folder.cost("small", "paper", folder.study.protection("none"), NOMINAL)
    alone = rows[(rows.network == "big") & (rows.protection == "none")].set_index(["voltage", "chip"])
    for row in rows[rows.protection == CASCADE].itertuples():
        low, small, labels, _ = answers(finished, row.chip, row.voltage)
        right = passed = 0
        for one, other, label in zip(small.double(), low, labels, strict=True):
            unsure = bool(one.exp().max() / one.exp().sum() < 0.6)
            passed += unsure
            right += int((other if unsure else one).argmax() == label)
        assert 0 < passed < len(labels)  # else nothing is tested
        assert row.correct == right
        for column in ("energy_weight_sram_pj", "energy_chip_pj", "inference_s"):
            expected = getattr(small_cost, column) + passed / len(labels) * alone[column][row.voltage, row.chip]
            assert getattr(row, column) == pytest.approx(expected, rel=1e-12)


def test_a_pool_gives_the_same_bytes(finished, tmp_path):
    again = tmp_path / "pool"
    shutil.copytree(finished, again)
    shutil.rmtree(again / "rows")
    shutil.rmtree(again / "fusions")
    assert swept(again, studied(), 2) == (finished / "results.csv").read_bytes()


def test_a_fit_sees_no_evaluation_chip_and_no_test_image(finished, tmp_path, monkeypatch):
    """Test images and labels that are noise change no weight; and a fit per lot asks for no chip of the evaluation."""

    def weights(folder, chips):
        shutil.rmtree(folder.path / "fusions")
        bench = Bench(folder)
        bench.images.fill_(torch.nan)
        bench.labels.fill_(-1)
        points = [p for p in points_of(folder) if "fused" in p.protection]
        at = at_voltage(folder.study, "paper", 0.76)
        found = {}
        for point in points:
            made, chip_map = [], bench_module.chip_map

            def recorded(study, geometry, structure, chip, *rest, made=made, chip_map=chip_map):
                made.append(chip)
                return chip_map(study, geometry, structure, chip, *rest)

            with monkeypatch.context() as patch:
                patch.setattr(bench_module, "chip_map", recorded)
                found[point.protection] = bench.second.weight(Task(point, chips, at))
            lot = bench.study.protection(point.protection).fused.fit == "per_lot"
            assert all(chip >= FIRST_TRAINING_CHIP for chip in made) if lot else set(made) <= {chips}
            bench.map.cache_clear()
            bench.chip.cache_clear()
        return found

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    folder = StudyFolder.open(copy)
    kept = {path.relative_to(copy): records.read(path)["weight"] for path in sorted((copy / "fusions").rglob("*.json"))}
    found = weights(folder, 1)
    again = {path.relative_to(copy): records.read(path)["weight"] for path in (copy / "fusions").rglob("*.json")}
    assert len(again) == len(found) == 3
    assert again.items() <= kept.items()


def test_the_weight_follows_the_faults(finished):
    """The more cells fail, the less a chip's network counts."""
    found = {}
    for path in (finished / "fusions").rglob("*.json"):
        record = records.read(path)
        found.setdefault(path.parent.name, {}).setdefault(record["voltage"], []).append(record["weight"])
    assert len(found) == 3
    assert all(np.mean(by[0.8]) >= np.mean(by[0.76]) for by in found.values())
    assert any(np.mean(by[0.8]) > np.mean(by[0.76]) for by in found.values())


def test_everything_that_counts_is_in_the_key(finished):
    def setups(**changes):
        points = points_of(StudyFolder(finished, studied(**changes)))
        return {p.protection: p.setup for p in points if p.network == "big"}

    before = setups()
    other = [*PROTECTIONS[:3], "fused(small, chips=3, images=64)", OWN, "cascade(small, 0.7)"]
    after = setups(protections=other)
    assert {name: setup for name, setup in after.items() if name in before} == {
        name: before[name] for name in [*PROTECTIONS[:3], OWN]
    }
    assert len(set(before.values()) | set(after.values())) == len(before) + 2
    networks = [STUDY["networks"][0], STUDY["networks"][1] | {"bits": 7}]
    changed = setups(networks=networks)
    assert {name for name in before if before[name] == changed[name]} == {"none", "secded72"}


@pytest.mark.parametrize(
    ("protection", "says"),
    [
        ("smaller(smal)", "allowed: small, or another of the networks big"),
        ("fused()", "smaller(NETWORK), fused(NETWORK"),
        ("fused(small, T=3)", "only the keys"),
        ("cascade(small)", "threshold = None is not allowed; allowed: this key is required"),
        ("cascade(small, 1.5)", "less than or equal to 1"),
        ("smaller(small, 3)", "without more"),
        ({"smaller": "small", "sram": ["secded72"]}, "smaller: not with sram"),
        ({"smaller": "small", "fused": "small"}, "fused: not with smaller"),
        ({"fused": "small", "batchnorm": {}}, "fused: not with batchnorm"),
        (
            {"fused": "small", "neuralfuse": {"generator": "affine", "calibrate": {"steps": 2}}},
            "not with calibrate, which fits to each chip; allowed: per_chip",
        ),
    ],
)
def test_mistakes_are_named(protection, says):
    with pytest.raises(InputError) as error:
        studied(protections=[protection])
    assert says in str(error.value)


def test_a_network_alone_has_no_second():
    with pytest.raises(InputError, match="which has one only"):
        studied(networks=STUDY["networks"][1:], protections=["smaller(small)"])


def test_the_page_has_them_in_figures_front_table_and_choice(finished, tmp_path, undrawn):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    made = build_report(copy)
    drawn = {f"accuracy-energy-{scope}-big-digits-paper-ibm14" for scope in ("weight_sram", "chip")}
    assert {name.split("~")[0] for name in made.figures if name.startswith("accuracy-energy")} == drawn
    for table in (made.summary, made.headline):
        assert {"smaller(small)", LOT, OWN, CASCADE} <= set(table[table.network == "big"].protection)
    flat = made.summary[made.summary.protection == "smaller(small)"]
    assert len(flat) == 2
    assert flat.saving_chip.nunique() == flat.accuracy_mean.nunique() == 1
    page = made.page.read_text(encoding="utf-8")
    assert page.count("smaller(small), big, iid") == 4  # a trace in the front of every scope
    assert "smaller one at nominal?" in page


def test_eight_bit_activations_with_weak_buffers_too(tmp_path):
    """A fusion of networks as devices run them, its fit and its answers with the faults of all lowered memories."""
    networks = [network | {"activations": "int8"} for network in STUDY["networks"]]
    changes = {"networks": networks, "voltages": [0.8], "together": ["activations"], "chips": {"evaluation": 1}}
    changes |= {"protections": ["none", "smaller(small)", LOT, CASCADE], "accelerators": ["gap9-like"]}
    swept(tmp_path / "out", studied(**changes))
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    folder = StudyFolder.open(tmp_path / "out")
    bench = Bench(folder)
    (point,) = (p for p in points_of(folder) if p.protection == LOT)
    (at,) = operating_points(folder.study, "gap9-like")
    weight = bench.second.weight(Task(point, 0, at))
    low = bench.low_voltage(Task(point, 0, at), bench_module.Die("gap9-like", "iid", 0), bench.images)
    scores = bench.nominal("small")(bench.images).log_softmax(1) + weight * low.log_softmax(1)
    found = rows[rows.network == "big"].set_index("protection")
    assert found.cell_fault_rate_activations[LOT] > 0
    assert found.correct[LOT] == int((scores.argmax(1) == bench.labels).sum())
    assert found.cycles[LOT] == found.cycles["none"] + found.cycles["smaller(small)"]


def test_measured_chips_have_none_to_train_on(finished, tmp_path):
    """A fit per lot needs training chips; a folder of maps brings those of the evaluation alone."""
    cells = StudyFolder.open(finished).placement("big", "paper").geometry
    for chip in range(2):
        faultmap.save(faultmap.generate(chip, cells, "ibm14", voltage_floor=0.7), tmp_path / f"{chip}.npz")
    check(studied(sram={"map": str(tmp_path)}, protections=[OWN]))
    with pytest.raises(InputError, match="per_chip where chips are measured"):
        check(studied(sram={"map": str(tmp_path)}, protections=[LOT]))


def test_samples_of_a_chip_add_up_to_it(finished):
    """A cascade's energy too, which follows the images of each sample."""
    folder = StudyFolder.open(finished)
    bench, at = Bench(folder), at_voltage(folder.study, "paper", 0.76)
    for point in (p for p in points_of(folder) if p.network == "big" and p.protection in (LOT, CASCADE)):
        whole, *parts = (bench.measure(Task(point, 1, at, part)) for part in (None, (0, 40), (40, 100)))
        both = added(parts)
        assert (both.correct, both.correct_both, both.total) == (whole.correct, whole.correct_both, 100)
        assert both.energy_chip_pj == pytest.approx(whole.energy_chip_pj, rel=1e-12)
        assert both.cycles == pytest.approx(whole.cycles, abs=1)  # each sample's are whole numbers


def test_a_chip_s_own_transform_goes_with_a_fusion_of_its_own(finished, tmp_path):
    """The weight is fitted behind the transform of the chip; the second network sees images as they are."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    fit = {"generator": "affine", "calibrate": {"steps": 2, "images": 32, "batch": 32}}
    both = {"name": "both", "neuralfuse": fit, "fused": {"network": "small", "fit": "per_chip", "images": 64}}
    swept(copy, studied(protections=["none", both], voltages=[0.76], chips={"evaluation": 1}))
    folder = StudyFolder.open(copy)
    bench, at = Bench(folder), at_voltage(folder.study, "paper", 0.76)
    (point,) = (p for p in points_of(folder) if (p.network, p.protection) == ("big", "both"))
    task = Task(point, 0, at)
    scores = bench.nominal("small")(bench.images).log_softmax(1)
    scores += bench.second.weight(task) * bench.low_voltage(task, bench_module.die_of(task), bench.images).log_softmax(
        1
    )
    rows = pd.read_csv(copy / "results.csv")
    (row,) = rows[(rows.network == "big") & (rows.protection == "both")].itertuples()
    assert row.correct == int((scores.argmax(1) == bench.labels).sum())
    none = rows[(rows.network == "big") & (rows.protection == "none")]
    alone = folder.cost("small", "paper", folder.study.protection("none"), NOMINAL)
    transform = energy(folder.counts("paper", "big", "both")).scope_pj("weight_sram")
    expected = none.energy_weight_sram_pj.iloc[0] + alone.energy_weight_sram_pj + transform
    assert row.energy_weight_sram_pj == pytest.approx(expected, rel=1e-12)
