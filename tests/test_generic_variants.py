"""Are the objectives that did not help what they are said to be? A wrong one would not help either."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.generic_variants import Averaged, Distilled, Worst
from neuralfuse import generators, networks
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.objective import eopm_backward
from neuralfuse.sources import IndependentCells

N = 4
X = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
Y = torch.arange(8) % 4


def gradient(objective, maps=range(N)):
    """What an objective adds to the generator's parameters, as one vector, with what it returns."""
    faulty = FaultyNetwork(networks.build("resnet8", 4, 1, width=4))
    fuse = generators.NeuralFuse(generators.build("tiny", 1, seed=1))
    source = IndependentCells(faulty.words.size, (0.01,))
    losses = objective(faulty, fuse, X, Y, (source(i) for i in maps), len(maps), 5.0)
    assert (faulty.words == faulty.clean_words).all()
    return torch.cat([p.grad.flatten() for p in fuse.parameters()]), losses


@pytest.mark.parametrize("same", [Worst(temperature=1e9), Worst(k=N), Distilled(0.0)])
def test_objectives_at_their_limit_are_eopm(same):
    (found, losses), (expected, mean) = gradient(same), gradient(eopm_backward)
    assert losses == pytest.approx(mean, rel=1e-6)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("worst", [Worst(temperature=1e-6), Worst(k=1)])
def test_worst_map_alone_counts(worst):
    each = [gradient(eopm_backward, [i])[1][1] for i in range(N)]
    expected, _ = gradient(eopm_backward, [each.index(max(each))])
    found, losses = gradient(worst)
    assert losses[1] == pytest.approx(sum(each) / N, rel=1e-6)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_soft_worst_is_the_gradient_of_a_soft_maximum():
    shares = Worst(temperature=0.5).shares(losses := torch.tensor([1.0, 2.0, 2.5], requires_grad=True))
    (0.5 * (losses / 0.5).logsumexp(0)).backward()
    assert torch.allclose(shares, losses.grad)


def test_distillation_is_content_with_the_clean_networks_outputs():
    """Without faults and with F the identity, outputs and targets are the same: no gradient, and a loss that is their
    entropy."""
    faulty = FaultyNetwork(networks.build("resnet8", 4, 1, width=4))
    fuse = generators.NeuralFuse(generators.build("tiny", 1))
    clean, _ = Distilled(1.0)(faulty, fuse, X, Y, iter([]), 1, 5.0)
    p = faulty(X).softmax(1)
    assert clean == pytest.approx(F.cross_entropy(p.log(), p).item(), rel=1e-5)
    labels, _ = gradient(eopm_backward)
    assert torch.cat([q.grad.flatten() for q in fuse.parameters()]).norm() < 1e-5 * labels.norm()


def test_average_forgets_its_start_sooner():
    """States 1, 2, 4 with decays 1/10 and 2/11, or cut at 0.15."""
    for decay, second in ((0.9, 2 / 11), (0.15, 0.15)):
        average, module = Averaged(decay), nn.Linear(1, 1, bias=False)
        for value in (1.0, 2.0, 4.0):
            nn.init.constant_(module.weight, value)
            mean = average.take(module)
        assert mean.weight.item() == pytest.approx(second * (0.1 * 1 + 0.9 * 2) + (1 - second) * 4)
