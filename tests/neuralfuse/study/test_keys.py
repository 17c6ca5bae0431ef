"""What the key of a row follows, and what it does not."""

from dataclasses import dataclass, field, replace
from typing import Annotated

from neuralfuse.study import grid
from neuralfuse.study.config import (
    CalibrateConfig,
    ChipsConfig,
    NeuralFuseConfig,
    ProtectionConfig,
    SramConfig,
    Unhashed,
)
from neuralfuse.study.digest import given
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from simulator.accelerator import Accelerator, accelerator


class LaterSram(SramConfig):
    """A study's keys of a later release."""

    more: float = 1.5


@dataclass(frozen=True)
class LaterCalibrate(CalibrateConfig):
    """Settings of a later release."""

    more: int = 3


@dataclass(frozen=True)
class LaterAccelerator(Accelerator):
    """A machine of a later release."""

    more: int = 3


def test_what_comes_later_with_a_default_changes_no_key():
    assert LaterSram(rows=256).given() == SramConfig(rows=256).given() == {"rows": 256}
    assert LaterSram(more=2).given() == {"more": 2}
    assert given(LaterCalibrate(steps=5)) == given(CalibrateConfig(steps=5)) == {"steps": 5}
    machine = accelerator("paper")
    later = LaterAccelerator(**vars(machine))
    assert given(later) == given(machine)
    assert given(replace(later, more=4)) == {**given(machine), "more": 4}


def test_a_note_changes_no_key_and_a_number_does():
    machine = accelerator("edge")
    assert given(replace(machine, note="said otherwise")) == given(machine) != given(replace(machine, array_rows=3))


def test_what_a_hash_leaves_out_is_said_at_the_field():
    """A later model's key is left out where it says so, and by that hash alone; nobody else is told."""

    class Later(SramConfig):
        comment: Annotated[str, Unhashed("folder")] = ""
        more: float = 1.5

    later = Later(comment="x", more=2, structures=("iid",))
    assert later.given("row") == {"comment": "x", "more": 2}
    assert later.given("folder") == {"structures": ["iid"], "more": 2}

    @dataclass(frozen=True)
    class Noted(Accelerator):
        maker: str = field(default="", metadata={"hashed": False})

    machine = accelerator("paper")
    assert given(Noted(**vars(machine), maker="x")) == given(machine)


def test_a_folder_may_grow_in_what_its_hash_leaves_out():
    study = parse_study({"name": "a", "networks": ["resnet8"], "voltages": [0.8]}, "here")
    grown = {"voltages": (0.9, 0.8), "chips": ChipsConfig(evaluation=3), "batch_size": 3, "protections": ()}
    assert study.left_out("folder") == {
        *grown,
        "adaptive",
        "optimize",
        "each_chip",
        "rails",
        "together",
        "operating_points",
        "clock",
        "late_sums",
    }
    assert study.model_copy(update=grown).identity() == study.identity()
    assert study.model_copy(update={"seed": 1}).identity() != study.identity()


def test_weights_follow_no_setting_of_what_is_not_trained():
    fuse = {"generator": "affine", "training": {"steps": 5}, "own_faults": "untrained"}
    trained, fitted = NeuralFuseConfig(**fuse), NeuralFuseConfig(**fuse | {"own_faults": None, "calibrate": {}})
    assert set(trained.given("weights")) == {"generator", "training"}
    assert set(fitted.given("weights")) == {"generator"}
    assert set(trained.given("row")) == {"generator", "training", "own_faults"}


def test_a_default_that_is_written_out_changes_no_key():
    short, long = (
        ProtectionConfig(name="c", neuralfuse={"generator": "affine", "calibrate": settings})
        for settings in ({}, {"steps": 300, "access": "gradient", "knows": 1.0})
    )
    assert short.given() == long.given() == {"name": "c", "neuralfuse": {"generator": "affine", "calibrate": {}}}


def test_what_is_fitted_to_training_images_follows_them(tmp_path, monkeypatch):
    """A chip's transform and its statistics do; an unprotected network's rows follow its weights alone."""
    content = {"networks": ["resnet8"], "voltages": [0.8], "sram": {"structures": ["iid"]}, "name": "images"}
    protections = ["none", "calibrated(affine)", {"batchnorm": {"batches": 1}}]
    folder = StudyFolder(tmp_path, parse_study(content | {"protections": protections}, "here"))
    found = []
    for images in ("some", "others"):
        monkeypatch.setattr(grid, "training_hash", lambda config, images=images: images)
        found.append([point.setup for point in grid.points_of(folder)])
    assert [before == after for before, after in zip(*found, strict=True)] == [True, False, False]
