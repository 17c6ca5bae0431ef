"""Weights as integer words: symmetric uniform quantisation to 2..8 bits in two's complement.

Scale s = max|W| / (2^(b-1) - 1), word q = W / s rounded half to even (Sun et al., NeurIPS 2024, arXiv 2306.16869).
The word -2^(b-1) is never written by quantisation; a fault can produce it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sram.errors import InputError

BITS = range(2, 9)
WEIGHT_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def quantize(weight: Tensor, bits: int = 8, per_channel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the words (int8, shape of `weight`) and the scale (float32: a scalar, or one per first axis as (C, 1,
    ...)).

    A tensor of zeros gets scale 1. Weights that are not finite, and bits outside 2..8, are an InputError.

    >>> words, scale = quantize(torch.tensor([0.6, -1.0, 0.25]), bits=4)
    >>> words.tolist(), round(scale.item(), 4)
    ([4, -7, 2], 0.1429)
    """
    if bits not in BITS:
        raise InputError("quantize", "bits", bits, "2 to 8")
    weight = weight.detach().float()
    if not torch.isfinite(weight).all():
        raise InputError("quantize", "weight", "NaN or infinite", "finite numbers")
    level = 2 ** (bits - 1) - 1
    axes = tuple(range(1, weight.dim())) if per_channel and weight.dim() > 1 else tuple(range(weight.dim()))
    largest = weight.abs().amax(axes, keepdim=per_channel)
    scale = torch.where(largest > 0, largest / level, torch.ones_like(largest))
    # torch.round rounds half to even; the clamp only catches the last bit of the division
    return torch.round(weight / scale).clamp_(-level, level).to(torch.int8), scale


def dequantize(words: Tensor, scale: Tensor) -> Tensor:
    """Return what the accelerator computes with: word times scale, in float32."""
    return words.float() * scale


def fake_quantize(weight: Tensor, bits: int = 8, per_channel: bool = False) -> Tensor:
    """Round a weight to the nearest value that a word can hold."""
    return dequantize(*quantize(weight, bits, per_channel))


def weight_parameters(network: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Parameter]:
    """Return the weights of all convolutions and linear layers by parameter name, in the order of `named_modules`.

    A weight that two layers share is listed once, under the first name: it is stored once. The stacked input projection
    of `nn.MultiheadAttention` is a linear weight too. Biases and normalisation are not stored as words. A module of
    another kind names its stored parameters in `stored_weights` (`pixelwise`). `names` picks the parameters instead,
    for networks whose products are no modules (exported graphs, say).

    >>> list(weight_parameters(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))))
    ['0.weight', '3.weight']
    """
    found: dict[str, nn.Parameter] = {}
    names = names or getattr(network, "stored_weights", None)
    if names is not None:
        known = dict(network.named_parameters(remove_duplicate=False))
        for name in names:
            if name not in known:
                raise InputError(type(network).__name__, "weight", name, "the name of a parameter")
            found[name] = known[name]
        return found
    seen: set[int] = set()
    for name, module in network.named_modules():
        own: Sequence[str] = getattr(module, "stored_weights", ())
        if isinstance(module, WEIGHT_LAYERS):
            own = ["weight"]
        elif isinstance(module, nn.MultiheadAttention):
            own = ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"]
        for key in own:
            parameter = getattr(module, key)
            if isinstance(parameter, nn.Parameter) and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{name}.{key}" if name else key] = parameter
    return found


@torch.no_grad()
def quantize_in_place(network: nn.Module, bits: int = 8, per_channel: bool = False) -> nn.Module:
    """Round every stored weight of a network to its word (post-training quantisation); returns the network."""
    for weight in weight_parameters(network).values():
        weight.copy_(fake_quantize(weight, bits, per_channel))
    return network


@contextmanager
def fake_quantized(network: nn.Module, bits: int | None = 8, per_channel: bool = False) -> Iterator[None]:
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
