"""Are test images corrupted as the constants say, the same every time, worse with severity, and no training image?"""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from neuralfuse.data import load
from neuralfuse.data.corruption import CHUNK, KINDS, corrupted
from neuralfuse.study.check import check
from neuralfuse.study.config import CorruptionConfig
from neuralfuse.study.data import test_set as images_of
from neuralfuse.study.data import training_hash
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from sram.errors import InputError

DIGITS = load("digits").test_x


def study(corruption=None, **dataset):
    dataset |= {"corruption": corruption} if corruption else {}
    return parse_study({"name": "s", "dataset": dataset, "networks": ["resnet8"], "voltages": [0.8]}, "here")


def test_a_study_can_name_each_kind():
    assert set(get_args(CorruptionConfig.model_fields["kind"].annotation)) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_more_severe_is_farther_away_and_in_range(kind):
    away = []
    for severity in range(1, 6):
        found = corrupted(DIGITS, kind, severity)
        assert found.shape == DIGITS.shape
        assert found.abs().max() <= 1
        assert torch.equal(found, corrupted(DIGITS, kind, severity))
        away.append((found - DIGITS).abs().mean().item())
    assert away == sorted(away)
    assert away[0] > 0


def test_noise_has_its_deviation_and_seed():
    grey = torch.zeros(400, 1, 32, 32)
    found = corrupted(grey, "gaussian_noise", 2)
    assert found.std().item() / 2 == pytest.approx(0.1, rel=0.01)  # 409,600 numbers: 9 standard errors
    assert not torch.equal(found, corrupted(grey, "gaussian_noise", 2, seed=1))
    assert len(found.unique(dim=0)) == 400
    assert torch.equal(found[:CHUNK], corrupted(grey[:CHUNK], "gaussian_noise", 2))


def test_blur_is_a_gaussian():
    image = torch.rand(1, 2, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    want = [gaussian_filter(part, 0.04 * 20, mode="nearest", truncate=3 / 0.8) for part in image[0].numpy()]
    np.testing.assert_allclose(corrupted(image, "blur", 3)[0].numpy(), want, atol=1e-6)


def test_brightness_contrast_and_pixels():
    image = torch.tensor([[[[-1.0, -1.0, 0.0, 0.0], [-1.0, -1.0, 0.0, 0.0], [1.0] * 4, [1.0, 1.0, 0.0, 0.0]]]])
    assert torch.allclose(corrupted(image, "brightness", 5), (image + 1).clamp(-1, 1))
    flat = corrupted(image, "contrast", 4)
    assert torch.allclose(flat - image.mean(), 0.3 * (image - image.mean()), atol=1e-6)
    assert corrupted(image, "pixelate", 1)[0, 0, :, ::2].tolist() == [[-1, 0], [-1, 0], [1, 0.5], [1, 0.5]]


def test_an_image_is_the_same_in_a_sample_and_training_is_as_it_was():
    worse = {"kind": "gaussian_noise", "severity": 3}
    chosen = torch.randperm(450, generator=torch.Generator().manual_seed(0))[:50]
    assert torch.equal(images_of(study(worse, test_images=50).dataset)[0], images_of(study(worse).dataset)[0][chosen])
    assert training_hash(study(worse).dataset) == training_hash(study().dataset)


def test_it_is_in_the_key_of_rows(tmp_path):
    kinds = [None, *({"kind": kind} for kind in KINDS), {"kind": "blur", "severity": 4}]
    kinds += [{"kind": "gaussian_noise", "seed": 1}]
    assert len({points_of(StudyFolder(tmp_path / "out", study(kind)))[0].setup for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ({"corruption": {"kind": "fog"}}, "corruption.kind"),
        ({"corruption": {"kind": "blur", "severity": 6}}, "corruption.severity"),
        ({"name": "digits-rows", "corruption": {"kind": "blur"}}, "dataset.corruption = 'blur'.*are no images"),
    ],
)
def test_what_there_is_not_is_one_message(dataset, says):
    with pytest.raises(InputError, match=says):
        check(study(**dataset))
