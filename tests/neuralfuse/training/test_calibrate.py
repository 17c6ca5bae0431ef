"""Does a transform fitted to one chip help that chip, from training images alone, and is it what is stored?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import data
from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import quantize, weight_parameters
from neuralfuse.training.calibrate import calibrate, calibration_set, moments, storage_bytes
from neuralfuse.training.settings import CalibrationSettings
from neuralfuse.transforms.generators import NeuralFuse, build
from sram.errors import InputError

SIZE = (16, 16)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def faulty(digits):
    """A linear classifier: a few seconds of plain training, and convex in the transform."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(digits.train_x), digits.train_y).backward()
        optimizer.step()
    return FaultyNetwork(network)


def chip(faulty, draw, rate=0.08):
    return IndependentCells(faulty.words.size, (rate,), seed=3)(draw)


def affine(name="affine", seed=0):
    return NeuralFuse(build(name, 1, seed=seed, size=SIZE))


def accuracy(faulty, transform, faults, digits):
    faulty.set_faults(*faults)
    right = correct(lambda x: faulty(transform(x)), digits.test_x, digits.test_y)
    faulty.restore()
    return right / len(digits.test_y)


@pytest.mark.parametrize("supervision", ["labels", "outputs", "statistics"])
def test_every_supervision_helps_its_chip(supervision, faulty, digits):
    """Four chips: better on each, and by more than 5 points on average."""
    gains = []
    for draw in range(4):
        faults, transform = chip(faulty, draw), affine()
        before = accuracy(faulty, transform, faults, digits)  # G = 0: the plain images
        calibrate(faulty, transform, digits, [faults], CalibrationSettings(steps=40, supervision=supervision))
        gains.append(accuracy(faulty, transform, faults, digits) - before)
    assert min(gains) > 0
    assert np.mean(gains) > 0.05


def test_a_fit_in_bfloat16_is_as_good(faulty, digits):
    """Four chips: other numbers, measured in float32, and within 3 points of it on average."""
    gains = []
    for draw in range(4):
        faults, made = chip(faulty, draw), [affine(), affine()]
        for transform, precision in zip(made, ("float32", "bfloat16"), strict=True):
            calibrate(faulty, transform, digits, [faults], CalibrationSettings(steps=40, precision=precision))
        assert not torch.equal(*(transform.generator.scale for transform in made))
        plain, rough = (accuracy(faulty, transform, faults, digits) for transform in made)
        gains.append(rough - plain)
    assert abs(np.mean(gains)) < 0.03


def test_without_faults_the_identity_has_the_statistics_that_it_is_drawn_to(faulty, digits):
    """Few of many images are taken: what the others would have answered is not asked, and must not count as zeros."""
    nothing = (np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint8))
    for steps, allowed in ((1, 1e-9), (4, 0.1)):  # of one batch, exactly; of several, but for what a batch misses
        settings = CalibrationSettings(steps, batch=64, supervision="statistics", learning_rate=1e-9)
        assert calibrate(faulty, affine(), digits, [nothing], settings).loss < allowed


def test_it_is_the_chip_and_not_the_training(faulty, digits):
    """Fitted to its own chip a transform does better than fitted to another one, on average of four pairs."""
    made = []
    for draw in range(4):
        made.append(affine())
        calibrate(faulty, made[-1], digits, [chip(faulty, draw)], CalibrationSettings(steps=40))
    own = [accuracy(faulty, made[i], chip(faulty, i), digits) for i in range(4)]
    other = [accuracy(faulty, made[i - 1], chip(faulty, i), digits) for i in range(4)]
    assert np.mean(own) > np.mean(other) + 0.05


