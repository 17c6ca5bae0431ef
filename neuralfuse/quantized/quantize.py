"""Weights as words: which parameters are stored, and what is written for each number.

As integers: symmetric uniform quantisation to 2..8 bits in two's complement. Scale s = max|W| / (2^(b-1) - 1), word
q = W / s rounded half to even (Sun et al., NeurIPS 2024, arXiv 2306.16869). The word -2^(b-1) is never written by
quantisation; a fault can produce it. Other formats: `formats`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuralfuse.quantized.formats import WordFormat, words_of
from sram.errors import InputError

INTEGERS = WordFormat()
WEIGHT_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    nn.Embedding,
    nn.EmbeddingBag,
)


def quantize(weight: Tensor, bits: int | WordFormat = 8, per_channel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the words (int8, or int16 where they have 16 bits; shape of `weight`) and the scale (float32: a scalar,
    one per first axis as (C, 1, ...), or one for each weight where a row has several).

    `bits` of integers, or a WordFormat, which says the rest. A tensor of zeros gets scale 1. Weights that are not
    finite, and bits outside 2..8, are an InputError.

    >>> words, scale = quantize(torch.tensor([0.6, -1.0, 0.25]), bits=4)
    >>> words.tolist(), round(scale.item(), 4)
    ([4, -7, 2], 0.1429)
    >>> quantize(torch.tensor([0.6, -1.0]), WordFormat(name="bf16"))[0]
    tensor([ 16154, -16512], dtype=torch.int16)
    """
    form = words_of(bits, per_channel)
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        raise InputError("quantize", "weight", "NaN or infinite", "finite numbers")
    scale = form.scales(weight)
    return form.encode(weight / scale), scale


def dequantize(words: Tensor, scale: Tensor, form: WordFormat = INTEGERS) -> Tensor:
    """Return what the accelerator computes with: what a word stands for times scale, in float32."""
    return form.numbers(words) * scale


def fake_quantize(weight: Tensor, bits: int | WordFormat = 8, per_channel: bool = False) -> Tensor:
    """Round a weight to the nearest value that a word can hold."""
    form = words_of(bits, per_channel)
    return dequantize(*quantize(weight, form), form)


def weight_parameters(network: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters that are stored as words by name, in the order of `named_modules`.

    These are the weights of convolutions, linear layers and the input projections of `nn.MultiheadAttention`, of
    recurrent layers and cells, and the tables of embeddings; not biases or normalisation. A weight that two layers
    share is listed once, under the first name: it is stored once. A module of another kind names what of it is stored
    in `stored_weights` (`pixelwise`, exported graphs, a parameter that is used as it is). `names` picks the parameters
    instead. A name that is no parameter's is an InputError.

    >>> list(weight_parameters(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))))
    ['0.weight', '3.weight']
    >>> list(weight_parameters(nn.LSTM(2, 3)))
    ['weight_ih_l0', 'weight_hh_l0']
    """
    if names is not None:
        return {name: _parameter(network, name) for name in names}
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, module in network.named_modules():
        for key in _own_weights(module):
            parameter = _parameter(module, key)
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{name}.{key}" if name else key] = parameter
    return found


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError:
        raise InputError(type(module).__name__, "weight", name, "the name of a parameter") from None


def _own_weights(module: nn.Module) -> Sequence[str]:
    """Names of a module's own parameters that are stored as words."""
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if isinstance(module, WEIGHT_LAYERS):
        return [name for name in own if name == "weight"]
    if isinstance(module, nn.MultiheadAttention):  # in_proj_weight, or one each of q, k and v
        return [name for name in own if name.endswith("proj_weight")]
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):  # _ih, _hh and, of projected states, _hr; layers, directions
        return [name for name in own if name.startswith("weight_")]
    return getattr(module, "stored_weights", ())


def kept_apart(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are no words: biases, normalisation, and what no module lists.

    >>> list(kept_apart(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))))
    ['0.bias', '1.weight', '1.bias']
    """
    stored = {id(weight) for weight in weight_parameters(network).values()}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) not in stored}


@torch.no_grad()
def quantize_in_place(network: nn.Module, bits: int | WordFormat = 8, per_channel: bool = False) -> nn.Module:
    """Round every stored weight of a network to its word (post-training quantisation); returns the network."""
    for weight in weight_parameters(network).values():
        weight.copy_(fake_quantize(weight, bits, per_channel))
    return network


@contextmanager
def fake_quantized(network: nn.Module, bits: int | WordFormat | None = 8, per_channel: bool = False) -> Iterator[None]:
    """Inside the block the network computes with rounded weights; after it the unrounded ones are back.

    Forward and backward inside, optimiser step outside: the straight-through estimator of quantisation-aware training.
    With `bits=None` nothing is rounded.
    """
    if bits is None:
        yield
        return
    weights = list(weight_parameters(network).values())
    masters = [weight.data for weight in weights]
    for weight, master in zip(weights, masters, strict=True):
        weight.data = fake_quantize(master, bits, per_channel)
    try:
        yield
    finally:
        for weight, master in zip(weights, masters, strict=True):
            weight.data = master
