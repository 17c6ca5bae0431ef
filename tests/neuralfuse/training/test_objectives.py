"""Do the baselines and the restricted access do what their papers say?"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse import networks
from neuralfuse.chips.sources import IndependentCells
from neuralfuse.data import Dataset
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import fake_quantized, weight_parameters
from neuralfuse.training.generator import train_generator
from neuralfuse.training.network import train_network
from neuralfuse.training.objectives import Adversarial, RandomBitErrors
from neuralfuse.training.queries import Counted, estimate_gradient, evolution, spsa
from neuralfuse.training.settings import CalibrationSettings, GeneratorSettings, NetworkSettings
from neuralfuse.transforms import generators
from neuralfuse.transforms.generators import NeuralFuse
from neuralfuse.transforms.pixelwise import Offset


def dots(n=256) -> Dataset:
    """Four classes: a bright quarter of an 8x8 image, with noise."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    x = torch.randn(n, 1, 8, 8, generator=random) * 0.5 - 0.3
    for i, label in enumerate(y.tolist()):
        x[i, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 0.4
    half = n // 2
    return Dataset("dots", x[:half].clamp(-1, 1), y[:half], x[half:].clamp(-1, 1), y[half:], 4)


def trained(data, **more):
    network = networks.build("resnet8", 4, 1, width=8)
    train_network(network, data, NetworkSettings(8, 32, shift=0, flip=False, **more))
    return network


@pytest.fixture(scope="module")
def plain_state():
    return trained(dots()).state_dict()


@pytest.fixture
def plain(plain_state):
    network = networks.build("resnet8", 4, 1, width=8)
    network.load_state_dict(plain_state)
    return network.eval()


def accuracy_over_chips(network, data, rate, chips=10):
    faulty = FaultyNetwork(network)
    total = 0
    for i in range(chips):
        faulty.set_faults(*IndependentCells(faulty.words.size, (rate,), seed=50)(i))
        total += correct(faulty, data.test_x, data.test_y)
    return total / (chips * len(data.test_y))


def test_random_bit_error_training_survives_faults_that_break_plain_training(plain):
    data = dots()
    before = accuracy_over_chips(plain, data, 0.02)
    hardened = trained(data, objective=RandomBitErrors(0.01), clip=0.1)
    assert all(weight.abs().max() <= 0.1 * (1 + 1e-6) for weight in weight_parameters(hardened).values())
    assert correct(hardened, data.test_x, data.test_y) / len(data.test_y) > 0.9
    assert accuracy_over_chips(hardened, data, 0.02) > before + 0.1


@pytest.mark.parametrize(("bits", "per_channel"), [(4, False), (8, False), (8, True)])
def test_random_bit_errors_add_the_gradient_at_the_faulty_words(bits, per_channel):
    """Against a FaultyNetwork-like reading, written out: gradient = clean + gradient with flipped words."""
    data = dots(64)
    x, y = data.train_x, data.train_y
    network = networks.build("resnet8", 4, 1, width=4).eval()
    objective = RandomBitErrors(0.02, bits, start_loss=99, seed=3, per_channel=per_channel)
    with fake_quantized(network, bits, per_channel):
        objective(network, x, y, step=5)
    found = [p.grad.clone() for p in network.parameters()]

    network.zero_grad()
    with fake_quantized(network, bits, per_channel):
        F.cross_entropy(network(x), y).backward()
    expected = [p.grad.clone() for p in network.parameters()]
    copy = networks.build("resnet8", 4, 1, width=4)
    faulty = FaultyNetwork(copy, bits, per_channel)
    faulty.set_faults(*IndependentCells(faulty.words.size, (0.02,), bits, 3, mode="flip")(5))
    assert faulty.flip_rate() == pytest.approx(0.02, rel=0.25)
    copy.requires_grad_(True)
    F.cross_entropy(copy(x), y).backward()
    for a, b, p in zip(found, expected, copy.parameters(), strict=True):
        assert torch.allclose(a, b + p.grad, rtol=1e-4, atol=1e-5)


def test_adversarial_training_sees_images_within_epsilon():
    seen = []

    class Recording(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 4)

        def forward(self, x):
            seen.append(x.detach().clone())
            return self.linear(x.flatten(1))

    data = dots(32)
    network = Recording()
    loss = Adversarial(epsilon=0.1, step_size=0.05, steps=3)(network, data.train_x, data.train_y, 0)
    assert len(seen) == 4
    assert all((x - data.train_x).abs().max() <= 0.1 + 1e-6 for x in seen)
    assert all(x.abs().max() <= 1 for x in seen)
    assert loss > F.cross_entropy(network(data.train_x), data.train_y).item()  # the images are harder than they were
    assert network.linear.weight.grad.abs().sum() > 0


def test_universal_perturbation_trains_like_a_generator(plain):
    data = dots()
    faulty = FaultyNetwork(plain)
    source = IndependentCells(faulty.words.size, (0.02,), seed=1)
    perturbation = NeuralFuse(Offset(*data.input_shape))
    settings = GeneratorSettings(10, 32, 2, shift=0, flip=False)
    train_generator([(faulty, source)], perturbation, data, settings)
    u = perturbation.generator.u
    assert u.abs().max() > 0
    moved = perturbation(data.test_x) - data.test_x
    inside = perturbation(data.test_x).abs() < 1
    spread = torch.where(inside, moved - torch.tanh(u), torch.zeros(()))
    assert spread.abs().max() < 1e-6  # the same for all images, where nothing is cut


def test_estimated_gradient_has_the_true_one_as_its_mean():
    """512 directions for 16 axes: the error of the mean is about sqrt(15 / 512) = 0.17 of the gradient's length."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    x, y = torch.rand(6, 1, 4, 4), torch.arange(6) % 5
    exact = x.clone().requires_grad_()
    F.cross_entropy(network(exact), y).backward()
    deployed = Counted(network)
    found, loss = estimate_gradient(deployed, x, y, 512, 1e-2, torch.Generator().manual_seed(1))
    assert deployed.queries == 2 * 512 * 6
    assert (found - exact.grad).norm() < 0.3 * exact.grad.norm()
    assert loss == pytest.approx(F.cross_entropy(network(x), y).item(), rel=1e-2)


@pytest.mark.parametrize("way", [spsa, evolution])
def test_tuning_by_queries_lowers_the_loss_of_one_chip_and_counts(plain, way):
    data = dots()
    faulty = FaultyNetwork(plain)
    faulty.set_faults(*IndependentCells(faulty.words.size, (0.05,), seed=12)(0))
    fuse = generators.NeuralFuse(generators.build("UNetS", 1, width=2))
    with torch.no_grad():
        fuse.generator.out.weight.zero_()  # begin as the identity, as a surrogate's generator nearly is
        fuse.generator.out.bias.zero_()
    fuse.eval()

    def loss():
        with torch.no_grad():
            return F.cross_entropy(faulty(fuse(data.train_x)), data.train_y).item()

    before = loss()
    assert before > 0.3  # the chip is broken enough
    settings = CalibrationSettings(30, 32, learning_rate=0.01, directions=4)
    assert way(faulty, fuse, data, settings).queries == 30 * 32 * 2 * 4
    assert not torch.are_deterministic_algorithms_enabled()
    assert loss() < 0.9 * before
