"""Are a chip's own statistics those of its layers' inputs, and is the network afterwards as it was?"""

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import data, networks
from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.training.batchnorm import own_statistics
from neuralfuse.training.loop import batch_indices
from neuralfuse.training.network import train_network
from neuralfuse.training.settings import NetworkSettings
from sram.errors import InputError


def chip(faulty, rate=0.02, draw=0):
    return IndependentCells(faulty.words.size, (rate,), seed=3)(draw)


def test_statistics_are_means_over_batches_of_the_faulty_layers_outputs():
    torch.manual_seed(0)
    faulty = FaultyNetwork(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2)))
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    faulty.set_faults(*chip(faulty, 0.1))
    conv, norm = faulty.network[0], faulty.network[1]
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    with torch.no_grad():
        outputs = [conv(images[batch_indices(40, 16, 5, step)]) for step in range(2)]
    with own_statistics(faulty, images, batches=2, batch=16, seed=5):
        assert not norm.training
        for own, of in ((norm.running_mean, torch.mean), (norm.running_var, torch.var)):
            mean = sum(of(y.transpose(0, 1).flatten(1), 1) for y in outputs) / 2
            assert torch.allclose(own, mean, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert norm.momentum == 0.1


def test_own_statistics_help_faulty_chips_and_leave_the_network_as_it_was():
    digits = data.load("digits")
    network = networks.build("resnet8", 10, 1, width=4)
    train_network(network, digits, NetworkSettings(3, shift=1, flip=False))
    faulty = FaultyNetwork(network)
    gains = []
    for draw in range(4):
        faulty.set_faults(*chip(faulty, draw=draw))
        before = correct(faulty, digits.test_x, digits.test_y)
        with own_statistics(faulty, digits.train_x):
            gains.append(correct(faulty, digits.test_x, digits.test_y) - before)
        assert correct(faulty, digits.test_x, digits.test_y) == before
    assert np.mean(gains) > 0.02 * len(digits.test_y)


def test_statistics_are_put_back_however_the_block_ends():
    faulty = FaultyNetwork(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)))
    images = torch.ones(8, 1, 8, 8)
    with pytest.raises(KeyboardInterrupt), own_statistics(faulty, images, 1, 8):
        raise KeyboardInterrupt
    assert torch.equal(faulty.network[1].running_mean, torch.zeros(3))


def test_a_network_without_batchnorm_is_refused():
    folded = FaultyNetwork(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), fold=True)
    with pytest.raises(InputError, match="not folded"), own_statistics(folded, torch.zeros(8, 1, 8, 8)):
        pass
