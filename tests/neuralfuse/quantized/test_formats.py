"""Does every pattern of bits stand for what its format says, and is every number stored as the nearest of them?"""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.formats import WIDTHS, WordFormat
from neuralfuse.quantized.program import compile_network
from neuralfuse.quantized.quantize import dequantize, encode, fake_quantize, numbers, quantize, shared_exponents
from sram import inject
from sram.errors import InputError

KEPT = {  # of a word, in a kept library
    "bf16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp8_e4m3": ml_dtypes.float8_e4m3fn,
    "mxfp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp4": ml_dtypes.float4_e2m1fn,
}
MX = [name for name in WIDTHS if name.startswith("mx")]


def patterns(bits):
    """Every word, as it is kept: sign-extended."""
    code = np.arange(1 << bits)
    return np.where(code >= 1 << bits - 1, code - (1 << bits), code).astype(np.int16 if bits > 8 else np.int8)


def kept_values(name):
    """What every pattern stands for, from 0 up."""
    if name == "mxint8":  # OCP MX v1.0, 5.3.4: two's complement, 6 bits behind the point
        return (np.arange(256).astype(np.uint8).view(np.int8) / 64).astype(np.float32)
    raw = np.arange(1 << WIDTHS[name]).astype(np.uint16 if WIDTHS[name] == 16 else np.uint8)
    return raw.view(KEPT[name]).astype(np.float32)


@pytest.mark.parametrize("name", WIDTHS)
def test_every_word_stands_for_what_the_format_says(name):
    form = WordFormat(name=name)
    found = numbers(torch.from_numpy(patterns(form.bits)), form).numpy()
    expected = kept_values(name)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found[found == 0]), np.signbit(expected[found == 0]))


@pytest.mark.parametrize("name", KEPT)
def test_every_number_is_stored_as_the_nearest_word(name):
    """Halfway between two words, a last bit beside it, and at random: the kept library's word, zero's sign included."""
    finite = np.unique(kept_values(name)[np.isfinite(kept_values(name))])
    middle = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    middle = middle[np.abs(middle) < float(finite[-1])].astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = rng.choice(finite, 5000) * rng.uniform(0.5, 1, 5000)
    given_ = np.concatenate(
        [finite, middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(-np.inf)), drawn]
    ).astype(np.float32)
    kept = given_.astype(KEPT[name])
    form = WordFormat(name=name)
    words = encode(torch.from_numpy(given_), form).numpy()
    expected = kept.view(np.uint16 if form.bits == 16 else np.uint8)
    assert np.array_equal(words.astype(np.int64) & (1 << form.bits) - 1, expected)
    beyond = torch.tensor([3e38, -3e38]) if name != "bf16" else torch.tensor([3.4e38, -3.4e38])
    assert numbers(encode(beyond, form), form).tolist() == [finite[-1], finite[0]]


def test_integers_in_64ths_saturate_and_round_to_even():
    form = WordFormat(name="mxint8")
    given_ = torch.tensor([0.5, 1.5, 2.5, 127.4, 200, -200, -1.5]) / 64
    assert encode(given_, form).tolist() == [0, 2, 2, 127, 127, -127, -2]


@pytest.mark.parametrize("bits", [4, 8])
def test_every_shared_exponent(bits):
    code = np.arange(256).astype(np.uint8)
    expected = code.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    words = code.view(np.int8) if bits == 8 else np.stack([code & 15, code >> 4], 1).ravel().astype(np.int8)
    found = inject.exponents(words, bits)
    assert np.array_equal(found, expected, equal_nan=True)
    form = WordFormat(name="mxfp4" if bits == 4 else "mxint8")
    written = shared_exponents(torch.from_numpy(found[:-1]), form).numpy()
    assert np.array_equal(inject.exponents(written, bits), found[:-1])


