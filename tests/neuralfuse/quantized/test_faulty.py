"""Are the stored words what the paper says, and does the network compute with exactly what it reads back?"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized import kernels
from neuralfuse.quantized.faulty import FaultyNetwork, Numbering
from neuralfuse.quantized.quantize import dequantize, fake_quantize, fake_quantized, quantize, quantize_in_place
from sram.errors import InputError


def test_quantisation_rounds_half_to_even_at_the_papers_scale():
    # max 127 makes the scale 1 exactly, so ties are ties
    weight = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0, 0.49])
    words, scale = quantize(weight)
    assert scale.item() == 1
    assert words.tolist() == [127, 0, 2, 2, 0, -2, -127, 0]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("per_channel", [False, True])
def test_words_stay_in_range_and_within_half_a_step(bits, per_channel):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(bits))
    weight *= torch.logspace(-2, 2, 6)[:, None, None, None]
    words, scale = quantize(weight, bits, per_channel)
    top = 2 ** (bits - 1) - 1
    assert words.dtype == torch.int8
    assert words.abs().amax() == top
    assert ((dequantize(words, scale) - weight).abs() <= scale * 0.5 * (1 + 1e-5)).all()
    if per_channel:
        assert (words.abs().amax((1, 2, 3)) == top).all()
        assert scale.shape == (6, 1, 1, 1)
    again, _ = quantize(dequantize(words, scale), bits, per_channel)
    assert torch.equal(again, words)  # a rounded network is stored as it is


def test_quantisation_refuses_what_is_no_weight():
    assert quantize(torch.zeros(3))[1] == 1
    with pytest.raises(InputError, match="bits"):
        quantize(torch.ones(2), bits=9)
    with pytest.raises(InputError, match="NaN"):
        quantize(torch.tensor([1.0, float("nan")]))
    broken = networks.build("resnet8", in_channels=1)
    broken.head.weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"weight head\.weight"):
        FaultyNetwork(broken)


@pytest.mark.parametrize("seed", range(3))
def test_float_path_equals_integer_arithmetic(seed):
    """A layer on 8-bit activations: the float result divided by the scales is the integer accumulator, to the last
    unit."""
    random = np.random.default_rng(seed)
    x = random.integers(-128, 128, (4, 16, 12, 12))
    words, scale = quantize(torch.from_numpy(random.normal(size=(24, 16, 3, 3))).float())
    step = np.float32(0.0173)
    floating = F.conv2d(torch.from_numpy(x).float() * step, dequantize(words, scale), padding=1)
    columns = F.unfold(torch.from_numpy(x).double(), 3, padding=1).long().numpy()  # exact: integers below 2^53
    integer = np.einsum("fk,nkp->nfp", words.reshape(24, -1).numpy().astype(np.int64), columns).reshape(4, 24, 12, 12)
    assert np.array_equal(np.rint(floating.double().numpy() / (float(step) * scale.item())), integer)
    # with scales that are powers of two even the rounding of float32 is exact
    exact = F.conv2d(torch.from_numpy(x).float() * 2**-7, dequantize(words, torch.tensor(2.0**-9)), padding=1)
    assert np.array_equal(exact.numpy(), integer.astype(np.float64) * 2.0**-16)


def test_fake_quantised_training_passes_gradients_straight_through():
    layer = nn.Linear(3, 1, bias=False)
    master = layer.weight.data.clone()
    with fake_quantized(layer, 4):
        assert torch.equal(layer.weight.data, fake_quantize(master, 4))
        layer(torch.tensor([[1.0, 2.0, 3.0]])).backward()
    assert torch.equal(layer.weight.data, master)
    assert layer.weight.grad.tolist() == [[1.0, 2.0, 3.0]]


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2)),
        *(nn.Flatten(), nn.Linear(75, 40)),
    )


def slow_read(clean, bits, faults):
    """Word by word in Python integers."""
    stored = {}
    for weight, bit, kind in faults:
        pattern = stored.get(weight, int(clean[weight]) & (2**bits - 1))
        if kind == 0:
            pattern &= ~(1 << bit)
        elif kind == 1:
            pattern |= 1 << bit
        else:
            pattern ^= 1 << bit
        stored[weight] = pattern
    words = clean.copy()
    for weight, pattern in stored.items():
        words[weight] = pattern - 2**bits if pattern >= 2 ** (bits - 1) else pattern
    return words, stored


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.booleans(), st.randoms(use_true_random=False))
def test_any_sequence_of_faults_reads_like_the_slow_twin(bits, per_channel, random):
    faulty = FaultyNetwork(small_network(), bits, per_channel)
    reference = small_network()
    for _ in range(3):
        faults = [
            (random.randrange(faulty.words.size), random.randrange(bits), random.randrange(3))
            for _ in range(random.choice([0, 1, 5, 400]))
        ]
        columns = np.array(faults, np.int64).reshape(-1, 3).T
        faulty.set_faults(columns[0], columns[1].astype(np.uint8), columns[2].astype(np.uint8))
        expected, stored = slow_read(faulty.clean_words, bits, faults)
        assert np.array_equal(faulty.words, expected)
        flipped = sum(((int(faulty.clean_words[w]) & (2**bits - 1)) ^ p).bit_count() for w, p in stored.items())
        assert faulty.flip_rate() == flipped / (faulty.words.size * bits)
        for layer, (name, original) in zip(
            faulty.layer_table, ((n, p) for n, p in reference.named_parameters() if p.dim() > 1), strict=True
        ):
            assert name == layer.name
            _, scale = quantize(original, bits, per_channel)
            word = torch.from_numpy(expected[layer.offset : layer.offset + layer.size].reshape(layer.shape))
            assert torch.equal(faulty.network.get_parameter(name), dequantize(word, scale))
    faulty.restore()
    assert np.array_equal(faulty.words, faulty.clean_words)
    assert faulty.flip_rate() == 0


def test_a_flip_moves_a_weight_in_proportion_to_its_scale_and_least_with_one_a_filter():
    """Bit b flipped moves a weight by 2^b scales, whatever the weight: by max|W| / 127 of the tensor, or of its filter,
    which is never more."""
    network = small_network()
    network[0].weight.data *= torch.logspace(-1, 0, 4)[:, None, None, None]  # filters of different ranges
    largest = network[0].weight.data.abs().amax((1, 2, 3))
    weight = np.arange(4 * 18)
    for bit in range(8):
        moved = {}
        for per_channel in (False, True):
            faulty = FaultyNetwork(copy.deepcopy(network), per_channel=per_channel)
            clean = faulty.network[0].weight.clone()
            faulty.set_faults(weight, np.full(72, bit, np.uint8), np.full(72, 2, np.uint8))
            moved[per_channel] = (faulty.network[0].weight - clean).abs()
        scale = 2**bit / 127
        torch.testing.assert_close(moved[False], (scale * largest.max()).expand(4, 2, 3, 3))
        torch.testing.assert_close(moved[True], (scale * largest)[:, None, None, None].expand(4, 2, 3, 3))


def test_faults_that_the_caller_writes_over_are_taken_back_all_the_same():
    """A buffer that is used again for the next chip: the words of the chip before are the ones to be restored."""
    faulty = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 64)))  # so few faults are taken back one by one
    weight, bit, kind = np.array([1, 3]), np.array([7, 7], np.uint8), np.array([2, 2], np.uint8)
    faulty.set_faults(weight, bit, kind)
    weight[:] = 5, 6
    faulty.set_faults(weight, bit, kind)
    assert np.flatnonzero(faulty.words != faulty.clean_words).tolist() == [5, 6]
    weight[:] = 0
    faulty.restore()
    assert np.array_equal(faulty.words, faulty.clean_words)


def test_a_device_is_sent_only_the_words_that_differ_from_what_it_has():
    faulty = FaultyNetwork(small_network())
    shown, before = faulty.words.copy(), np.empty(0, np.int64)
    sent = []
    for faults in (12, 20, 15, 15):  # a lower voltage of the same chip adds eight cells, a higher one heals five
        weight = np.arange(faults)
        faulty.set_faults(weight, np.full(faults, 3, np.uint8), np.full(faults, 2, np.uint8))
        sent.append(kernels.changed(faulty.words, shown, np.concatenate([before, weight])).tolist())
        assert np.array_equal(shown, faulty.words)
        before = weight
    assert sent == [list(range(12)), list(range(12, 20)), list(range(15, 20)), []]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_reads_the_same_words_as_the_cpu():
    random = np.random.default_rng(0)
    here, there = FaultyNetwork(small_network(), 6, True), FaultyNetwork(small_network(), 6, True, "cuda")
    for faults in (0, 3, 400, 20, 0):
        drawn = random.integers(here.words.size, size=faults), random.integers(6, size=faults).astype(np.uint8)
        kind = random.integers(3, size=faults).astype(np.uint8)
        here.set_faults(*drawn, kind)
        there.set_faults(*drawn, kind)
        for mine, other in zip(here.network.parameters(), there.network.parameters(), strict=True):
            assert torch.equal(mine, other.cpu())


def test_biases_and_normalisation_carry_no_faults_and_gradients_reach_only_the_input():
    network = small_network()
    bias = network[0].bias.clone()
    faulty = FaultyNetwork(network)
    assert faulty.words.size == 4 * 2 * 9 + 4 * 3 * 4 + 75 * 40
    everywhere = np.arange(faulty.words.size)
    faulty.set_faults(everywhere, np.full(everywhere.size, 7, np.uint8), np.full(everywhere.size, 1, np.uint8))
    assert (faulty.words < 0).all()
    assert torch.equal(network[0].bias, bias)
    assert not network.training
    faulty.restore()  # with every sign bit set no ReLU would be open
    x = torch.rand(2, 2, 6, 6, requires_grad=True)
    faulty(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())


def test_shared_weights_are_stored_once():
    first = nn.Linear(4, 4)
    second = nn.Linear(4, 4)
    second.weight = first.weight
    faulty = FaultyNetwork(nn.Sequential(first, second))
    assert [layer.name for layer in faulty.layer_table] == ["0.weight"]
    assert second.weight.data_ptr() == first.weight.data_ptr()


def test_faults_outside_the_words_are_refused():
    faulty = FaultyNetwork(small_network(), bits=4)
    one = np.array([1], np.uint8)
    for weight, bit in ((-1, 0), (faulty.words.size, 0), (0, 4)):
        with pytest.raises(InputError, match="weight below 3120, bit below 4"):
            faulty.set_faults(np.array([weight]), np.array([bit], np.uint8), one)
    assert np.array_equal(faulty.words, faulty.clean_words)
    with pytest.raises(InputError, match="at least one"):
        FaultyNetwork(nn.ReLU())


def test_rounded_network_is_stored_without_change():
    network = quantize_in_place(small_network())
    x = torch.rand(3, 2, 6, 6)
    before = network.eval()(x)
    assert torch.allclose(FaultyNetwork(network)(x), before, atol=1e-6)


def test_placement_numbers_reach_the_right_words():
    """Tensors that a schedule lists in another order, in parts, or twice, still name the same elements."""
    from simulator.placement import Tensor

    faulty = FaultyNetwork(small_network())
    by_name = {layer.name: layer for layer in faulty.layer_table}
    tensors = [Tensor("5.weight", 75, 0, 300), Tensor("0.weight", 0, 300, 72), Tensor("5.weight", 0, 372, 75)]
    words = faulty.numbering(tensors).words(np.array([0, 299, 300, 371, 372, 446]))
    linear = by_name["5.weight"].offset
    assert words.tolist() == [linear + 75, linear + 374, 0, 71, linear, linear + 74]
    with pytest.raises(InputError, match="stored weights"):
        faulty.numbering([Tensor("9.weight", 0, 0, 1)])


def test_a_tensor_that_stays_where_it_is_between_others_that_move():
    numbering = Numbering(first=np.array([0, 10, 20]), shift=np.array([5, 0, -7]))
    assert numbering.words(np.array([0, 9, 10, 19, 20, 29])).tolist() == [5, 14, 10, 19, 13, 22]
    still = Numbering(first=np.array([0, 10]), shift=np.array([0, 0]))
    assert still.words(np.array([3, 12])).tolist() == [3, 12]


def slow_recurrent(kind, x, w):
    """The last state of a layer of one direction, step by step as torch's documentation writes it, in float64."""
    hidden = w["weight_hh_l0"].shape[1] if "weight_hr_l0" not in w else w["weight_hr_l0"].shape[0]
    h, c = np.zeros((len(x), hidden)), 0.0
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    for step in range(x.shape[1]):
        given = x[:, step] @ w["weight_ih_l0"].T + w["bias_ih_l0"]
        kept = h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        if kind == "RNN":
            h = np.tanh(given + kept)
        elif kind == "GRU":
            (r, z, n), (hr, hz, hn) = np.split(given, 3, 1), np.split(kept, 3, 1)
            gate = sigmoid(z + hz)
            h = (1 - gate) * np.tanh(n + sigmoid(r + hr) * hn) + gate * h
        else:
            i, f, g, o = np.split(given + kept, 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            h = h @ w["weight_hr_l0"].T if "weight_hr_l0" in w else h
    return h


@pytest.mark.parametrize(("kind", "options"), [("LSTM", {}), ("LSTM", {"proj_size": 3}), ("GRU", {}), ("RNN", {})])
def test_a_recurrent_layer_computes_with_the_words_that_are_read(kind, options):
    torch.manual_seed(0)
    layer = getattr(nn, kind)(4, 5, batch_first=True, **options)
    biases = {name: one.detach().double().numpy() for name, one in layer.named_parameters() if "bias" in name}
    x = torch.randn(3, 6, 4)
    faulty = FaultyNetwork(copy.deepcopy(layer))
    clean = faulty(x)[0]
    n = faulty.words.size
    faults = np.arange(0, n, 3), np.full(len(range(0, n, 3)), 6, np.uint8), np.full(len(range(0, n, 3)), 2, np.uint8)
    for now in (faults, tuple(part[:0] for part in faults), faults):
        faulty.set_faults(*now)
        read, at = {}, 0
        for name, weight in layer.named_parameters():
            if "weight" in name:
                scale = float(quantize(weight)[1])
                words = faulty.words[at : at + weight.numel()].reshape(weight.shape)
                read[name], at = words.astype(np.float64) * scale, at + weight.numel()
        expected = slow_recurrent(kind, x.double().numpy(), read | biases)
        assert np.allclose(faulty(x)[0][:, -1].double().numpy(), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(faulty(x)[0], clean, atol=0.01)  # the faults matter
