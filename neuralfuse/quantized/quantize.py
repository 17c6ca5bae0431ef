"""Weights as words: which parameters are stored, and what is written for each number.

As integers: symmetric uniform quantisation to 2..8 bits in two's complement. Scale s = max|W| / (2^(b-1) - 1), word
q = W / s rounded half to even (Sun et al., NeurIPS 2024, arXiv 2306.16869). The word -2^(b-1) is never written by
quantisation; a fault can produce it. Other formats: `formats`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuralfuse.networks.words import Words
from neuralfuse.quantized.formats import BIAS, WordFormat, words_of
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
    if isinstance(weight, Words):
        if form.name != "int" or form.bits != weight.bits:
            raise InputError(
                "quantize", "words", form.name, f"format int with bits {weight.bits}, as the model has them"
            )
        return weight.detach().to(torch.int8), torch.ones([1] * weight.dim())
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        raise InputError("quantize", "weight", "NaN or infinite", "finite numbers")
    scale = _scales(weight, form)
    return encode(weight / scale, form), scale


def dequantize(words: Tensor, scale: Tensor, form: WordFormat = INTEGERS) -> Tensor:
    """Return what the accelerator computes with: what a word stands for times scale, in float32."""
    return numbers(words, form) * scale


def fake_quantize(weight: Tensor, bits: int | WordFormat = 8, per_channel: bool = False) -> Tensor:
    """Round a weight to the nearest value that a word can hold."""
    form = words_of(bits, per_channel)
    return dequantize(*quantize(weight, form), form)


def numbers(words: Tensor, form: WordFormat) -> Tensor:
    """Return what words stand for before they are scaled, float32."""
    table = form.table
    return torch.from_numpy(table).to(words.device)[words.long() & len(table) - 1] if table.size else words.float()


def encode(scaled: Tensor, form: WordFormat) -> Tensor:
    """Return the words nearest to numbers that are scaled, int8 or int16; ties go to the even word, and what is beyond
    the largest number to that."""
    if form.element in ("int", "int8"):
        level = 2 ** (form.bits - 1) - 1
        unit = 64 if form.element == "int8" else 1
        # torch.round rounds half to even; the clamp only catches the last bit of the division
        return torch.round(scaled * unit).clamp_(-level, level).to(torch.int8)
    known = torch.from_numpy(form.magnitudes).to(scaled.device)
    between, size = known[1:] / 2 + known[:-1] / 2, scaled.abs()  # the sum of the largest is no float32
    low, high = torch.bucketize(size, between), torch.bucketize(size, between, right=True)
    code = torch.where(low % 2 == 0, low, high)  # they differ where two are equally near
    negative = torch.signbit(scaled).long() << form.bits - 1
    return _signed(code | negative, form.bits)


def shared_exponents(scale: Tensor, form: WordFormat) -> Tensor:
    """Return the words of the shared exponents that stand for powers of two [runs], the least significant first.

    >>> shared_exponents(torch.tensor([1.0, 0.5]), WordFormat(name="mxfp4"))  # codes 127 and 126, in nibbles
    tensor([-1,  7, -2,  7], dtype=torch.int8)
    """
    code = torch.frexp(scale).exponent.long() - 1 + BIAS
    parts = code[:, None] >> torch.arange(0, 8, form.bits) & (1 << form.bits) - 1
    return _signed(parts.flatten(), form.bits)


def _scales(weight: Tensor, form: WordFormat) -> Tensor:
    """The scale of each weight, as `quantize` returns it. A run of zeros has scale 1."""
    if form.run is not None:
        rows = weight.reshape(weight.shape[0] if weight.dim() > 1 else 1, -1)
        runs = torch.nn.functional.pad(rows, (0, -rows.shape[1] % form.run)).unflatten(1, (-1, form.run))
        wide = runs.abs().amax(2).repeat_interleave(form.run, 1)[:, : rows.shape[1]]
        largest = wide.reshape(weight.shape)
    else:
        by_rows = form.per_channel and weight.dim() > 1
        axes = tuple(range(int(by_rows), weight.dim()))
        largest = weight.abs().amax(axes, keepdim=form.per_channel)
    one = torch.ones_like(largest)
    if form.name == "bf16":
        return one
    if form.shared:
        power = torch.frexp(largest).exponent - 1 - form.largest_power
        found = torch.ldexp(one, power.clamp(-BIAS, BIAS))
    else:
        found = largest / (2 ** (form.bits - 1) - 1 if form.name == "int" else form.magnitudes[-1])
    return torch.where(largest > 0, found, one)


def _signed(code: Tensor, bits: int) -> Tensor:
    """Patterns of so many bits as they are kept: sign-extended."""
    top = 1 << bits - 1
    return ((code ^ top) - top).to(torch.int8 if bits <= 8 else torch.int16)


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
