"""Do a study's keys of its weight memory hold for everything that lies in it?"""

import numpy as np
import pytest

from neuralfuse import networks
from neuralfuse.chips.stored import place_generator, place_on
from neuralfuse.study.config import SramConfig
from neuralfuse.study.memory import place_weights
from simulator.accelerator import accelerator
from simulator.readers.read import trace
from sram import paper


@pytest.mark.parametrize("per_cell", [16, 1])
def test_weights_per_cell_hold_for_network_generator_and_given_map(per_cell):
    network, machine = trace(networks.build("resnet8", 4, 1, width=8), (1, 16, 16)), accelerator("paper")
    placed = place_weights(SramConfig(schedule="paper", weights_per_cell=per_cell), network, machine, 8)
    generator, _ = place_generator(network, machine, placed, 8)
    given = place_on(paper.fault_map(0, 0.001), network, machine, "paper", 8, per_cell)
    for where in (placed, generator, given):
        widest = max(where.tensors, key=lambda tensor: tensor.count)
        hits = where.hits(np.array([0])).weight
        assert ((hits >= widest.first) & (hits < widest.first + widest.count)).sum() == per_cell