@pytest.mark.parametrize("name", MX)
@pytest.mark.parametrize("shape", [(3, 70), (2, 5, 3, 3), (40,)])
def test_a_block_has_the_exponent_of_its_largest_number(name, shape):
    """OCP MX v1.0, 6.3: floor(log2(largest)) - emax; runs of 32 within a row, the last shorter."""
    emax = {"mxfp8_e4m3": 8, "mxfp8_e5m2": 15, "mxint8": 0, "mxfp4": 2}[name]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, shape[-1])
    rows = weight.reshape(shape[0] if len(shape) > 1 else 1, -1)
    rows[0, :32] = 0  # a block of zeros has scale 1
    form = WordFormat(name=name)
    _, scale = quantize(weight, form)
    for row, found in zip(rows, scale.reshape(rows.shape), strict=True):
        for first in range(0, len(row), 32):
            largest = float(row[first : first + 32].abs().max())
            expected = 2.0 ** (np.floor(np.log2(largest)) - emax) if largest else 1.0
            assert (found[first : first + 32] == expected).all()
    again = fake_quantize(weight, form)
    assert torch.equal(fake_quantize(again, form), again)  # a rounded network is stored as it is


@pytest.mark.parametrize("form", [WordFormat(b, group=32) for b in range(2, 9)] + [WordFormat(8, group=3)])
def test_each_run_of_a_group_has_the_scale_of_its_largest_number(form):
    weight = torch.randn(4, 35, 2, generator=torch.Generator().manual_seed(form.bits))
    words, scale = quantize(weight, form)
    for row, stored, own in zip(*(part.reshape(4, -1) for part in (weight, words, scale)), strict=True):
        for first in range(0, len(row), form.group):
            part = slice(first, first + form.group)
            alone, one = quantize(row[part], form.bits)
            assert torch.equal(stored[part], alone)
            assert (own[part] == one).all()
    assert torch.equal(quantize(dequantize(words, scale, form), form)[0], words)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("more", [{}, {"per_channel": True}, {"group": 16}])
def test_scaled_floats_put_the_largest_number_on_the_largest_word(name, more):
    form = WordFormat(name=name, **more)
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 0, 6)[:, None]
    words, scale = quantize(weight, form)
    top = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}[name]
    largest = numbers(words, form).abs()
    parts = {"per_channel": list(largest), "group": list(largest[:, :16])}.get(next(iter(more), ""), [largest])
    assert all(part.max() == top for part in parts)
    error = (dequantize(words, scale, form) - weight).abs()
    mantissa = 3 if name == "fp8_e4m3" else 2
    # half a step of normal numbers, or of subnormal ones
    step = torch.maximum(weight.abs() * 2.0**-mantissa, scale * numbers(torch.tensor([1]), form) * 1.0)
    assert (error <= 0.5 * step * (1 + 1e-5)).all()
    assert torch.equal(quantize(dequantize(words, scale, form), form)[0], words)


def small_network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 40)).eval()
    made[1].weight.data = torch.linspace(0.3, 3, 8)
    return made


