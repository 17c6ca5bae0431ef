"""Does each stage before EOPM teach what it says, and nothing else, and does a killed one end the same?"""

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import weight_parameters
from neuralfuse.study.files import Study
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.painting import Patterns, Trunk, paint_first
from neuralfuse.training.settings import GeneratorSettings
from neuralfuse.transforms import generators
from sram.errors import InputError
from tests.neuralfuse.training.test_training import same, tiny_data, train_tiny, write_always

# places and channels of the map that a generator is narrowest at, for images of 32x32, from the paper's tables
NARROWEST = {"ConvL": (16, 128), "ConvS": (16, 64), "DeConvL": (16, 128), "DeConvS": (16, 64), "UNetL": (16, 128),
             "UNetS": (16, 64), "tiny": (1024, 8)}  # fmt: skip
STAGES = {"class_steps": 4, "pattern_steps": 3, "paint_steps": 5}


@pytest.mark.parametrize("name", NARROWEST)
def test_the_head_sits_where_the_generator_is_narrowest_and_the_layers_behind_it_do_not_run(name):
    trunk = Trunk(generators.NeuralFuse(generators.build(name)), torch.zeros(1, 3, 32, 32), 10)
    logits = trunk(torch.rand(2, 3, 32, 32))
    assert (logits.shape[2], trunk.head.in_features) == NARROWEST[name]
    logits.sum().backward()
    reached = [parameter.grad is not None for parameter in trunk.generator.parameters()]
    assert any(reached)
    assert reached == sorted(reached, reverse=True)  # from the first layer on
    assert list(weight_parameters(trunk.generator).values())[-1].grad is None


def staged(name, **stages):
    """A generator after some stages, and the losses of each."""
    fuse, losses = generators.NeuralFuse(generators.build(name, 1, width=4)), {}
    torch.manual_seed(1)
    faulty = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))  # never trained
    source = IndependentCells(faulty.words.size, (0.02,), seed=3)
    how = GeneratorSettings(1, batch=16, maps=1, learning_rate=0.01, shift=0, flip=False, **stages)

    def progress(step, steps, figures):
        for key, value in figures.items():
            losses.setdefault(key, []).append(value)

    paint_first([(faulty, source)], fuse, tiny_data(), how, 8, 0, Run(progress=progress), {})
    return fuse, losses


@pytest.mark.parametrize(
    ("name", "steps", "left"), [("ConvS", 100, 0.5), ("DeConvS", 100, 0.5), ("UNetS", 100, 0.5), ("tiny", 300, 0.85)]
)
def test_the_trunk_learns_the_classes_and_the_rest_stays_as_it_was(name, steps, left):
    """Four classes of brightness: of log 4 = 1.39 at chance less than this share is left. At a place of `tiny` nine
    noisy pixels are seen."""
    before = generators.build(name, 1, width=4)
    after, losses = staged(name, class_steps=steps)
    assert losses["classes_loss"][0] > 1
    assert np.mean(losses["classes_loss"][-4:]) < left * np.log(4)
    trunk = Trunk(before, torch.zeros(1, 1, 16, 16), 4)
    trunk(torch.zeros(2, 1, 16, 16)).sum().backward()
    for (key, old), new in zip(before.named_parameters(), after.generator.parameters(), strict=True):
        assert torch.equal(old, new) == (old.grad is None), key


def test_patterns_win_with_the_labels_told_and_the_generator_learns_to_paint_them():
    """The loss of a network that was never trained falls by a third at least with the patterns. What is painted for
    the images of a class then lies nearer to what is painted for others of the class than of other classes."""
    fuse, losses = staged("UNetS", class_steps=60, pattern_steps=40, paint_steps=120)
    assert list(losses) == ["classes_loss", "patterns_loss", "paint_loss"]
    assert np.mean(losses["patterns_loss"][-4:]) < losses["patterns_loss"][0] / 1.5
    assert np.mean(losses["paint_loss"][-4:]) < losses["paint_loss"][0] / 2
    tiny = tiny_data()
    with torch.no_grad():
        painted = fuse.eval().added(tiny.test_x)
    means = torch.stack([painted[tiny.test_y == k].mean(0) for k in range(4)])
    within = torch.stack([(painted[tiny.test_y == k] - means[k]).square().mean() for k in range(4)]).mean()
    assert (means - means.mean(0)).square().mean() > within


def test_a_pattern_is_added_within_the_range_of_images():
    patterns = Patterns(2, (1, 1, 2))
    patterns.u[-1].data[1] = torch.tensor([10.0, -0.5])
    x, y = torch.full((2, 1, 1, 2), 0.25), torch.tensor([0, 1])
    painted = pytest.approx(-0.2121, abs=1e-4)
    assert patterns(x, y).tolist() == [[[[0.25, 0.25]]], [[[1.0, painted]]]]
    half = patterns(x, y, torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
    assert half[1].flatten().tolist() == pytest.approx([0.75, 0.0189], abs=1e-4)


def test_a_pattern_is_a_sum_of_maps_of_four_sizes():
    patterns = Patterns(3, (1, 16, 12))
    assert [tuple(u.shape) for u in patterns.u] == [(3, 1, 2, 2), (3, 1, 4, 3), (3, 1, 8, 6), (3, 1, 16, 12)]
    for u in patterns.u:
        u.data[2] = 0.1
    assert torch.allclose(patterns.added[2], torch.full((1, 16, 12), 0.4).tanh())
    assert not patterns.added[:2].any()


def test_a_training_without_stages_is_as_it_was_and_stages_change_it():
    plain, expected = train_tiny()
    one, alone = train_tiny(class_steps=0)
    assert one == plain
    assert same(alone, expected)
    staged, painted = train_tiny(**STAGES)
    assert staged.steps == plain.steps  # of EOPM
    assert not same(painted, expected)


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_training_killed_in_any_stage_ends_with_the_same_numbers(tmp_path, monkeypatch, stop_after):
    """Stages of 4, 3, 5 and 8 steps: the first call is stopped in the first stage or the last, those after it wherever
    they pass that step again."""
    write_always(monkeypatch)
    whole, expected = train_tiny(**STAGES)
    path, found = tmp_path / "g.partial", None
    for _ in range(4):
        result, found = train_tiny(path, stop_after, **STAGES)
    assert result in (None, whole)
    resumed, found = train_tiny(path, **STAGES)
    assert resumed == whole
    assert same(found, expected)
    assert sorted(left.suffix for left in tmp_path.iterdir()) == [".classes", ".paint", ".partial", ".patterns"]


def test_what_cannot_be_staged_is_refused():
    offset = generators.NeuralFuse(generators.build("universal", 1, size=(16, 16)))
    with pytest.raises(InputError, match="class_steps = 'NeuralFuse' is not allowed"):
        Trunk(offset, torch.zeros(1, 1, 16, 16), 4)
    fuse = {"generator": "ConvS", "per_voltage": "film", "train_voltages": [0.8, 0.76],
            "training": {"steps": 1, "class_steps": 1}}  # fmt: skip
    with pytest.raises(InputError, match="per_voltage: not with training in stages"):
        Study("x", networks=["resnet8"], voltages=[0.8], protections=[{"name": "g", "neuralfuse": fuse}])
    with pytest.raises(InputError, match="paint_steps = 0 is not allowed; allowed: some with pattern_steps"):
        GeneratorSettings(1, pattern_steps=10)
