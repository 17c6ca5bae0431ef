"""Does a folded network answer like the one it was made from, under any faults, and leave alone what it cannot fold?"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.fold import channels_last, fold_normalisation


def trained_like(network: nn.Module) -> nn.Module:
    """Normalisation with statistics, gains and offsets that are not those of an untrained network."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)  # a gain may be negative
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


@pytest.mark.parametrize(("name", "options"), [("resnet8", {}), ("vgg11", {}), ("mobilenetv2", {})])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_same_words_faults_and_answers(name, options, per_channel):
    network = trained_like(networks.build(name, 10, 3, **options))
    plain = FaultyNetwork(copy.deepcopy(network), per_channel=per_channel)
    folded = FaultyNetwork(copy.deepcopy(network), per_channel=per_channel, fold=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.network.modules())
    assert plain.layer_table == folded.layer_table
    assert np.array_equal(plain.words, folded.words)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    random = np.random.default_rng(0)
    for faults in (0, 40, len(plain.words) // 50, 3, 0):
        weight = random.integers(plain.words.size, size=faults)
        bit, kind = (
            random.integers(8, size=(faults,)).astype(np.uint8),
            random.integers(3, size=faults).astype(np.uint8),
        )
        for faulty in (plain, folded):
            faulty.set_faults(weight, bit, kind)
        assert np.array_equal(plain.words, folded.words)
        with torch.no_grad():
            expected, found = plain(x), folded(x)
        assert torch.allclose(found, expected, rtol=1e-3, atol=2e-5 * float(expected.abs().max()))


def test_gradients_at_the_input_are_the_same():
    network = trained_like(networks.build("resnet8", 10, 1))
    gradients = []
    for fold in (False, True):
        faulty = FaultyNetwork(copy.deepcopy(network), fold=fold)
        x = torch.linspace(-1, 1, 2 * 256).view(2, 1, 16, 16).requires_grad_()
        faulty(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))


class Twice(nn.Module):
    """One convolution in two places, each with its own normalisation."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.b(self.conv(self.a(self.conv(x))))


class Both(Twice):
    """The output before normalisation is used, too."""

    def forward(self, x):
        y = self.conv(x)
        return self.a(y) + y


class Branching(Twice):
    def forward(self, x):
        return self.a(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize("kind", [Twice, Both, Branching])
def test_what_cannot_be_folded_stays(kind):
    network = trained_like(kind())
    assert fold_normalisation(network) == {}
    assert isinstance(network.a, nn.BatchNorm2d)
    assert isinstance(network.b, nn.BatchNorm2d)


def test_normalisation_that_reads_no_convolution_stays():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    assert fold_normalisation(network) == {}


@pytest.mark.parametrize(("width", "hooks"), [(8, 1), (4, 0), (12, 0)])
def test_channels_innermost_only_in_eights(width, hooks):
    network = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))
    channels_last(network)
    assert len(network[2]._forward_pre_hooks) == hooks
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, width, 4, 4)