def test_same_arguments_same_numbers_and_test_images_are_never_seen(faulty, digits):
    blind = replace(digits, test_x=torch.full_like(digits.test_x, torch.nan), test_y=digits.test_y * 0)
    made, settings = [], CalibrationSettings(steps=5, images=64, batch=32)
    for found in (digits, blind):
        transform = NeuralFuse(build("ConvS", 1, 4, seed=1))
        calibrate(faulty, transform, found, [chip(faulty, 0)], settings, seed=7)
        made.append(transform.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    few = calibration_set(digits, 16, seed=7)
    assert len(few.train_x) == 16
    assert not len(few.test_x)
    seen = {image.numpy().tobytes() for image in digits.train_x}
    assert all(image.numpy().tobytes() in seen for image in few.train_x)
    assert torch.equal(calibration_set(digits, 128, seed=7).train_x[:16], few.train_x)  # more images contain fewer
    assert not torch.equal(calibration_set(digits, 16, seed=8).train_x, few.train_x)


@pytest.mark.parametrize("name", ["affine", "channel_affine", "universal"])
def test_numbers_of_pixels_are_left_as_words(name, faulty, digits):
    """8 bits, one scale a tensor: at most 255 values, whole multiples of the largest over 127."""
    transform = affine(name)
    calibrate(faulty, transform, digits, [chip(faulty, 1)], CalibrationSettings(steps=10))
    stored = weight_parameters(transform)
    assert sum(p.numel() for p in stored.values()) == sum(p.numel() for p in transform.parameters())
    for numbers in stored.values():
        words, scale = quantize(numbers)
        assert words.any()
        assert torch.equal(words * scale, numbers)
    assert storage_bytes(transform) == {"affine": 512, "channel_affine": 2, "universal": 256}[name]
    assert storage_bytes(transform, bits=4) * 2 == storage_bytes(transform)


def test_one_for_several_voltages_sees_all_of_them(faulty, digits):
    """Trained in turn on two maps it beats, on their mean, what was trained on the first alone."""
    both = [chip(faulty, 2), chip(faulty, 3)]
    one, two = affine(), affine()
    calibrate(faulty, one, digits, both[:1], CalibrationSettings(steps=40))
    calibrate(faulty, two, digits, both, CalibrationSettings(steps=40))
    mean = [np.mean([accuracy(faulty, made, faults, digits) for faults in both]) for made in (one, two)]
    assert mean[1] > mean[0]


@pytest.mark.parametrize("access", ["queries", "evolution"])
def test_queries_are_counted_and_help(access, faulty, digits):
    """2 signs x 4 directions x batch x steps; the chip's answers alone help four chips on average."""
    gains, settings = [], CalibrationSettings(steps=40, batch=32, access=access, supervision="outputs")
    for draw in range(4):
        transform, faults = affine(), chip(faulty, draw)
        before = accuracy(faulty, transform, faults, digits)
        assert calibrate(faulty, transform, digits, [faults], settings).queries == 2 * 4 * 32 * 40
        gains.append(accuracy(faulty, transform, faults, digits) - before)
    assert np.mean(gains) > 0.02


def test_queries_of_a_simulated_chip_are_spsa(faulty, digits):
    made = {}
    for access in ("queries", "spsa", "evolution"):
        made[access] = affine()
        settings = CalibrationSettings(steps=3, batch=16, access=access)
        calibrate(faulty, made[access], digits, [chip(faulty, 0)], settings)
    scale = {access: transform.generator.scale for access, transform in made.items()}
    assert torch.equal(scale["queries"], scale["spsa"])
    assert not torch.equal(scale["spsa"], scale["evolution"])


def test_moments_match_numpy():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    mean, covariance = moments(logits)
    np.testing.assert_allclose(mean, logits.numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(logits.numpy().T, bias=True), atol=1e-6)


def test_the_network_is_left_as_it_was(faulty, digits):
    before = faulty.words.copy()
    for access in ("gradient", "spsa", "evolution"):
        calibrate(faulty, affine(), digits, [chip(faulty, 5)], CalibrationSettings(steps=2, batch=8, access=access))
        assert (faulty.words == before).all()
        assert faulty.flip_rate() == 0


@pytest.mark.parametrize("access", ["gradient", "spsa", "evolution"])
def test_a_fit_that_breaks_off_leaves_no_faults_and_eval_mode(access, faulty, digits):
    def stop(step, steps, figures):
        raise KeyboardInterrupt

    transform, settings = affine(), CalibrationSettings(steps=2, batch=8, access=access)
    with pytest.raises(KeyboardInterrupt):
        calibrate(faulty, transform, digits, [chip(faulty, 5)], settings, progress=stop)
    assert (faulty.words == faulty.clean_words).all()
    assert not transform.training


def test_a_transform_with_dropout_is_fitted_alike_from_any_stream(faulty, digits):
    made = []
    for stream in (0, 1):
        transform = NeuralFuse(nn.Sequential(build("ConvS", 1, 4, seed=1), nn.Dropout()))
        torch.manual_seed(stream)
        calibrate(faulty, transform, digits, [chip(faulty, 0)], CalibrationSettings(steps=3, images=64, batch=32))
        made.append(transform.state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"supervision": "guess"},
        {"access": "none"},
        {"steps": 0},
        {"images": 0},
        {"learning_rate": 0.0},
        {"access": "queries", "supervision": "statistics"},
        {"precision": "float16"},
        {"access": "queries", "precision": "bfloat16"},
        {"access": "evolution", "supervision": "statistics"},
        {"directions": 0},
        {"distance": 0.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError, match=f"calibrate: {next(iter(settings))} = "):
        CalibrationSettings(**settings)


def test_too_many_images_and_several_voltages_by_queries_are_refused(faulty, digits):
    with pytest.raises(InputError, match="1347 training images"):
        calibrate(faulty, affine(), digits, [chip(faulty, 0)], CalibrationSettings(images=5000))
    with pytest.raises(InputError, match="queries"):
        calibrate(faulty, affine(), digits, [chip(faulty, 0)] * 2, CalibrationSettings(access="queries"))
    with pytest.raises(InputError, match="at least one voltage"):
        calibrate(faulty, affine(), digits, [])
