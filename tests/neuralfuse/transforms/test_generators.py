"""Does a generator that starts as the identity do so, and can it leave it?"""

import pytest
import torch

from neuralfuse.transforms import generators


@pytest.mark.parametrize("name", generators.names())
def test_identity_is_where_training_starts_and_not_where_it_stays(name):
    x = torch.rand(4, 3, 20, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fuse = generators.NeuralFuse(generators.build(name, width=4, identity=True))
    optimizer = torch.optim.Adam(fuse.parameters(), 0.01)
    first = fuse(x)
    assert torch.equal(first, x)
    for _ in range(2):  # the first step moves the last layer alone, the second all of them
        before = {key: parameter.detach().clone() for key, parameter in fuse.named_parameters()}
        optimizer.zero_grad()
        (fuse(x) - 0.5).square().mean().backward()
        optimizer.step()
    moved = [key for key, parameter in fuse.named_parameters() if not torch.equal(parameter, before[key])]
    assert len(moved) == len(before)
    assert not torch.equal(fuse(x), x)
    assert not torch.equal(generators.NeuralFuse(generators.build(name, width=4))(x), x)


def test_the_tiny_one_is_two_convolutions_of_eight_channels():
    """3x3: 3 to 8 channels and back, with their offsets."""
    assert sum(p.numel() for p in generators.build("tiny").parameters()) == 8 * 27 + 8 + 3 * 72 + 3