FORMS = [*(WordFormat(name=name) for name in WIDTHS), WordFormat(3, group=32), WordFormat(name="fp8_e5m2", group=7)]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("fold", [False, True])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_faults_read_as_the_slow_twin_reads_them(form, fold, data):
    """Word by word in Python integers, the exponents of blocks among them; then the kept library's numbers."""
    faulty, plain = FaultyNetwork(small_network(), form, fold=fold), small_network()
    gain = (plain[1].weight / torch.sqrt(plain[1].running_var + plain[1].eps)).detach().double().numpy()
    n = faulty.words.size
    known = None if form.name == "int" else kept_values(form.name)
    for _ in range(2):
        seed, count = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([0, 3, 20, 600]))
        rng = np.random.default_rng(seed)
        word = rng.integers(0, n, count)
        if form.shared and count:
            word[:2] = rng.integers(72 * 40 + 144, n, 2)  # exponents
        bit, kind = rng.integers(0, form.bits, count), rng.integers(0, 3, count)
        faulty.set_faults(word, bit.astype(np.uint8), kind.astype(np.uint8))
        codes = [int(w) & (1 << form.bits) - 1 for w in faulty.clean_words]
        for w, b, k in zip(word.tolist(), bit.tolist(), kind.tolist(), strict=True):
            codes[w] = [codes[w] & ~(1 << b), codes[w] | 1 << b, codes[w] ^ 1 << b][k]
        assert [int(w) & (1 << form.bits) - 1 for w in faulty.words] == codes
        at = {layer.name: layer for layer in faulty.layer_table}
        for name, module in (("0", 0), ("4", 4)):
            layer, found = at[f"{name}.weight"], faulty.network[module].weight.detach().numpy()
            raw = np.array(codes[layer.offset : layer.offset + layer.size])
            whole = np.where(raw >= 1 << form.bits - 1, raw - (1 << form.bits), raw)
            meant = whole if known is None else known[raw]
            _, scale = quantize(plain[module].weight, form)
            scale = scale.expand(layer.shape).flatten().double().numpy()
            if form.shared:
                own = at[f"{name}.weight.exponents"]
                bytes_ = np.array(codes[own.offset : own.offset + own.size]).reshape(-1, 8 // form.bits)
                code = (bytes_ << form.bits * np.arange(8 // form.bits)).sum(1)
                power = np.where(code == 255, np.nan, 2.0 ** (code - 127.0))
                starts = form.starts(layer.shape)
                scale = np.repeat(power, np.diff(np.append(starts, layer.size)))
            if fold and module == 0:
                scale = scale * np.repeat(gain, layer.size // len(gain))
            with np.errstate(over="ignore", invalid="ignore"):
                expected = (meant.astype(np.float64) * scale.astype(np.float32)).astype(np.float32)
            # the scale, gain and all, is rounded to float32 once more
            assert np.allclose(found.flatten(), expected, rtol=3e-7, atol=1e-44, equal_nan=True)
        share = sum(
            bin(a ^ int(b) & (1 << form.bits) - 1).count("1") for a, b in zip(codes, faulty.clean_words, strict=True)
        )
        assert faulty.flip_rate() == share / (n * form.bits)
    faulty.restore()
    assert np.array_equal(faulty.words, faulty.clean_words)
    again = FaultyNetwork(small_network(), form, fold=fold)
    assert torch.equal(faulty.network[4].weight, again.network[4].weight)


def test_infinity_and_nan_pass_through_the_arithmetic():
    """A flipped exponent bit of BF16 makes 1 an infinity's neighbour: 2^0 becomes 2^128."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0], [0.5, 0.25]])
    faulty = FaultyNetwork(layer, WordFormat(name="bf16"))
    faulty.set_faults(np.array([0]), np.array([14], np.uint8), np.array([2], np.uint8))
    assert faulty(torch.tensor([[1.0, 1.0]])).tolist() == [[float("inf"), 0.75]]
    assert torch.isnan(faulty(torch.tensor([[0.0, 1.0]]))[0, 0])  # 0 times infinity


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"name": "fp16"}, "format"),
        ({"bits": 9}, "bits"),
        ({"name": "bf16", "per_channel": True}, "per_channel"),
        ({"name": "mxfp4", "group": 16}, "group"),
        ({"group": 32, "per_channel": True}, "group"),
        ({"group": 1}, "group"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, key):
    with pytest.raises(InputError) as found:
        WordFormat(**wrong)
    assert found.value.key == key


@pytest.mark.parametrize(("form", "key"), [(WordFormat(name="fp8_e4m3"), "format"), (WordFormat(group=32), "group")])
def test_a_device_has_integers_with_a_scale_for_each_filter(form, key):
    with pytest.raises(InputError) as found:
        compile_network(FaultyNetwork(small_network(), form), torch.zeros(1, 2, 5, 5))
    assert found.value.key == key
