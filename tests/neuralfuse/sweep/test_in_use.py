"""Do chips drift, flicker and hide faults as a study says, while what is fitted to them knows the old map alone; and do
BatchNorm's statistics of the chip, and networks trained on, come out as asked?"""

import numpy as np
import pytest
import torch
import yaml

from neuralfuse import data, networks
from neuralfuse.quantized.checkpoint import save_network
from neuralfuse.study.config import NetworkConfig, ProtectionConfig, SramConfig
from neuralfuse.study.files import dump_study, parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import at_voltage
from neuralfuse.sweep.bench import ACCESS, Bench, Die
from neuralfuse.sweep.task import Task
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import NetworkSettings
from sram.errors import InputError
from sram.progress import silent

VOLTAGE, DRIFT = 0.81, 0.004
FITTED = {"name": "fitted", "neuralfuse": {"generator": "affine", "calibrate": {"steps": 5, "batch": 32}}}
OWN = {"name": "own statistics", "batchnorm": {"batches": 4, "batch": 64}}
HARDENED = {**OWN, "name": "both", "sram": ["hardened_msb:1"]}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A bench of the study with some keys replaced; all share a network."""
    folder = tmp_path_factory.mktemp("in_use")
    network = networks.build("resnet8", in_channels=1, width=4)
    train_network(network, data.load("digits"), NetworkSettings(3, shift=1, flip=False))
    save_network(folder / "base.safetensors", network, {})
    made = iter(range(100))

    def build(network=None, sram=None, protections=("none", FITTED, OWN, HARDENED)) -> tuple[Bench, list]:
        entry = {"name": "resnet8", "options": {"width": 4}, "checkpoint": str(folder / "base.safetensors")}
        content = {"name": "in use", "dataset": {"name": "digits", "test_images": 200}, "networks": [network or entry]}
        content |= {"sram": {"structures": ["iid"], "schedule": "resident", **(sram or {})}}
        content |= {"voltages": [1.0, VOLTAGE], "protections": list(protections)}
        kept = StudyFolder(folder / str(next(made)), parse_study(content, "in use"))
        return Bench(kept), prepare(kept, silent)

    build.base = folder / "base.safetensors"  # type: ignore[attr-defined]
    return build


@pytest.fixture(scope="module")
def fresh(bench):
    return bench()


@pytest.fixture(scope="module")
def drifted(bench):
    return bench(sram={"drift": DRIFT})


@pytest.fixture(scope="module")
def flickering(bench):
    return bench(sram={"noise": 0.2})


def row(made, protection, chip=0, voltage=VOLTAGE):
    bench, points = made
    at = at_voltage(bench.study, "paper", voltage)
    return bench.measure(Task(next(p for p in points if p.protection == protection), chip, at))


def bits(faults) -> set:
    return set(zip(*(part.tolist() for part in faults), strict=True))


def now(made, chip=0) -> set:
    """What reads wrong in use."""
    bench, _ = made
    return bits(bench.chip("resnet8", bench.now(Die("paper", "iid", chip)), ()).faults(VOLTAGE, ACCESS))


def then(made, chip=0) -> set:
    """What read wrong when the chip was characterised."""
    return bits(made[0].chip("resnet8", Die("paper", "iid", chip), ()).faults(VOLTAGE))


def fitted(made) -> dict[str, torch.Tensor]:
    return made[0].calibrated("resnet8", "fitted", Die("paper", "iid", 0), (VOLTAGE,)).state_dict()


def same(one, other) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_drifted_chip_fails_as_at_a_lower_supply_and_costs_what_its_own_does(fresh, drifted, bench):
    lower = bench(sram={})[0].study.model_copy(update={"voltages": (1.0, VOLTAGE - DRIFT)})
    folder = StudyFolder(fresh[0].folder.path, lower)
    at_lower = bits(Bench(folder).chip("resnet8", Die("paper", "iid", 0), ()).faults(VOLTAGE - DRIFT))
    assert now(drifted) == at_lower
    assert now(drifted) > now(fresh) == then(drifted)
    before, after = row(fresh, "none"), row(drifted, "none")
    assert after.cell_fault_rate > before.cell_fault_rate
    assert after.saving_weight_sram == before.saving_weight_sram


def test_a_fit_knows_the_chip_as_it_was_characterised(fresh, drifted):
    assert same(fitted(fresh), fitted(drifted))
    assert row(drifted, "fitted").correct != row(fresh, "fitted").correct


def test_cells_that_flicker_differ_from_access_to_access_around_what_is_known(flickering):
    made, known, met = flickering[0], then(flickering), now(flickering)
    assert known - met
    assert met - known
    assert len(met) == pytest.approx(len(known), rel=0.3)
    other = made.chip("resnet8", Die("paper", "iid", 0), ()).faults(VOLTAGE, ACCESS + 1)
    assert bits(other) != met


def test_flickering_words_behind_a_code_are_read_in_that_access(bench):
    made, _ = bench(sram={"noise": 0.2}, protections=["none", "secded72"])
    chip = made.chip("resnet8", Die("paper", "iid", 0), ("secded72",))
    left, access = bits(chip.faults(VOLTAGE)), bits(chip.faults(VOLTAGE, ACCESS))
    assert left != access
    assert len(access) < len(bits(made.chip("resnet8", Die("paper", "iid", 0), ()).faults(VOLTAGE, ACCESS)))


def test_a_fit_that_knows_a_share_of_the_faults_is_another(fresh, bench):
    partly = {**FITTED["neuralfuse"], "calibrate": {**FITTED["neuralfuse"]["calibrate"], "knows": 0.5}}
    made = bench(protections=["none", {"name": "fitted", "neuralfuse": partly}])
    assert not same(fitted(fresh), fitted(made))
    assert then(made) == then(fresh)


def test_statistics_of_the_chip_win_back_accuracy_for_no_energy(fresh):
    own, bare, both = ([row(fresh, name, chip) for chip in range(4)] for name in ("own statistics", "none", "both"))
    gain = np.mean([one.correct - other.correct for one, other in zip(own, bare, strict=True)])
    assert gain > 0.02 * 200
    assert [r.saving_system for r in own] == [r.saving_system for r in bare]
    assert {r.correct_clean for r in own} == {r.correct_clean for r in bare}
    assert all(one.flip_rate < other.flip_rate for one, other in zip(both, bare, strict=True))
    again = row(fresh, "own statistics", 0)
    assert again.correct == own[0].correct


def test_a_network_is_trained_on_from_its_start(bench):
    start = str(bench.base)
    entry = {"name": "resnet8", "options": {"width": 4}, "start": start}
    training = {"epochs": 1, "flip": False, "shift": 0, "learning_rate": 1e-6}
    near, _ = bench({**entry, "training": training}, protections=["none"])
    base, _ = bench(protections=["none"])
    words, others = near.network("resnet8").words.astype(int), base.network("resnet8").words.astype(int)
    assert np.abs(words - others).mean() < 0.5
    far, _ = bench({**entry, "training": {**training, "learning_rate": 0.05}}, protections=["none"])
    assert np.abs(far.network("resnet8").words.astype(int) - others).mean() > 1


def test_what_is_not_asked_for_leaves_a_study_and_its_rows_as_they_were(fresh):
    text = dump_study(fresh[0].study)
    assert parse_study(yaml.safe_load(text), "again") == fresh[0].study
    assert not {"drift", "noise"} & set(fresh[0].study.sram.given())
    assert ProtectionConfig(name="none").given() == {"name": "none"}
    assert SramConfig().given() == {}
    partly = ProtectionConfig(name="x", neuralfuse={"generator": "affine", "calibrate": {"knows": 0.9}})
    assert partly.model_dump(mode="json")["neuralfuse"]["calibrate"]["knows"] == 0.9


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "x", "batchnorm": {}, "neuralfuse": {"generator": "tiny", "checkpoint": "c"}}, "not with neuralfuse"),
        ({"name": "x", "batchnorm": {"batches": 0}}, "batches"),
        ({"name": "x", "neuralfuse": {"generator": "tiny", "calibrate": {"knows": 0}}}, "knows"),
        ({"name": "x", "neuralfuse": {"generator": "tiny", "calibrate": {"knows": 0.5, "access": "queries"}}}, "knows"),
    ],
)
def test_what_does_not_go_together_is_refused(entry, words):
    study = {"name": "s", "networks": [{"name": "resnet8"}], "voltages": [1.0], "protections": [entry]}
    with pytest.raises(InputError, match=words):
        parse_study(study, "test")


def test_statistics_need_a_network_that_has_some_and_a_start_is_trained(bench, tmp_path):
    with pytest.raises(InputError, match="networks with BatchNorm"):
        bench({"name": "resnet8", "options": {"width": 4}, "checkpoint": str(bench.base), "activations": "int8"})
    with pytest.raises(ValueError, match="not with checkpoint"):
        NetworkConfig(name="resnet8", start="a", checkpoint="b")
