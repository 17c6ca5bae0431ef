"""Faults inside the array: sums that are late, and partial sums that wait in weak cells.

Both act on the sums of a convolution before they are scaled, for networks whose activations are words. In an array that
has both, late sums are drawn by what the partial sums have become.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.device import array_faults_kernels as kernels
from simulator.device.program import Conv, Program
from simulator.mac_errors import MacErrors
from simulator.placement import Placement
from sram import random
from sram.errors import InputError

MOST = 40.0  # expected errors, beyond which an output fails for sure


class Convolved(NamedTuple):
    """What the array makes: tensor `place`, by a step with weights int8[weights of the step], of words int8[n, h, w,
    channels], as sums int32[n, pixels, filters]. The first of the images has the number `first_image`."""

    place: int
    step: Conv
    weights: NDArray[np.int8]
    words: NDArray[np.int8]
    sums: NDArray[np.int32]
    first_image: int = 0


class ArrayFaults(Protocol):
    """What goes wrong inside the array."""

    def apply(self, made: Convolved) -> None:
        """Change its sums, in place."""


@dataclass(frozen=True)
class TimingFaults:
    """Sums that a clock faster than the critical path gets wrong, drawn for each image by (seed, chip, layer, image).

    An output fails with the probability that one of its MACs does, at the rates that `errors` has for the signs of the
    running sum and the product. Products: for each image and filter the share that is negative, from the counts of
    negative and positive words of each channel and of the filter's weights, as if they were independent and nothing
    were padded. Running sum S: at 0 or above for 1/2 + S / (|S| + sqrt(S^2 + 8 / pi variance)) of the time, which is
    within 0.02 what a random walk on its way to S spends there. The failing MAC adds -2^b or 2^b, which stays; sums
    wrap at 32 bits. After an error most running sums are negative, where hardly any MAC errs, so an output has one
    error at most (weight-stationary arrays begin anew with every fold, and can have one in each: at rates of one error
    an output theirs are too few).

    Outputs that fail at some rates also fail at higher ones of the same signs.
    """

    errors: MacErrors
    seed: int = 0
    chip: int = 0

    def __post_init__(self) -> None:
        random.key(self.seed, self.chip)

    def apply(self, made: Convolved) -> None:
        """As ArrayFaults has it."""
        if not any(self.errors.by_signs):
            return
        step, sums = made.step, made.sums
        negative, square = _products(step, made.weights, made.words)
        falling, rising, under_rising, under_falling = self.errors.by_signs
        # expected errors of an output whose running sum is >= 0 all the time, or below
        over = step.taps * rising + negative * (falling - rising)
        under = step.taps * under_rising + negative * (under_falling - under_rising)
        under = np.where(square > 0, under, over)
        fails = (np.float32(2.0**32 * -np.expm1(-np.minimum(expected, MOST))) for expected in (over, under))
        spread = np.float32(8 / np.pi * np.maximum(square, 1.0))
        lowest = np.cumsum(self.errors.lowest_bit)
        key = random.key(self.seed, self.chip)
        kernels.late(sums, *fails, spread, lowest, made.place, made.first_image, key)


class SumMasks(NamedTuple):
    """Of some outputs of a layer, int64[k] by pixel and filter: the bits, int32[k], of their partial sums that read 0,
    read 1, and read what was not stored."""

    pixel: np.ndarray
    filter: np.ndarray
    zero: np.ndarray
    one: np.ndarray
    flip: np.ndarray


@dataclass(frozen=True, eq=False)
class PartialSumFaults:
    """By tensor of a program, what its faulty partial sums read each time that they come back from the output buffer:
    after every `taps[tensor]` taps but the last. All images pass through the same cells.

    Only the outputs in faulty cells are added up anew.
    """

    faulty: dict[int, SumMasks]
    taps: dict[int, int]

    def apply(self, made: Convolved) -> None:
        """As ArrayFaults has it."""
        place, step, words = made.place, made.step, made.words
        if place in self.faulty:
            out_w = (words.shape[2] + 2 * step.padding[1] - step.kernel_w) // step.stride[1] + 1
            by_filter = made.weights.reshape(step.filters, -1, step.kernel_h, step.kernel_w)
            by_image = np.ascontiguousarray(words.transpose(1, 2, 3, 0))
            window = step.stride, step.padding, out_w
            kernels.add_up(made.sums, by_image, by_filter, window, self.taps[place], *self.faulty[place])


@dataclass(frozen=True, eq=False)
class Checksums:
    """What goes wrong in an array whose outputs are checked by sums over filters (`simulator.logic_protection.Abft`).

    A tile with a pixel whose outputs do not add up, modulo 2^32, to what is right is computed again, in time: what is
    `late` is mended, and what `stays`, as partial sums in weak cells do, is found each time and wrong again. `tiles`:
    by tensor, how many pixels (in the order of rows) and filters of a group are checked together. `counted`: by
    tensor, tiles that were (checked, computed again), of all images that came.
    """

    stays: tuple[ArrayFaults, ...]
    late: tuple[ArrayFaults, ...]
    tiles: dict[int, tuple[int, int]]
    counted: dict[int, tuple[int, int]] = field(default_factory=dict)

    def apply(self, made: Convolved) -> None:
        """As ArrayFaults has it."""
        place, step, sums = made.place, made.step, made.sums
        right = sums.copy()
        for faults in self.stays:
            faults.apply(made)
        again = sums.copy() if self.stays else right
        for faults in self.late:
            faults.apply(made)
        (pixels, filters), (images, plane, _) = self.tiles[place], sums.shape
        group = step.filters // step.groups
        found = kernels.compute_again(sums, right, again, pixels, filters, group)
        before, wrong = self.counted.get(place, (0, 0))
        checked = images * math.ceil(plane / pixels) * math.ceil(group / filters) * step.groups
        self.counted[place] = before + checked, wrong + found


def partial_sum_faults(
    program: Program,
    placed: Placement,
    taps: Sequence[int],
    faults: tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]],
) -> PartialSumFaults:
    """The faults of a program whose partial sums lie as `placed` says, and leave the array after `taps` of each
    convolution (`simulator.activation_placement.place_partial_sums`, `taps_between_spills`).

    `faults`: (sum int64[k], bit uint8[k], kind uint8[k]) in the numbering of `placed`, as its `faults` gives them.
    InputError where these are not of the same network, and for sums of other than 32 bits.
    """
    convolutions = {place: step for place, step in enumerate(program.steps, start=1) if isinstance(step, Conv)}
    if placed.bits != 32:
        raise InputError("partial sums", "bits", placed.bits, "32, the width of the array's sums")
    if len(taps) != len(convolutions):
        raise InputError("partial sums", "taps", len(taps), f"one for each of {len(convolutions)} convolutions")
    spilled = {place: some for (place, step), some in zip(convolutions.items(), taps, strict=True) if some < step.taps}
    sizes = [tensor.count for tensor in placed.tensors]
    if sizes != [math.prod(program.shapes[place]) for place in spilled]:
        raise InputError("partial sums", "sizes", sizes, "those of the program's convolutions of more taps")
    element, bit, kind = faults
    first = np.array([tensor.first for tensor in placed.tensors], np.int64)
    which = np.searchsorted(first, element, side="right") - 1
    faulty = {}
    for tensor, place in enumerate(spilled):
        inside = which == tensor
        if inside.any():
            _, high, wide = program.shapes[place]
            faulty[place] = _sum_masks(element[inside] - first[tensor], bit[inside], kind[inside], high * wide)
    return PartialSumFaults(faulty, spilled)


def _sum_masks(element: np.ndarray, bit: np.ndarray, kind: np.ndarray, plane: int) -> SumMasks:
    """Masks of elements numbered (filter, pixel), in the order of pixels."""
    unique, row = np.unique(element % plane << 32 | element // plane, return_inverse=True)
    masks = np.zeros((3, len(unique)), np.uint32)
    np.bitwise_or.at(masks, (kind, row), np.left_shift(1, bit, dtype=np.uint32))
    return SumMasks(unique >> 32, unique & 0xFFFFFFFF, *masks.view(np.int32))


def _products(step: Conv, weights: NDArray[np.int8], words: NDArray[np.int8]) -> tuple[np.ndarray, np.ndarray]:
    """Of each image and filter, float64[n, filters]: how many products of an output are expected to be negative, and
    the sum of their squares. Whole numbers over the pixels of the plane: exact in any order."""
    n, high, wide, channels = words.shape
    each, filters = channels // step.groups, step.filters // step.groups
    below, above, squared = of_weights = np.empty((3, step.groups, each, filters))
    for group, part in enumerate(weights.reshape(step.groups, filters, each, -1)):
        kernels.signs(part, *of_weights[:, group])
    counts = kernels.signs_and_squares(np.ascontiguousarray(words).reshape(n, high * wide, channels))
    positive, negative, square = counts.reshape(3, n, step.groups, each).transpose(0, 2, 1, 3)

    def of_filters(found: np.ndarray) -> np.ndarray:
        return found.transpose(1, 0, 2).reshape(n, step.filters) / (high * wide)

    return of_filters(positive @ below + negative @ above), of_filters(square @ squared)
