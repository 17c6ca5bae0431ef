"""Does Muon take orthogonal steps, does its rate follow the work left, and do images grow while a network trains?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.quantize import fake_quantize, weight_parameters
from neuralfuse.training import network as training
from neuralfuse.training.checkpoints import Checkpoints, Run
from neuralfuse.training.muon import Convolution, Muon, by_work, for_small_images, muon, orthogonal
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import NetworkSettings
from sram.errors import InputError
from tests.neuralfuse.training.test_training import same, tiny_data


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12)])
def test_a_step_is_near_the_polar_factor(shape):
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonal(matrix, 12) @ right.T  # diagonal if the singular vectors are kept
    diagonal = inside.diagonal()
    assert 0.68 < diagonal.min()  # the interval that the quintic maps to itself
    assert diagonal.max() < 1.14
    assert torch.allclose(inside, torch.diag(diagonal), atol=1e-9)


def test_filters_keep_their_norm_and_move_by_the_rate():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 16, 3, bias=False)
    optimizer = Muon([{"params": [layer.weight], "lr": 0.0, "momentum": 0.9, "iterations": 12}])
    layer.weight.grad = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    before = layer.weight.detach().clone()
    assert before.norm() == pytest.approx(4.0, rel=1e-5)  # sqrt(16 filters)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    moved = torch.linalg.svdvals((layer.weight.detach() - before).flatten(1)) / 0.1
    assert 0.68 < moved.min()
    assert moved.max() < 1.14


def test_all_else_follows_sgd():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    mine = muon(ours, 0.07, 1e-4)
    reference = torch.optim.SGD(theirs.parameters(), 0.05, 0.9, weight_decay=1e-4, nesterov=True)
    for _ in range(3):
        for layer, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_poolings_take_small_images_and_leave_whole_ones_as_they_are():
    network = networks.build("vgg11", 10, 3, 0, width=0.0625).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = network(x)
    with pytest.raises(RuntimeError, match="too small"):
        network(x[:, :, :16, :16])
    with for_small_images(network):
        assert torch.allclose(network(x), before, rtol=0, atol=1e-6)  # the last map is 2 x 2: sums in another order
        for size in (16, 24):
            assert network(x[:, :, :size, :size]).shape == (2, 10)
    assert torch.equal(network(x), before)
    assert not any(isinstance(layer, Convolution) for layer in network.modules())


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_of_matrices_is_the_convolution_and_has_its_gradients(shape, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    ours = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1, bias=bias).double())
    ours[0].load_state_dict(plain.state_dict())
    results = []
    for layer in (plain, ours):
        x = torch.randn(4, 5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        with for_small_images(layer):
            assert isinstance(ours[0], Convolution) == (layer is ours)
            y = layer(x)
        gradients = torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])
        results.append([y, *gradients])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_other_filters_stay_torchs_own():
    others = nn.Sequential(
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
    )
    with for_small_images(others):
        assert not any(isinstance(layer, Convolution) for layer in others)


def test_the_rate_falls_with_the_pixels_left():
    shares = by_work([16] * 20 + [32] * 10)
    # work 20 x 256 + 10 x 1024 = 15360; before the 21st step a third is done
    assert shares[20] == pytest.approx((1 - (5120 + 512) / 15360) / 0.97)
    assert shares[2:] == sorted(shares[2:], reverse=True)  # after the rise
    assert shares[-1] < 0.04


@pytest.mark.parametrize("wrong", [[[16]], [["16", 1]], [[0, 3]], [[16, 0]], [[16.5, 1]], "16:3"])
def test_phases_are_sizes_and_epochs(wrong):
    assert NetworkSettings(phases=[[16, 3], [32, 0.5]]).phases == ((16, 3.0), (32, 0.5))
    with pytest.raises(InputError, match="phases"):
        NetworkSettings(phases=wrong)


PHASES = NetworkSettings(
    batch=16, optimizer="muon", learning_rate=0.05, phases=((16, 3), (32, 2.5)), shift=2, flip=False
)


def large_images():
    tiny = tiny_data()
    return replace(tiny, **{key: getattr(tiny, key).repeat_interleave(4, 2).repeat_interleave(4, 3)
                            for key in ("train_x", "test_x")})  # fmt: skip


def train_in_phases(path=None, stop_after=None):
    """22 steps of 16 of 64 images: 12 at 16 x 16, 10 at 32 x 32."""

    def progress(step, steps, figures):
        assert steps == 22
        if step == stop_after:
            raise KeyboardInterrupt

    network = networks.build("vgg11", 4, 1, width=0.0625)
    try:
        train_network(network, large_images(), PHASES, run=Run(path, progress=progress))
    except KeyboardInterrupt:
        pass
    return network


def test_a_training_in_phases_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    original, shifts = Checkpoints.__init__, []
    monkeypatch.setattr(Checkpoints, "__init__", lambda self, *a, **k: original(self, *a, seconds=-1.0))
    augment = training.augment

    def spy(x, generator, shift, flip):
        shifts.append((x.shape[-1], shift))
        return augment(x, generator, shift, flip)

    monkeypatch.setattr(training, "augment", spy)
    expected = train_in_phases()
    assert shifts == [(16, 1)] * 12 + [(32, 2)] * 10
    train_in_phases(tmp_path / "n.safetensors", stop_after=15)
    assert same(train_in_phases(tmp_path / "n.safetensors"), expected)
    for layer in expected.modules():
        assert not isinstance(layer, Convolution)
    for weight in weight_parameters(expected).values():
        assert torch.equal(weight, fake_quantize(weight))
        if weight.ndim == 4:  # each layer kept its norm, but for the last step and rounding
            assert weight.detach().norm() == pytest.approx(len(weight) ** 0.5, rel=0.05)
