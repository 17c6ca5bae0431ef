"""Are kept keys and values the words that they are said to be, bit by bit, and each where it is said to lie?"""

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import networks
from neuralfuse.networks.kept import Kept
from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.quantize import encode, quantize
from neuralfuse.quantized.quantize import numbers as as_numbers
from sram.errors import InputError
from sram.geometry import Geometry

TOKENS, HEADS, WIDTH = 6, 2, 4
FORMATS = [WordFormat(), WordFormat(4), *(WordFormat(name=name) for name in ("bf16", "fp8_e4m3", "fp8_e5m2"))]
SHAPE = (HEADS, TOKENS, WIDTH)


class Both(nn.Module):
    """Hands on what it keeps: keys, then values."""

    def __init__(self):
        super().__init__()
        self.keys, self.values = Kept(), Kept()

    def forward(self, x):
        return torch.stack([self.keys(x), self.values(2 * x)])


@pytest.fixture
def numbers():
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def scale_of(x, form):
    return quantize(x, form)[1].item()


def by_hand(x, scale, form, faults):
    """One word at a time; faults {(head, token, column): [(bit, kind)]}."""
    words = encode(x / scale, form).long()
    for image in range(len(x)):
        for place, bits in faults.items():
            word = int(words[(image, *place)]) & (1 << form.bits) - 1
            for bit, kind in bits:
                word = (word & ~(1 << bit), word | 1 << bit, word ^ 1 << bit)[kind]
            words[(image, *place)] = word - (word >> form.bits - 1 << form.bits)
    return as_numbers(words.to(torch.int16), form) * scale


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.name}{form.bits}")
def test_words_read_as_one_at_a_time(numbers, form):
    network = Both()
    cache = FaultyCache(network, numbers, form)
    random = np.random.default_rng(1)
    element = np.sort(random.choice(2 * HEADS * TOKENS * WIDTH, 40, replace=False)).repeat(2)
    bit = np.tile([0, form.bits - 1], 40).astype(np.uint8)
    kind = random.integers(0, 3, 80).astype(np.uint8)
    cache.set_faults(element, bit, kind)
    found = network(numbers)
    for part, x in enumerate((numbers, 2 * numbers)):
        scale = scale_of(x, form)
        faults = {}
        for e, b, k in zip(element.tolist(), bit.tolist(), kind.tolist(), strict=True):
            if e // (TOKENS * HEADS * WIDTH) == part:  # tokens outside, then heads, then columns
                token, rest = divmod(e % (TOKENS * HEADS * WIDTH), HEADS * WIDTH)
                faults.setdefault((rest // WIDTH, token, rest % WIDTH), []).append((b, k))
        assert torch.equal(found[part].nan_to_num(9e9), by_hand(x, scale, form, faults).nan_to_num(9e9))
    cache.restore()
    assert torch.equal(network(numbers)[1], by_hand(2 * numbers, scale_of(2 * numbers, form), form, {}))
    cache.remove()
    assert torch.equal(network(numbers)[0], numbers)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.name}{form.bits}")
def test_each_cell_holds_the_bit_that_it_is_said_to(numbers, form):
    """Every cell in turn flips: the one element and bit that `locate` finds there changes, or none."""
    network = Both()
    cache = FaultyCache(network, numbers, form)
    clean = [quantize(x, form)[0] for x in (numbers, 2 * numbers)]
    geometry = Geometry(banks=1, rows=16, columns=128, word_bits=64)
    placed = cache.place(geometry)
    seen = set()
    for cell in range(0, geometry.cells, 37):
        element, bit, kind = placed.faults(np.array([cell]), np.array([2], np.uint8))
        assert len(element) <= 1
        cache.set_faults(element, bit, kind)
        parts = network(numbers)
        changed = [not torch.equal(encode(part / scale_of(x, form), form), words)
                   for part, words, x in zip(parts, clean, (numbers, 2 * numbers), strict=True)]  # fmt: skip
        if not len(element):
            assert not any(changed)
            continue
        assert placed.locate(int(element[0]), int(bit[0])).tolist() == [cell]
        assert not changed[1 - int(element[0]) // (HEADS * TOKENS * WIDTH)]
        seen.add((int(element[0]), int(bit[0])))
    assert len(seen) > 10


def test_a_token_that_reads_wrong_changes_nothing_before_it():
    net = networks.build("chardecoder", 7, 7, dim=8, depth=2, heads=2).eval()
    x = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))
    cache = FaultyCache(net, x)
    clean = net(x)
    of_part = np.prod(cache.parts[0].shape)
    for token in range(5):
        for part in range(4):
            element = part * of_part + token * 8 + np.arange(8)
            cache.set_faults(element, np.full(8, 6, np.uint8), np.full(8, 2, np.uint8))
            apart = (net(x) != clean).any(-1).any(0)
            first = token + (token == 0 and part % 2 == 0)  # alone with itself, a key says nothing
            assert not apart[:first].any()
            assert apart[first:].all()


def test_words_of_many_bits_take_the_numbers_that_they_stand_for():
    """BF16 makes 10^38 of a small number by its largest exponent bit; no integer is further off than its range."""
    x = torch.full((1, *SHAPE), 0.5)
    network = Both()
    worst = {}
    for form in (WordFormat(), WordFormat(name="bf16")):
        cache = FaultyCache(network, x, form)
        top = 14 if form.name == "bf16" else 7
        cache.set_faults(np.array([0]), np.array([top], np.uint8), np.array([2], np.uint8))
        worst[form.name] = float((network(x)[0] - x).abs().max())
    assert worst["int"] <= 0.5 * 256 / 127
    assert worst["bf16"] > 1e38


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda x: FaultyCache(Both(), x, WordFormat(name="mxint8")), "format"),
        (lambda x: FaultyCache(Both(), x, WordFormat(per_channel=True)), "format"),
        (lambda x: FaultyCache(nn.Identity(), x), "network"),
        (lambda x: FaultyCache(Both(), x).place(Geometry(banks=1, rows=4, columns=64)), "words of the memory"),
    ],
)
def test_what_cannot_be_kept_is_refused(numbers, make, key):
    with pytest.raises(InputError) as error:
        make(numbers)
    assert error.value.key == key


def test_items_of_another_length_are_refused(numbers):
    network = Both()
    FaultyCache(network, numbers)
    with pytest.raises(InputError, match="as in the sample"):
        network(numbers[:, :, :4])
