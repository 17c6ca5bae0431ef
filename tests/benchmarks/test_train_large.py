"""Does the optimiser of benchmarks/train_large.py take orthogonal steps, and does its rate follow the work left?"""

import argparse

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.train_large import Convolution, Muon, for_small_images, optimizer_for, orthogonal, phases, schedule
from neuralfuse import networks


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
    mine = optimizer_for(ours, 0.07, 0.05)
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
    for_small_images(network)
    assert torch.allclose(network(x), before, rtol=0, atol=1e-6)  # the last map is 2 x 2: sums in another order
    for size in (16, 24):
        assert network(x[:, :, :size, :size]).shape == (2, 10)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_of_matrices_is_the_convolution_and_has_its_gradients(shape, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    ours = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1, bias=bias).double())
    ours[0].load_state_dict(plain.state_dict())
    for_small_images(ours)
    assert isinstance(ours[0], Convolution)
    results = []
    for layer in (plain, ours):
        x = torch.randn(4, 5, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
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
    for_small_images(others)
    assert not any(isinstance(layer, Convolution) for layer in others)


def test_the_rate_falls_with_the_pixels_left():
    steps = schedule([(16, 2), (32, 1)], images=1000, batch=100)
    assert [size for size, _ in steps] == [16] * 20 + [32] * 10
    # work 20 x 256 + 10 x 1024 = 15360; before the 21st step a third is done
    assert steps[20][1] == pytest.approx((1 - (5120 + 512) / 15360) / 0.97)
    shares = [share for _, share in steps]
    assert shares[2:] == sorted(shares[2:], reverse=True)  # after the rise
    assert shares[-1] < 0.04


def test_phases_are_sizes_and_epochs():
    assert phases("16:3,32:0.5") == [[16, 3.0], [32, 0.5]]
    for wrong in ("16", "16:x", "0:3", "16:0", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="SIZE:EPOCHS"):
            phases(wrong)
