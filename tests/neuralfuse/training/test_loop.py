"""Is there one loop, whose steps are alike, and does what watches it keep the best and end it in time?"""

import math

import pytest
import torch
from torch import nn

from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.training.calibrate import calibrate
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.generator import train_generator
from neuralfuse.training.loop import Watch, train
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import CalibrationSettings, GeneratorSettings, NetworkSettings
from neuralfuse.transforms.generators import NeuralFuse, build
from tests.neuralfuse.training.test_training import tiny_data, tiny_network


def descend(steps, watch=None, optimizer=torch.optim.SGD, share=lambda step: 1 / (step + 1)):
    """From 1 down a slope of 1: the step `number` goes 0.1 times its share."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    seen = []

    def step(number):
        seen.append((number, module.weight.item(), torch.are_deterministic_algorithms_enabled()))
        assert module.weight.grad is None
        module.weight.sum().backward()
        return {"loss": module.weight.item()}

    done, figures = train(module, optimizer(module.parameters(), 0.1), share, steps, step, watch=watch)
    return module, seen, done, figures


def test_each_step_follows_its_gradient_by_its_share_of_the_rate():
    module, seen, done, figures = descend(3)
    assert [number for number, *_ in seen] == [0, 1, 2]
    assert [weight for _, weight, _ in seen] == pytest.approx([1, 0.9, 0.85])
    assert module.weight.item() == pytest.approx(0.85 - 0.1 / 3)
    assert (done, figures["loss"]) == (3, pytest.approx(0.85))


def test_what_watches_keeps_the_best_weights_and_ends_the_training():
    """Looks after steps 2, 4, ... find 0.5, 0.7, 0.7, 0.6: the second is the best, and two more are not better."""
    found = iter([0.5, 0.7, 0.7, 0.6, 1.0])
    watch = Watch(lambda: next(found), every=2, patience=2)
    _, seen, done, _ = descend(100, watch)
    assert (done, watch.best, watch.best_step) == (8, 0.7, 4)
    assert watch.weights["weight"].item() == pytest.approx(seen[4][1])  # before the fifth step
    last = Watch(lambda: 1.0, every=50, patience=1)
    descend(3, last)
    assert last.best_step == 3  # the last step is looked at, too


@pytest.mark.parametrize("access", [None, "network", "gradient", "spsa", "evolution"])
def test_every_training_computes_with_deterministic_kernels(access):
    modes = []

    class Spy(nn.Module):
        def forward(self, x):
            modes.append(torch.are_deterministic_algorithms_enabled())
            return x

    def progress(step, steps, figures):
        assert all(math.isfinite(value) for value in figures.values())
        counted.append(step)

    counted: list[int] = []
    tiny, nothing = tiny_data(), FaultyNetwork(tiny_network()).clean_words[:0]
    faults = nothing.astype("int64"), nothing.astype("uint8"), nothing.astype("uint8")
    if access == "network":
        train_network(nn.Sequential(Spy(), tiny_network()), tiny, NetworkSettings(1, 32), run=Run(progress=progress))
    else:
        fuse = NeuralFuse(nn.Sequential(Spy(), build("ConvS", 1, width=2)))
        faulty = FaultyNetwork(tiny_network())
        if access is None:
            settings = GeneratorSettings(2, 16, 1)
            train_generator([(faulty, lambda draw: faults)], fuse, tiny, settings, run=Run(progress=progress))
        else:
            calibrate(faulty, fuse, tiny, [faults], CalibrationSettings(2, 16, access=access), progress=progress)
    assert counted == [1, 2]
    assert modes
    assert all(modes)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("count", [1, 3])
def test_trainings_compute_with_the_threads_that_their_settings_name(count):
    """Whatever the machine has, and it is left as it was."""
    seen, before, data, network = [], torch.get_num_threads(), tiny_data(), tiny_network()
    run = Run(progress=lambda *_: seen.append(torch.get_num_threads()))
    train_network(network, data, NetworkSettings(epochs=1, batch=len(data.train_y), threads=count), run=run)
    faulty = FaultyNetwork(network)
    source = IndependentCells(faulty.words.size, (0.01,))
    settings = GeneratorSettings(steps=1, maps=1, batch=8, threads=count)
    train_generator([(faulty, source)], NeuralFuse(build("tiny", 1)), data, settings, run=run)
    assert seen == [count, count]
    assert torch.get_num_threads() == before


def test_what_is_left_out_is_as_in_the_paper():
    """Sun et al., arXiv 2306.16869, section 4: lambda, N, batch and learning rate; its code pads by 4 and flips."""
    left = GeneratorSettings(steps=1)
    assert (left.weight, left.maps, left.batch, left.learning_rate, left.decay) == (5, 10, 256, 1e-3, "paper")
    assert (left.shift, left.flip, left.objective, left.precision) == (4, True, None, "float32")
