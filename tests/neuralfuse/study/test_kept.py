"""Do keys and values on a rail of a study read what their cells make of them, and is what cannot be kept refused?"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuralfuse import networks
from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.study import kept
from neuralfuse.study.check_supplies import check_supplies
from neuralfuse.study.files import Study, parse_study
from neuralfuse.study.lowered import Die
from neuralfuse.study.supplies import beside, operating_points, rails
from sram.errors import InputError
from sram.failure import curve
from sram.inject import FLIP
from sram.memory import Chip, Memory

DIE = Die("paper", "column", 3)
HARDENED = {"sram": {"cache": ["hardened_msb:1"]}}
PLAIN = {
    "name": "x",
    "dataset": {"name": "text"},
    "metric": "bits",
    "networks": ["chardecoder"],
    "sram": {"structures": ["column"], "schedule": "resident"},
    "rails": {"weights": [1.0], "cache": [1.0, 0.78]},
    "protections": ["none", HARDENED],
}


def study(**given):
    return Study(**PLAIN | given)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return networks.build("chardecoder", 7, 7, dim=16, depth=2, heads=2).eval()


@pytest.fixture
def x():
    return torch.randint(0, 7, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["int", "bf16", "fp8_e4m3", "fp8_e5m2"])
def test_answers_are_those_of_the_benchmark(net, x, form):
    """benchmarks/kv_cache.py's own route, line for line, in banks behind three of the weights."""
    found = study(memories={"cache": {"format": form}})
    cache = kept.cache_of(found, net, x)
    raw = kept.kept_map(found, cache, DIE, 0.78, first_bank=3)
    assert kept.put(found, cache, raw, "none", 0.78)
    through_study = net(x)
    cache.remove()
    own = FaultyCache(net, x, WordFormat(name=form))
    memory = Memory(kept.cells_of(found, own), curve("ibm14"), "column", first_bank=3)
    now = Chip(3, 0).fault_map(memory, 0.78).at(0.78)
    clean = net(x)
    own.set_faults(*own.place(memory.geometry).faults(now.cell, now.kind))
    assert torch.equal(through_study.nan_to_num(9e9), net(x).nan_to_num(9e9))
    assert not torch.equal(clean.nan_to_num(9e9), through_study.nan_to_num(9e9))


def test_each_bit_of_one_element_flips_alone(net, x):
    """A fault put in by hand changes the one number that it is said to, and by its bit; a hardened sign bit holds."""
    found = study()
    cache = kept.cache_of(found, net, x)
    cells = kept.cells_of(found, cache)
    part, seen = cache.parts[1], []
    numbers = torch.linspace(-part.scale, part.scale, part.elements).expand(1, -1).reshape(1, *part.shape)
    clean, placed = part.module(numbers), cache.place(cells)
    weak = kept.kept_map(found, cache, DIE, 0.78, first_bank=0)
    element = int(cache.first[1]) + 5  # the first token's, of the first head
    for bit in range(8):
        cell = placed.locate(element, bit)
        raw = replace(weak, cell=cell, critical_voltage=np.float32([0.9]), kind=np.uint8([FLIP]))
        assert kept.put(found, cache, raw, "none", 0.8)
        apart = (part.module(numbers) - clean).abs()
        assert apart.nonzero().tolist() == [[0, 0, 0, 5]]
        seen.append(float(apart.max() / part.scale))
        assert kept.put(found, cache, raw, "hardened_msb:1 of cache", 0.8) == (bit < 7)
        assert not kept.put(found, cache, raw, "none", 0.95)
    assert seen == pytest.approx([2**bit for bit in range(8)])


def test_points_say_the_cache_and_that_energy_leaves_it_out():
    found = study()
    said = [beside(found, "paper", at) for at in operating_points(found, "paper")]
    assert said == ["cache 1", "cache 0.78"]
    assert rails(found).endswith("energy leaves the cache out")
    check_supplies(found)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"networks": [{"name": "chardecoder", "activations": "int8"}]}, "networks.chardecoder.activations"),
        ({"rails": {"cache": [0.9], "activations": [0.9]}}, "rails.activations"),
        ({"protections": ["none", {"sram": {"cache": ["secded72"]}}]}, "protections.secded72 of cache.sram.cache"),
        ({"rails": {"logic": [1.0]}, "memories": {"cache": {"format": "bf16"}}, "protections": ["none"]},
         "memories.cache"),
        ({"rails": {"accumulators": [0.9]}, "memories": {"accumulators": {"format": "bf16"}}},
         "memories.accumulators.format"),
        ({"rails": {"activations": [0.9]}, "protections": ["none"]}, "rails.activations"),  # of tokens
        ({"networks": ["chardecoder", "vit"], "protections": [{"smaller": "vit"}]}, "protections.smaller(vit).smaller"),
    ],
)  # fmt: skip
def test_what_the_cache_does_not_go_with_is_refused(given, key):
    with pytest.raises(InputError) as error:
        check_supplies(study(**given))
    assert error.value.key == key


def test_a_network_that_keeps_nothing_is_refused():
    with pytest.raises(InputError, match="Kept") as error:
        kept.check_keeps(study(), "mine", torch.nn.Identity(), torch.zeros(2, 3))
    assert error.value.key == "networks.mine"


def test_words_of_activations_are_of_images_alone():
    """Of features, too, whether their network is one of floats or is said to be one of 8-bit words."""
    for activations in ("float", "int8"):
        content = {
            "name": "rows",
            "dataset": {"name": "digits-rows", "test_images": 4},
            "networks": [{"name": "lstm", "activations": activations}],
            "rails": {"activations": [0.9]},
        }
        with pytest.raises(InputError, match=r"rails.activations = .*items of digits-rows are no images"):
            check_supplies(parse_study(content, "rows"))
