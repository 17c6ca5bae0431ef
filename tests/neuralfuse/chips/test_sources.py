"""Do training maps reach the words that the placement says, and are they never an evaluation's chips?"""

import numpy as np
import pytest
import torch

from neuralfuse import networks
from neuralfuse.chips import sources
from neuralfuse.data import Dataset
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.generator import train_generator
from neuralfuse.training.settings import PRECISIONS, GeneratorSettings
from neuralfuse.transforms import generators
from simulator import placement
from simulator.accelerator import accelerator
from simulator.readers.read import trace
from sram import faultmap
from sram.geometry import Geometry
from sram.memory import Memory

NETWORK = networks.build("resnet8", 4, 2, width=8)
WORKLOAD = trace(NETWORK, (2, 8, 8))


def placed(schedule, geometry):
    faulty = FaultyNetwork(networks.build("resnet8", 4, 2, width=8))
    where = placement.place(WORKLOAD, accelerator("paper"), geometry, schedule, bits=8)
    return faulty, where, faulty.numbering(where.tensors)


@pytest.mark.parametrize("structure", ["iid", "column"])
def test_training_chips_lie_in_the_cells_of_the_schedule(structure):
    faulty, where, numbering = placed("resident", Geometry.of_capacity(32 * 1024))
    source = sources.Chips(Memory(where.geometry, "ibm14", structure), where, numbering, (0.8, 0.9), seed=4)
    for draw, voltage in ((0, 0.8), (1, 0.9), (2, 0.8)):
        chip = faultmap.generate(
            sources.FIRST_TRAINING_CHIP + draw, where.geometry, "ibm14", structure, voltage_floor=voltage, seed=4
        )
        kind_of = dict(zip(chip.cell.tolist(), chip.kind.tolist(), strict=True))
        weight, bit, kind = source(draw)
        stored = {(int(w), int(b)): int(k) for w, b, k in zip(weight, bit, kind, strict=True)}
        assert len(stored) == len(weight) > 0
        # every bit of some words, looked up one by one
        for w in range(0, faulty.words.size, 97):
            for b in range(8):
                (cell,) = where.locate(w, b)
                assert stored.get((w, b)) == kind_of.get(int(cell))


def test_given_maps_are_used_in_turn_at_the_voltages_in_turn():
    _, where, numbering = placed("resident", Geometry.of_capacity(32 * 1024))
    maps = [faultmap.generate(chip, where.geometry, "ibm14", voltage_floor=0.8) for chip in range(2)]
    source = sources.Maps(where, numbering, maps, (0.8, 0.85))
    sizes = [len(source(draw)[0]) for draw in range(5)]
    expected = [len(where.hits(maps[i].at(v).cell).weight) for v in (0.8, 0.85) for i in (0, 1)]
    assert sizes == [*expected, expected[0]]


def test_paper_maps_read_words_as_the_published_mapping_does():
    """Layer by layer: weight i of each layer reads byte (i // 256 % 8192, i % 16) of the packed map (its own
    formula)."""
    faulty, where, numbering = placed("paper", Geometry(1, 8192, 128, 64))
    faulty.set_faults(*sources.PaperMaps(where, numbering, (0.02,), first_seed=10)(3))
    bad = np.random.RandomState(16).rand(8192, 128) < 0.02
    one = np.random.RandomState(17).rand(8192, 128) < 0.5
    ones, zeros = (np.packbits(part, axis=1, bitorder="little") for part in (bad & one, bad & ~one))
    for layer in faulty.layer_table:
        i = np.arange(layer.size)
        row, byte = i // 256 % 8192, i % 16
        clean = faulty.clean_words[layer.offset : layer.offset + layer.size].view(np.uint8)
        read = (clean & ~zeros[row, byte]) | ones[row, byte]
        assert np.array_equal(faulty.words[layer.offset : layer.offset + layer.size].view(np.uint8), read)
    assert 0.005 < faulty.flip_rate() < 0.015  # about half of the 2% of cells: stuck bits are often right


def test_low_precision_training_agrees_within_noise():
    """bfloat16 keeps 8 bits: after five steps the faulty loss agrees to a few percent with float32."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.rand(64, 2, 8, 8, generator=random) * 2 - 1, torch.arange(64) % 4
    data = Dataset("noise", x, y, x, y, 4)
    losses, moved = [], []
    for precision in PRECISIONS:
        seen: list[float] = []
        faulty = FaultyNetwork(networks.build("resnet8", 4, 2, width=8))
        fuse = generators.NeuralFuse(generators.build("UNetS", 2, width=4))
        source = sources.IndependentCells(faulty.words.size, (0.01,))
        settings = GeneratorSettings(5, 64, 2, learning_rate=0.01, shift=0, flip=False, precision=precision)
        run = Run(progress=lambda step, steps, figures, seen=seen: seen.append(figures["clean_loss"]))
        trained = train_generator([(faulty, source)], fuse, data, settings, run=run)
        losses.append(trained.faulty_loss)
        moved.append(seen[-1] - seen[0])  # the clean loss on the same images: what the updates alone have done
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
    assert moved[1] == pytest.approx(moved[0], rel=0.25)
