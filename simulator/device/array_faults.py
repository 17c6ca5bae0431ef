"""Faults inside the array: sums that are late, and partial sums that wait in weak cells.

Both act on the sums of a convolution before they are scaled, for networks whose activations are words. In an array that
has both, late sums are drawn by what the partial sums have become.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.device import array_faults_kernels as kernels
from simulator.device.program import Conv
from simulator.mac_errors import MacErrors
from sram import random

MOST = 40.0  # expected errors, beyond which an output fails for sure


class ArrayFaults(Protocol):
    """What goes wrong inside the array."""

    def apply(
        self,
        place: int,
        step: Conv,
        weights: NDArray[np.int8],
        words: NDArray[np.int8],
        sums: NDArray[np.int32],
        first_image: int,
    ) -> None:
        """Sums int32[n, pixels, filters] of a convolution, in place; it makes tensor `place` of words
        int8[n, h, w, channels] with weights int8[weights of the step]. The first image has this number."""


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

    def apply(
        self,
        place: int,
        step: Conv,
        weights: NDArray[np.int8],
        words: NDArray[np.int8],
        sums: NDArray[np.int32],
        first_image: int,
    ) -> None:
        """As ArrayFaults has it."""
        if not any(self.errors.by_signs):
            return
        negative, square = _products(step, weights, words)
        falling, rising, under_rising, under_falling = self.errors.by_signs
        positive = step.taps - negative
        over = negative * falling + positive * rising  # expected errors of an output whose running sum is >= 0
        under = np.where(square > 0, positive * under_rising + negative * under_falling, over)
        fails = (np.float32(2.0**32 * -np.expm1(-np.minimum(expected, MOST))) for expected in (over, under))
        spread = np.float32(8 / np.pi * np.maximum(square, 1.0))
        lowest = np.cumsum(self.errors.lowest_bit)
        kernels.late(sums, *fails, spread, lowest, place, first_image, random.key(self.seed, self.chip))


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
