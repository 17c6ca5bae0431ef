"""A frozen network that computes with what it reads back from its weight memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse.quantized import kernels
from neuralfuse.quantized.fold import channels_last, fold_normalisation
from neuralfuse.quantized.formats import WordFormat, words_of
from neuralfuse.quantized.quantize import quantize, shared_exponents, weight_parameters
from sram import inject
from sram.errors import InputError


@dataclass(frozen=True)
class StoredLayer:
    """One weight tensor in the word array: words offset .. offset + size are its elements, row-major."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Words of the tensor."""
        return prod(self.shape)


def exponents_of(weight: str) -> str:
    """What the shared exponents of a weight are called where both are stored."""
    return f"{weight}.exponents"


class PlacedTensor(Protocol):
    """How a placement numbers a tensor: elements offset .. offset + count of parameter `name` are weights first ..."""

    @property
    def name(self) -> str:
        """The parameter."""

    @property
    def offset(self) -> int:
        """Its first element."""

    @property
    def first(self) -> int:
        """The weight that it is."""

    @property
    def count(self) -> int:
        """How many."""


class PlacedFaults(Protocol):
    """What a placement's `hits` gives: stored bits, each with the index of the faulty cell that it lies in."""

    fault: np.ndarray
    weight: np.ndarray
    bit: np.ndarray


@dataclass(frozen=True, eq=False)
class Numbering:
    """Weight numbers of a placement -> word numbers of a network: tensor t starts at first[t] and is moved by
    shift[t]."""

    first: np.ndarray
    shift: np.ndarray

    def words(self, weight: np.ndarray) -> np.ndarray:
        """Word numbers int64[k] of weight numbers int64[k]."""
        if not self.shift.any():
            return weight
        return weight + self.shift[np.searchsorted(self.first, weight, side="right") - 1]


