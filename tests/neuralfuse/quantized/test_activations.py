"""Do activation faults hit the right element and bit, and nothing else?"""

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.activations import faulty_activations, scales_of, uncaught
from simulator.accelerator import accelerator
from simulator.placement import place_activations
from simulator.readers.read import trace
from sram import faultmap
from sram.errors import InputError
from sram.geometry import Geometry


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 6 * 6, 4)).eval()
    placed = place_activations(trace(network, (1, 8, 8)), accelerator("paper"), Geometry(banks=1))
    images = torch.randn(5, 1, 8, 8)
    return network, placed, images, scales_of(network, images, placed)


def run(network, placed, images, scales, element, bit, kind):
    faults = (np.array(element, np.int64), np.array(bit, np.uint8), np.array(kind, np.uint8))
    seen = {}
    with faulty_activations(network, placed, scales, faults), torch.inference_mode():
        handle = network[0].register_forward_hook(lambda m, i, o: seen.update(out=o))
        network(images)
        handle.remove()
    return seen["out"]


def test_without_faults_only_rounding(pair):
    network, placed, images, scales = pair
    out = run(network, placed, images, scales, [], [], [])
    exact = network[0](images)
    assert (out - exact).abs().max() <= scales["0"] / 2 + 1e-6
    assert not torch.equal(out, exact)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("bit", [0, 6, 7])
def test_one_fault_by_hand(pair, bit, kind):
    """Element (channel 1, row 2, column 3) of the convolution: word by word against Python integers."""
    network, placed, images, scales = pair
    index = 1 * 36 + 2 * 6 + 3
    first = next(t.first for t in placed.tensors if t.name == "0")
    clean = run(network, placed, images, scales, [], [], [])
    out = run(network, placed, images, scales, [first + index], [bit], [kind])
    words = torch.round(clean / scales["0"]).to(torch.int64).flatten(1)
    read = torch.round(out / scales["0"]).to(torch.int64).flatten(1)
    for image in range(5):
        byte = int(words[image, index]) & 0xFF
        byte = (byte & ~(1 << bit), byte | 1 << bit, byte ^ 1 << bit)[kind]
        assert int(read[image, index]) == (byte - 256 if byte >= 128 else byte)
    words[:, index] = read[:, index] = 0
    assert torch.equal(words, read)


def test_hooks_are_gone_afterwards(pair):
    network, placed, images, scales = pair
    before = network(images)
    run(network, placed, images, scales, [0], [7], [1])
    assert torch.equal(network(images), before)


def test_a_chip_breaks_a_residual_network_and_more_so_at_lower_voltage():
    """Faults are nested, so the outputs move further from the fault-free ones as the supply falls."""
    network = networks.build("resnet8", in_channels=1, width=4).eval()
    placed = place_activations(trace(network, (1, 16, 16)), accelerator("paper"), Geometry.of_capacity(16 * 1024))
    images = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    scales = scales_of(network, images, placed)
    chip = faultmap.generate(1, placed.geometry, "ibm14", "iid", voltage_floor=0.78)
    moved = []
    for voltage in (1.0, 0.85, 0.8, 0.78):
        faults = chip.at(voltage)
        hits = placed.hits(faults.cell)
        with faulty_activations(network, placed, scales, (hits.weight, hits.bit, faults.kind[hits.fault])):
            out = network(images).detach()
        moved.append(out)
    distance = [float((m - moved[0]).norm()) for m in moved]
    assert distance[0] == 0
    assert distance[1] < distance[2] < distance[3]
    assert all("." not in name or name not in dict(network.named_modules()) for name in uncaught(network, placed))


def test_words_wider_than_a_byte_are_refused(pair):
    network, _, _, scales = pair
    wide = place_activations(trace(network, (1, 8, 8)), accelerator("paper"), Geometry(banks=1), bits=16)
    with pytest.raises(InputError, match="bits"), faulty_activations(network, wide, scales, (np.empty(0),) * 3):
        pass
