"""Is a transform of each chip's own a protection like any other: the same rows everywhere, and costed?"""

import shutil

import pandas as pd
import pytest

from neuralfuse.quantized import checkpoint
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.prepare import trainings_to_do
from neuralfuse.sweep.bench import Bench, Die
from sram.errors import InputError
from tests.conftest import swept

SHORT = {"steps": 3, "images": 64, "batch": 32}
PROTECTIONS = [
    "none",
    "calibrated(affine, steps=3, images=64, batch=32)",
    {"name": "lowest", "neuralfuse": {"generator": "affine", "calibrate": {**SHORT, "at": "lowest"}}},
    {"name": "all", "neuralfuse": {"generator": "universal", "calibrate": {**SHORT, "at": "all"}}},
    "calibrated(ConvS, width=2, steps=2, images=32)",
]


STUDY = {
    "name": "calibrated",
    "dataset": {"name": "digits", "test_images": 120},
    "networks": [{"name": "resnet8", "options": {"width": 4}, "training": {"epochs": 1, "flip": False, "shift": 1}}],
    "sram": {"structures": ["iid"]},
    "voltages": [0.8, 0.76],
    "chips": {"evaluation": 2},
    "protections": PROTECTIONS,
}


def studied(**changes):
    return parse_study(STUDY | changes, "here")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated") / "out"
    swept(folder, studied())
    return folder


def test_a_pool_gives_the_same_bytes(finished, tmp_path):
    again = tmp_path / "pool"
    shutil.copytree(finished, again)
    shutil.rmtree(again / "rows")
    assert swept(again, studied(), 2) == (finished / "results.csv").read_bytes()


def test_rows_are_complete_and_cost_their_words(finished):
    results = pd.read_csv(finished / "results.csv")
    assert len(results) == len(PROTECTIONS) * 2 * 2  # voltages, chips
    energy = results.groupby(["protection", "voltage"]).energy_weight_sram_pj.first().unstack()
    extra = (energy - energy.loc["none"])[0.8]
    # scale and offset are twice the words of an offset alone
    assert extra["lowest"] == pytest.approx(2 * extra["all"])
    assert extra["all"] > 0
    workload = StudyFolder.open(finished).workload("resnet8", "lowest")
    assert sum(layer.constants for layer in workload.layers) == 2 * 16 * 16


def test_one_for_all_voltages_is_the_lowest_ones_own(finished):
    """At the lowest voltage `lowest` is what `each` is; above, not."""
    bench = Bench(StudyFolder.open(finished))
    each, lowest = PROTECTIONS[1], "lowest"
    made = {
        (name, voltage): bench.calibrated("resnet8", name, Die("paper", "iid", 0), (voltage,)).state_dict()
        for name, voltage in ((each, 0.76), (lowest, 0.76), (each, 0.8))
    }
    same = [made[each, 0.76]["generator.scale"].equal(made[lowest, 0.76]["generator.scale"])]
    same.append(made[each, 0.76]["generator.scale"].equal(made[each, 0.8]["generator.scale"]))
    assert same == [True, False]
    results = pd.read_csv(finished / "results.csv").query("voltage == 0.76").set_index("chip")
    assert (results[results.protection == each].correct == results[results.protection == lowest].correct).all()


def test_nothing_is_trained_before_the_chips_are_seen(finished):
    assert trainings_to_do(StudyFolder(finished, studied())) == []
    start, _ = checkpoint.load(finished / "generators" / "resnet8-lowest.safetensors")
    assert not start["scale"].any()
    warm = studied(protections=["calibrated(ConvS, warm=true)"])
    assert trainings_to_do(StudyFolder(finished, warm)) == ["calibrated(ConvS, warm=true) for resnet8"]


def test_every_setting_is_in_the_key(finished):
    """Voltages too, where one transform is made from several."""

    def setups(**changes):
        return [point.setup for point in points_of(StudyFolder(finished, studied(**changes)))]

    longer = [*PROTECTIONS[:2], {**PROTECTIONS[2], "neuralfuse": {"generator": "affine", "calibrate": SHORT}}]
    before = setups()
    assert [a == b for a, b in zip(before, setups(protections=longer), strict=False)] == [True, True, False]
    assert [a == b for a, b in zip(before, setups(voltages=[0.8, 0.77]), strict=True)] == [
        *(True, True),
        *(False, False),
        True,
    ]


@pytest.mark.parametrize(
    ("protection", "says"),
    [
        ("calibrated()", "calibrated(GENERATOR)"),
        ("calibrated(affine, speed=3)", "only the keys"),
        ("calibrated(affine, steps=0)", "greater than or equal to 1"),
        ("calibrated(affine, access=queries, at=all)", "queries' is not allowed; allowed: gradient, at all voltages"),
        ("calibrated(affine, at=noon)", "'each', 'lowest' or 'all'"),
    ],
)
def test_mistakes_in_short_forms_are_named(protection, says):
    with pytest.raises(InputError) as error:
        studied(protections=[protection])
    assert says in str(error.value)