class FaultyNetwork:
    """The stored words of all conv and linear weights of a frozen network, and the float tensors that are read from
    them.

    All words lie in one array, layer after layer in the order of `named_modules` (`layer_table`), each layer
    row-major as in its torch tensor. The network's own weight tensors become views of one float32 vector, so a fault
    costs one write. The network is taken over: it is put in eval mode and its parameters stop requiring gradients;
    gradients still flow to its input. Biases, normalisation and activations carry no faults (Sun et al., NeurIPS
    2024).

    >>> faulty = FaultyNetwork(nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False)))
    >>> with torch.no_grad():
    ...     _ = faulty.network[1].weight.copy_(torch.tensor([[1.0, -0.5]]))
    >>> faulty = FaultyNetwork(faulty.network)
    >>> faulty.words.tolist()
    [127, -64]
    >>> faulty.set_faults(np.array([0]), np.array([6], np.uint8), np.array([0], np.uint8))  # bit 6 stuck at 0
    >>> faulty.words.tolist(), faulty.flip_rate()
    ([63, -64], 0.0625)
    >>> faulty.restore()
    >>> faulty.words.tolist()
    [127, -64]
    """

    def __init__(
        self,
        network: nn.Module,
        bits: int | WordFormat = 8,
        per_channel: bool = False,
        device: str | torch.device = "cpu",
        weights: Sequence[str] | None = None,
        fold: bool = False,
    ):
        """`bits` of integers, or a WordFormat, which says the rest. `weights` names the stored parameters in their
        order, if not all of them as they come.

        `fold` makes the network compute faster (`fold.py`): the same words and faults, but its weight tensors then hold
        each filter's word times scale times the gain of the BatchNorm behind it, which is taken out.
        """
        self.network = network.to(device).eval().requires_grad_(False)
        self.format = form = words_of(bits, per_channel)
        self.bits = form.bits
        gains = fold_normalisation(network) if fold else {}
        if fold and torch.device(device).type == "cpu":
            channels_last(network)
        parameters = weight_parameters(network, weights)
        if not parameters:
            raise InputError("faulty network", "network", type(network).__name__, "at least one conv or linear weight")
        words, shared, scales, starts, table, offset = [], [], [], [], [], 0
        for name, weight in parameters.items():
            try:
                stored, scale = quantize(weight, form)
            except InputError as error:
                raise InputError(f"weight {name}", error.key, error.value, error.allowed) from None
            words.append(stored.flatten().cpu())
            start = form.starts(weight.shape, by_rows=name in gains)
            scale = scale.expand(weight.shape).flatten().cpu()[start]
            if form.shared:  # a power of two that is stored: what is left is the gain
                shared.append(shared_exponents(scale, form))
                scale = torch.ones_like(scale)
            if name in gains:
                scale = (scale * gains[name].cpu()[start // (weight.numel() // len(weight))]).float()
            scales.append(scale)
            starts.append(offset + start)
            table.append(StoredLayer(name, tuple(weight.shape), offset))
            offset += weight.numel()
        read = torch.empty(offset)
        for name, own in zip(parameters, shared, strict=False):
            table.append(StoredLayer(exponents_of(name), tuple(own.shape), offset))
            offset += len(own)
        self.layer_table: tuple[StoredLayer, ...] = tuple(table)
        # On a CPU read.numpy() is the memory of the weight tensors.
        runs = np.concatenate(starts), torch.cat(scales).numpy()
        self._stored = inject.StoredWords(torch.cat(words + shared).numpy(), read.numpy(), *runs, self.bits, form.table)
        self._stored.read_all()
        self._values = read.to(device)
        self.words: np.ndarray = self._stored.words
        self._shown = None if self._values.device.type == "cpu" else self.words.copy()
        for layer, parameter in zip(table, parameters.values(), strict=False):
            parameter.data = self._values[layer.offset : layer.offset + layer.size].view(layer.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of the network with the faults that are now set."""
        return self.network(x)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._values.device

    @property
    def clean_words(self) -> np.ndarray:
        """The words as written, read-only, int8[n] or int16[n]."""
        view = self._stored.clean.view()
        view.flags.writeable = False
        return view

    @property
    def values(self) -> Tensor:
        """What is read of all words, float32[n]: the memory of the weight tensors."""
        return self._values

    def set_faults(self, weight: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> None:
        """Make these the only faults: bit `bit` of word `weight` is stuck at 0 (kind 0), stuck at 1 (1), or flipped
        (2).

        weight int64[k], bit uint8[k], kind uint8[k]. The cost is in proportion to the faults before and now; another
        device is sent only the weights whose value differs from what it has.
        """
        before = self._stored.touched
        self._stored.set_faults(weight, bit, kind)
        if self._shown is not None:
            index = kernels.changed(self.words, self._shown, np.concatenate([before, self._stored.touched]))
            if self.format.shared:  # an exponent changes what it is shared by
                self._values.copy_(torch.from_numpy(self._stored.values))
                return
            new = torch.from_numpy(self._stored.values[index]).to(self.device)
            self._values.index_copy_(0, torch.from_numpy(index).to(self.device), new)

    def write_faults(self, hits: PlacedFaults, kinds: np.ndarray) -> None:
        """`set_faults` for the hits of a placement; kinds[f] is the kind of the f-th faulty cell."""
        self.set_faults(hits.weight, hits.bit, kinds[hits.fault])

    def numbering(self, tensors: Sequence[PlacedTensor]) -> "Numbering":
        """How a placement's weight numbers become word numbers here, whatever the order of its tensors."""
        offset = {layer.name: (layer.offset, layer.size) for layer in self.layer_table}
        for tensor in tensors:
            if tensor.name not in offset or tensor.offset + tensor.count > offset[tensor.name][1]:
                allowed = (
                    f"the stored weights of the network ({', '.join(offset)}), or one in a module's stored_weights"
                )
                raise InputError("placement", "tensor", tensor.name, allowed)
        first = np.array([tensor.first for tensor in tensors], np.int64)
        word = np.array([offset[tensor.name][0] + tensor.offset for tensor in tensors], np.int64)
        order = np.argsort(first)
        return Numbering(first[order], (word - first)[order])

    def restore(self) -> None:
        """Back to the words as written."""
        nothing = np.empty(0, np.uint8)
        self.set_faults(np.empty(0, np.int64), nothing, nothing)

    def flip_rate(self) -> float:
        """Share of all stored bits that now read wrong (a stuck cell reads wrong only where the bit differs)."""
        flipped = kernels.flipped_bits(self.words, self._stored.clean, self._stored.touched, self.bits)
        return flipped / (self.words.size * self.bits)


FaultyBits = tuple[np.ndarray, np.ndarray, np.ndarray]  # weight int64[k], bit uint8[k], kind uint8[k]
