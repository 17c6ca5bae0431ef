"""Faults in the activation memory: outputs of layers, stored as integer words in weak cells.

The paper keeps activations free of faults, and so does every study. This is for asking what that assumption is worth.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse.quantized.faulty import FaultyBits
from simulator.placement import Placement
from sram import inject
from sram.errors import InputError


def scales_of(network: nn.Module, images: Tensor, placed: Placement) -> dict[str, float]:
    """Quantisation step of each stored output: its largest magnitude over `images` / (2^(bits - 1) - 1).

    Only outputs of modules can be caught; `placed.tensors` that are results of bare operators (the sum of a residual
    block, say) are left out: see `uncaught`.
    """
    largest: dict[str, float] = {}
    modules = dict(network.named_modules())
    names = [tensor.name for tensor in placed.tensors if tensor.name in modules]

    def watch(name: str):
        def hook(_module, _inputs, output: Tensor) -> None:
            largest[name] = max(largest.get(name, 0.0), float(output.abs().max()))

        return hook

    handles = [modules[name].register_forward_hook(watch(name)) for name in names]
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    level = 2 ** (placed.bits - 1) - 1
    return {name: (value or 1.0) / level for name, value in largest.items()}


def uncaught(network: nn.Module, placed: Placement) -> list[str]:
    """Stored outputs that no module of the network returns: faults in them are not injected."""
    modules = dict(network.named_modules())
    return [tensor.name for tensor in placed.tensors if tensor.name not in modules]


@contextmanager
def faulty_activations(
    network: nn.Module, placed: Placement, scales: dict[str, float], faults: FaultyBits
) -> Iterator[nn.Module]:
    """Inside the block every stored output passes through its cells: rounded to a word, its faulty bits set, read back.

    `placed` comes from `placement.place_activations`; `faults` is (element int64[k], bit uint8[k], kind uint8[k]) in
    its numbering. Every image passes through the same cells. Words are two's complement of `placed.bits` <= 8 bits.
    """
    if placed.bits > 8:
        raise InputError("activations", "bits", placed.bits, "at most 8")
    element, bit, kind = faults
    modules = dict(network.named_modules())
    handles = []
    for tensor in placed.tensors:
        if tensor.name not in scales:
            continue
        inside = (element >= tensor.first) & (element < tensor.first + tensor.count)
        table = _truth_table(element[inside] - tensor.first, bit[inside], kind[inside], placed.bits)
        handles.append(modules[tensor.name].register_forward_hook(_through(scales[tensor.name], placed.bits, *table)))
    try:
        yield network
    finally:
        for handle in handles:
            handle.remove()


def _truth_table(element: np.ndarray, bit: np.ndarray, kind: np.ndarray, bits: int) -> tuple[Tensor, Tensor]:
    """(elements int64[u], table int16[u, 2^bits]): what a faulty element reads back for each word that it is given."""
    unique, row = np.unique(element, return_inverse=True)
    size = 2**bits
    words = np.tile(np.arange(size).astype(np.uint8).view(np.int8), (len(unique), 1))
    for each in range(size):  # one pass for each possible word, over all faults at once
        column = np.ascontiguousarray(words[:, each])
        inject.apply(column, row, bit, kind)
        words[:, each] = column
    values = words.view(np.uint8).astype(np.int16) & (size - 1)
    return torch.from_numpy(unique), torch.from_numpy(np.where(values >= size // 2, values - size, values))


def _through(scale: float, bits: int, element: Tensor, table: Tensor):
    level = 2 ** (bits - 1) - 1

    def hook(_module, _inputs, output: Tensor) -> Tensor:
        words = torch.round(output / scale).clamp_(-level, level)
        if len(element):
            flat = words.flatten(1)
            given = flat[:, element].to(torch.int64) & (2**bits - 1)
            rows = torch.arange(len(element), device=given.device)
            flat[:, element] = table.to(given.device)[rows, given].to(flat.dtype)
            words = flat.view_as(words)
        return words * scale

    return hook
