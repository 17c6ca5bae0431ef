"""Do the fits of the comparison do what their names say? On digits, with a small network trained for seconds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.beyond.fits import Fit, Fitter, Prior, in_turn, reptile
from benchmarks.beyond.lot import BY_LAYER, CANARIES, LEAST_SAVING, SPAN, Lot, Plan
from benchmarks.beyond.methods import METHODS, after, run
from benchmarks.beyond.retrained import CLIP, retrained
from neuralfuse import data, networks
from neuralfuse.quantized.checkpoint import load_network, save, save_network
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.prepare import prepare
from neuralfuse.training.calibrate import Settings, calibrate
from neuralfuse.training.network import train_network
from neuralfuse.transforms.generators import NeuralFuse, build

SETTINGS = Settings(20, 64)


def silent(title):
    return lambda step, steps, figures: None


@pytest.fixture(scope="module")
def lot(tmp_path_factory):
    folder, digits = tmp_path_factory.mktemp("beyond"), data.load("digits")
    network = networks.build("resnet8", in_channels=1, width=8)
    train_network(network, digits, epochs=4, shift=2, flip=False)
    save_network(folder / "base.safetensors", network, {})
    unets = build("UNetS", 1, seed=5)
    save(folder / "unets.safetensors", unets.state_dict(), {})
    entry = {"name": "resnet8", "options": {"width": 8}, "checkpoint": str(folder / "base.safetensors")}
    generic = {"generator": "tiny", "training": dict(steps=1, maps=1, batch=8)}
    plan = Plan({"name": "digits"}, entry, "iid", 0.03, "ibm14", "resident", generic,
                {"UNetS": str(folder / "unets.safetensors")})  # fmt: skip
    prepare(StudyFolder(folder / "study", plan.study()), silent)
    return Lot(folder / "study")


def method(name, condition="main"):
    return next(m for m in METHODS if (m.name, m.condition) == (name, condition))


def bits(faults):
    return set(zip(*(part.tolist() for part in faults), strict=True))


@pytest.mark.parametrize(("condition", "within"), [("drifted", 2 * SPAN / CANARIES), ("aged", 0.003)])
def test_canaries_find_the_drift_and_bring_the_known_map_nearer_to_the_true_one(lot, condition, within):
    """All cells move by 2 mVmin: known to the distance of two canaries (a scatter of 4 mVmin makes that worse)."""
    true = lot.voltages["main"] - lot.voltages["drifted"]
    for chip in range(5):
        assert lot.canaries(chip, condition).shift == pytest.approx(true, abs=within)
        assert lot.canaries(chip, "main").changed == 0
        now = bits(lot.faults(chip, condition)[0])
        before, expected = bits(lot.faults(chip)[0]), bits(lot.expected(chip, condition))
        if condition == "drifted":
            assert len(now ^ expected) < len(now ^ before)
            assert now > before  # maps are nested


def test_canaries_without_drift_leave_the_map_as_it_is(lot):
    assert bits(lot.expected(3, "main")) == bits(lot.faults(3)[0])


def test_a_kept_fit_is_the_fit_made_anew(lot):
    """Two methods that share a fit, in either order, and with nothing kept."""
    at = [method("affine"), method("affine, recalibrated", "drifted")]
    both, alone = Fitter(lot, SETTINGS), [Fitter(lot, SETTINGS) for _ in at]
    kept = [run(m, both, 1, 0) for m in at]
    assert [one.accuracy for one in kept] == [run(m, f, 1, 0).accuracy for m, f in zip(at, alone, strict=True)]
    assert [one.took.steps for one in kept] == [20, 5]


def test_a_fit_behind_a_protected_memory_sees_what_it_leaves(lot):
    """With every bit hardened there is nothing to see, with none all of the chip's faults."""
    fitter, twin = Fitter(lot, SETTINGS), lot.transform("affine", None, 0)
    calibrate(lot.faulty, twin, lot.data, [lot.faults(2, "main", "hardened_msb:8")[0]], SETTINGS, seed=0)
    assert not lot.faults(2, "main", "hardened_msb:8")[0][0].size
    protected = fitter(Fit("affine", sram="hardened_msb:8"), 2, 0).transform.state_dict()
    bare = fitter(Fit("affine"), 2, 0).transform.state_dict()
    for name, tensor in twin.state_dict().items():
        assert torch.equal(tensor, protected[name])
    assert any(not torch.equal(tensor, protected[name]) for name, tensor in bare.items())


