"""Faults of the activation memory: what the tensors that a program stores read back from weak cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.device import activations_kernels as kernels
from simulator.device.program import Program
from simulator.placement import Placement
from sram.errors import InputError
from sram.protection.base import Protection
from sram.protection.words import WordFaults


class Reading(Protocol):
    """What reads a program's stored tensors."""

    def read_back(self, tensor: int, words: NDArray[np.int8], channels_last: bool = False) -> None:
        """Words int8[images, elements] of a tensor as they are read, in place."""


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
    """The memory of a program whose stored tensors lie as `placed` says
    (`simulator.activation_placement.place_activations`).

    `faults`: (element int64[k], bit uint8[k], kind uint8[k]) in the numbering of `placed`, as its `faults` gives them.
    InputError where the two are not of the same network, and for words of other than 8 bits.
    """
    stored, (element, bit, kind) = _stored(program, placed), faults
    first = np.array([tensor.first for tensor in placed.tensors])
    which = np.searchsorted(first, element, side="right") - 1
    faulty, innermost = {}, {}
    for place in np.unique(which).tolist():
        inside = which == place
        masks = _masks(element[inside] - first[place], bit[inside], kind[inside])
        faulty[stored[place]] = masks
        innermost[stored[place]] = _innermost(masks.element, program.shapes[stored[place]])
    return ActivationMemory(faulty, innermost)


def _stored(program: Program, placed: Placement) -> tuple[int, ...]:
    """The tensors of a program that lie as `placed` says: all that it stores, or all but its input, which passes no
    output buffer."""
    if placed.bits != 8:
        raise InputError("activation memory", "bits", placed.bits, "8, the words of a program's activations")
    sizes = [tensor.count for tensor in placed.tensors]
    stored = program.stored[0 if placed.tensors[0].name == "input" else 1 :]
    if sizes != [int(np.prod(program.shapes[tensor])) for tensor in stored]:
        raise InputError("activation memory", "sizes", sizes[:8], "those of the program's stored tensors")
    return stored


class Contents(NamedTuple):
    """The faulty memory words that a tensor lies in: `element` int64[m, slots] of it in each, or with channels
    innermost, -1 where a slot holds none; `row` int64[m] of the words' faults."""

    element: np.ndarray
    innermost: np.ndarray
    row: np.ndarray


@dataclass(frozen=True, eq=False)
class CodedMemory:
    """An activation memory whose words are read through the logic of a protection, each image's as it stored them."""

    contents: dict[int, Contents]
    faults: WordFaults
    protection: Protection
    word_bits: int

    def read_back(self, tensor: int, words: NDArray[np.int8], channels_last: bool = False) -> None:
        """Words int8[images, elements] of a tensor as they are read, in place."""
        if tensor not in self.contents:
            return
        plain, innermost, row = self.contents[tensor]
        element = innermost if channels_last else plain
        held = element >= 0
        for image in words:
            bytes_of = np.zeros((len(element), 8), np.int8)
            bytes_of[:, : element.shape[1]] = np.where(held, image[element], 0)
            seen = self.protection.read(bytes_of.view("<u8")[:, 0], self.faults, row, self.word_bits)
            read = seen.astype("<u8").view(np.int8).reshape(len(element), 8)[:, : element.shape[1]]
            image[element[held]] = read[held]


def coded_memory(program: Program, placed: Placement, faults: WordFaults, protection: Protection) -> CodedMemory:
    """The same as `activation_memory` where `protection` reads the words, for the faults of these, check bits too.

    InputError for words of more than 64 bits, and other bit orders than lsb_first.
    """
    stored, word_bits = _stored(program, placed), placed.geometry.word_bits
    if word_bits > 64 or word_bits % 8 or placed.bit_order != "lsb_first":
        raise InputError("activation memory", "word_bits", word_bits, "whole bytes, at most 64 bits, lsb_first")
    row, element = placed.contents(faults.word)
    first = np.array([tensor.first for tensor in placed.tensors])
    which = np.searchsorted(first, element[:, 0], side="right") - 1  # a tensor starts a word of its own
    contents = {}
    for place in np.unique(which).tolist():
        inside = which == place
        of = np.where(element[inside] >= 0, element[inside] - first[place], -1)
        shape = program.shapes[stored[place]]
        contents[stored[place]] = Contents(of, np.where(of >= 0, _innermost(of, shape), -1), row[inside])
    return CodedMemory(contents, faults, protection, word_bits)


@dataclass(frozen=True)
class InTurn:
    """Memories that every tensor passes one after the other: the output buffer, then the input buffer."""

    memories: tuple[Reading, ...]

    def read_back(self, tensor: int, words: NDArray[np.int8], channels_last: bool = False) -> None:
        """Words int8[images, elements] of a tensor as they are read, in place."""
        for memory in self.memories:
            memory.read_back(tensor, words, channels_last)


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
