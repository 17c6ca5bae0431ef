"""Faults of the activation memory: what the tensors that a program stores read back from weak cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.device import activations_kernels as kernels
from simulator.device.program import Program
from simulator.placement import Placement
from sram.errors import InputError


class Masks(NamedTuple):
    """Of some elements int64[k] of a tensor: the bits, uint8[k], that read 0, read 1, and read what was not stored."""

    element: np.ndarray
    zero: np.ndarray
    one: np.ndarray
    flip: np.ndarray


@dataclass(frozen=True, eq=False)
class ActivationMemory:
    """By tensor of a program, what its faulty elements read. All images pass through the same cells.

    Elements are numbered in torch order (channel, row, column), or with channels innermost.
    """

    faulty: dict[int, Masks] = field(default_factory=dict)
    innermost: dict[int, np.ndarray] = field(default_factory=dict)

    def read_back(self, tensor: int, words: NDArray[np.int8], channels_last: bool = False) -> None:
        """Words int8[images, elements] of a tensor as they are read, in place."""
        if tensor in self.faulty:
            element, *masks = self.faulty[tensor]
            kernels.read_back(words, self.innermost[tensor] if channels_last else element, *masks)


NOTHING_FAULTY = ActivationMemory()


def activation_memory(
    program: Program, placed: Placement, faults: tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]
) -> ActivationMemory:
    """The memory of a program whose stored tensors lie as `placed` says (`simulator.placement.place_activations`).

    `faults`: (element int64[k], bit uint8[k], kind uint8[k]) in the numbering of `placed`, as its `faults` gives them.
    InputError where the two are not of the same network, and for words of other than 8 bits.
    """
    stored, sizes = program.stored, [tensor.count for tensor in placed.tensors]
    if placed.bits != 8:
        raise InputError("activation memory", "bits", placed.bits, "8, the words of a program's activations")
    if sizes != [int(np.prod(program.shapes[tensor])) for tensor in stored]:
        raise InputError("activation memory", "sizes", sizes[:8], "those of the program's stored tensors")
    element, bit, kind = faults
    first = np.array([tensor.first for tensor in placed.tensors])
    which = np.searchsorted(first, element, side="right") - 1
    faulty, innermost = {}, {}
    for place in np.unique(which).tolist():
        inside = which == place
        masks = _masks(element[inside] - first[place], bit[inside], kind[inside])
        faulty[stored[place]] = masks
        innermost[stored[place]] = _innermost(masks.element, program.shapes[stored[place]])
    return ActivationMemory(faulty, innermost)


def _masks(element: np.ndarray, bit: np.ndarray, kind: np.ndarray) -> Masks:
    unique, row = np.unique(element, return_inverse=True)
    masks = np.zeros((3, len(unique)), np.uint8)
    np.bitwise_or.at(masks, (kind, row), np.left_shift(1, bit, dtype=np.uint8))
    return Masks(unique, *masks)


def _innermost(element: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Elements numbered (channel, row, column) of (channels, rows, columns), numbered (row, column, channel).

    >>> _innermost(np.array([0, 1, 6]), (2, 2, 3))
    array([0, 2, 1])
    """
    channels, plane = shape[0], shape[1] * shape[2]
    return element % plane * channels + element // plane