def test_layers_are_hardened_as_far_as_the_saving_allows(lot):
    """The choice is made once, leaves what it has to, and takes faults away in the layers that it names alone."""
    faults, overhead = lot.faults(1, "main", BY_LAYER)
    saving, _ = lot.savings(None, "main", overhead)
    bare, _ = lot.savings(None, "main", lot.faults(1)[1])
    assert LEAST_SAVING <= saving < bare
    names, hard = rules(lot.hardened_layers)
    kept = dict(zip(names, hard, strict=True))
    assert len(kept) == len(names) > 0
    left, every = bits(faults), bits(lot.faults(1)[0])
    for layer in lot.faulty.layer_table:
        inside = {f for f in every if layer.offset <= f[0] < layer.offset + layer.size}
        soft = 8 - kept.get(layer.name.removesuffix(".weight"), 0)
        assert left & inside == {f for f in inside if f[1] < soft}


def rules(text):
    """Layers that a protection names, and the bits of each."""
    pairs = [rule.split("@") for rule in text.removeprefix("hardened_msb:").split(";")]
    return [n for _, names in pairs for n in names.split(",")], [int(b) for b, names in pairs for _ in names.split(",")]


def test_recalibration_helps_after_a_drift(lot):
    """Sum over three chips; what is fitted to the faults of now is better than what was fitted to those of before."""
    fitter, total = Fitter(lot, SETTINGS), {}
    for chip in range(3):
        for m in (method("affine", "drifted"), method("affine, recalibrated", "drifted")):
            total[m.name] = total.get(m.name, 0) + run(m, fitter, chip, 0).accuracy
    assert total["affine, recalibrated"] > total["affine"]
    assert after("drifted", "affine", canaries=True).canaries


def test_a_generic_generator_comes_from_its_checkpoint(lot):
    unets = NeuralFuse(build("UNetS", 1, seed=5)).eval()
    made = lot.transform("generic UNetS", None, 0)
    x = lot.data.test_x[:4]
    assert torch.allclose(made(x), unets(x), atol=0.02)  # its weights rounded to 8 bits
    assert 0 <= run(method("generic UNetS"), Fitter(lot, SETTINGS), 0, 0).accuracy <= 1


def test_reptile_with_one_chip_is_that_fit_and_with_more_lies_between(lot):
    draw, settings = lot.training_chips(), Settings(5, 32)
    prior, fit = lot.transform("affine", None, 0), lot.transform("affine", None, 0)
    reptile(lot, prior, [draw(0)], settings, 0)
    calibrate(lot.faulty, fit, lot.data, [draw(0)], settings, seed=0)
    assert torch.equal(prior.generator.scale, fit.generator.scale)
    assert prior.generator.scale.abs().max() > 0
    turns = lot.transform("affine", None, 0)
    in_turn(lot, turns, [draw(0)], settings, 0)
    assert torch.equal(turns.generator.scale, fit.generator.scale)


def test_training_chips_are_none_of_the_measured_ones(lot):
    measured = [bits(lot.faults(chip)[0]) for chip in range(3)]
    for draw in range(3):
        mine = bits(lot.training_chips()(draw))
        assert all(len(mine & other) < 0.2 * len(mine) for other in measured)


def test_a_prior_is_made_once_and_not_changed_by_the_chips(lot):
    fitter, prior = Fitter(lot, replace(SETTINGS, batch=16)), Prior("affine", "reptile", chips=2, steps=2)
    before = fitter.prior(prior, 0).generator.scale.clone()
    fitter(Fit(prior), 0, 0)
    assert torch.equal(fitter.prior(prior, 0).generator.scale, before)


def test_retraining_with_random_bit_errors_makes_the_network_last(lot, tmp_path):
    """Mean over five chips, the same for both networks; a second call reads the file."""
    path = tmp_path / "randbet.safetensors"
    other = lot.holding(retrained(lot.bench, lot.name, path, 0.03, 5, silent))
    network = networks.build("resnet8", in_channels=1, width=8)
    load_network(network, path)
    assert float(network.stem[0].weight.detach().abs().max()) <= CLIP + 1e-6
    mean = {
        one: np.mean([one.accuracy(one.seen(None), lot.faults(chip)[0]) for chip in range(5)]) for one in (lot, other)
    }
    assert mean[other] > mean[lot]
    again = lot.holding(retrained(lot.bench, lot.name, path, 0.03, 5, silent))
    assert (again.faulty.words == other.faulty.words).all()


def test_a_retraining_has_a_seed(lot, tmp_path):
    """Of the order of images and of the bits that flip."""
    made = [
        retrained(lot.bench, lot.name, tmp_path / f"{i}.safetensors", 0.03, 1, silent, seed).words
        for i, seed in enumerate((0, 0, 1))
    ]
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any()
