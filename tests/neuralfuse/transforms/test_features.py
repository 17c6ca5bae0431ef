"""Do transforms of features add what they say, in studies too, and refuse what they are not for?"""

import pytest
import torch

from neuralfuse.results.tables import read_results
from neuralfuse.study.check import check
from neuralfuse.study.data import build_transform
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from neuralfuse.transforms import features
from neuralfuse.transforms.features import FeatureFuse
from sram.errors import InputError
from sram.progress import silent

LSTM = {"name": "lstm", "options": {"width": 16}}
TRAINING = {"epochs": 8, "batch": 64, "optimizer": "adamw", "learning_rate": 0.01}
MIXER = {"generator": "mixer", "train_voltages": [0.8], "training": {"steps": 20, "batch": 16, "maps": 1}}

AFFINE = {"name": "affine", "neuralfuse": {"generator": "affine", "calibrate": {"steps": 25}}}


def study_of(*protections, **keys):
    content = {
        "name": "features",
        "dataset": {"name": "digits-rows", "test_images": 60},
        "networks": [LSTM | {"training": TRAINING}],
        "voltages": [1.0, 0.8],
        "sram": {"structures": ["column"], "schedule": "resident"},
        "chips": {"evaluation": 3},
        "protections": ["none", *protections],
    }
    return parse_study(content | keys, "features")


def test_affine_is_a_factor_and_an_offset_a_feature_at_every_step():
    fuse = FeatureFuse(features.build("affine", 3))
    x = 5 * torch.randn(2, 4, 3)
    assert torch.equal(fuse(x), x)  # at first, and without bounds
    with torch.no_grad():
        fuse.generator.scale.copy_(torch.tensor([0.5, 0.0, -1.0]))
        fuse.generator.offset.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.allclose(fuse(x), torch.stack([1.5 * x[..., 0] + 1, x[..., 1] + 2, torch.full((2, 4), 3.0)], -1))


def test_the_mixer_works_step_by_step_and_adds_nothing_at_first():
    fuse = FeatureFuse(features.build("mixer", 3, seed=1, width=7))
    x = torch.randn(2, 4, 3)
    assert torch.equal(fuse(x), x)
    torch.nn.init.normal_(fuse.generator[2].weight)
    assert torch.allclose(fuse(x)[:, 2], fuse(x[:, 2]), atol=1e-6)
    assert not torch.allclose(fuse(x), x)
    again = features.build("mixer", 3, seed=1, width=7)
    assert torch.equal(again[0].weight, fuse.generator[0].weight)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(folder, rows) of a study with one that is fitted to each chip, one trained for all, and one for each supply."""
    each = {"name": "each", "neuralfuse": MIXER | {"train_voltages": [0.8, 0.84], "per_voltage": "each"}}
    study = study_of(AFFINE, {"name": "mixer", "neuralfuse": MIXER}, each)
    folder = StudyFolder(tmp_path_factory.mktemp("features") / "out", study)
    run_study(folder, choose(workers=1), silent)
    return folder, read_results(folder.path)


def test_a_study_has_a_row_for_every_chip_behind_each_of_them(rows):
    folder, found = rows
    assert found.protection.value_counts().to_dict() == dict.fromkeys(("none", "affine", "mixer", "each"), 6)
    kinds = {type(build_transform(p.neuralfuse, folder.study)) for p in folder.study.protections if p.neuralfuse}
    assert kinds == {FeatureFuse}


def test_a_fit_finds_what_it_was_fitted_to(rows):
    """Three chips at a supply where they lose tens of points: a fit with gradients through the very faults loses less,
    on the images of the test, which it has not seen."""
    _, found = rows
    low = found[found.voltage == 0.8].groupby("protection").accuracy.mean()
    assert low["none"] < found.clean_accuracy.iloc[0] - 0.1
    assert low["affine"] > low["none"]


def test_its_numbers_are_stored_and_its_work_is_counted(rows):
    folder, found = rows
    first = found[found.voltage == 1.0].groupby("protection").first()
    assert (first.saving_chip[["affine", "mixer"]] < 0).all()
    words = 16 * 64 + 64 * 16
    assert folder.workload("lstm", "mixer").weights == words


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"protections": [{"neuralfuse": MIXER | {"generator": "ConvS"}}]}, "name = 'ConvS' .*affine, mixer"),
        ({"protections": [{"neuralfuse": MIXER | {"options": {"width": 0}}}]}, "width"),
        ({"protections": [{"neuralfuse": {"generator": "affine", "options": {"width": 2}, "calibrate": {}}}]}, "none"),
        (
            {"protections": [{"neuralfuse": MIXER | {"training": {"steps": 1, "class_steps": 2}}}]},
            "class_steps.* no images to paint on",
        ),
        (
            {"dataset": {"name": "text", "size": 16, "test_images": 4}, "networks": ["chardecoder"], "metric": "bits",
             "protections": ["calibrated(affine)"]},
            "no images or features of a class each",
        ),
    ],
)  # fmt: skip
def test_what_they_are_not_for_is_one_message(changes, says):
    with pytest.raises(InputError, match=says):
        check(study_of(**changes) if "protections" not in changes else study_of(*changes.pop("protections"), **changes))
