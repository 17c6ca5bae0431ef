"""How many chips, and how many images on each: images of one chip share its faults, so that beyond some dozens they say
little about the lot.

Each chip has an order of its own of the test images, and a sample is what comes first in it: more images later are
added to those that were measured, and protections and supplies of a chip meet the same ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuralfuse.results.rows import Result
from simulator.workload import Workload

FEWEST = 32  # images of a chip; a sample has twice as many, and twice that, ...


def order_of(seed: int, chip: int, images: int) -> np.ndarray:
    """The numbers of all test images in the order of this chip (images,)."""
    return np.random.default_rng([seed, chip, images]).permutation(images)


def blocks(images: int) -> Iterator[tuple[int, int]]:
    """Where a sample's parts begin and end, as they are measured one after the other.

    >>> list(blocks(128)), list(blocks(100))
    ([(0, 32), (32, 64), (64, 128)], [(0, 32), (32, 64), (64, 100)])
    """
    start, stop = 0, FEWEST
    while start < images:
        yield start, min(stop, images)
        start, stop = stop, 2 * stop


@dataclass(frozen=True)
class Variance:
    """Of what an image loses to faults, right answers becoming wrong (1) or wrong ones right (-1)."""

    between: float  # of chips' means over all images
    within: float  # of the images of one chip

    @classmethod
    def of(cls, rows: Sequence[Result]) -> "Variance":
        """Of chips that were measured on equally many images, by the analysis of variance (chips are random, images of
        each drawn without replacement: Cochran, Sampling Techniques, 1977, section 10.4)."""
        n, every = rows[0].total, rows[0].test_images
        loss = np.array([(row.correct_clean - row.correct) / n for row in rows])
        changed = np.array([(row.correct_clean + row.correct - 2 * row.correct_both) / n for row in rows])
        within = float((changed - loss**2).mean()) * n / max(n - 1, 1)
        return cls(max(0.0, float(loss.var(ddof=1)) - within * (1 / n - 1 / every)), within)

    @classmethod
    def of_gains(cls, treated: Sequence[Result], bare: Sequence[Result]) -> "Variance":
        """Of what is won on the same images of the same chips; these images vary as if the two had nothing in common,
        which is the most where a protection helps."""
        n, every = bare[0].total, bare[0].test_images
        gain = np.array([(ours.correct - theirs.correct) / n for ours, theirs in zip(treated, bare, strict=True)])
        within = cls.of(treated).within + cls.of(bare).within
        return cls(max(0.0, float(gain.var(ddof=1)) - within * (1 / n - 1 / every)), within)

    def images(self, half_width: float, chip_cost: float, every: int, fewest_chips: int = 1) -> int:
        """The sample with which an interval of so much is had soonest, where another chip costs as much as so many
        images. Where many chips are needed it is near the square root of chip_cost x within / between.

        >>> Variance(between=0.04**2, within=0.1).images(0.001, 20, 10_000)
        32
        >>> Variance(between=0.04**2, within=0.1).images(0.001, 1000, 10_000)
        256
        """

        def time(size: int) -> float:
            chips = (self.between + self.within * (1 / size - 1 / every)) * (1.96 / half_width) ** 2
            return max(chips, fewest_chips) * (chip_cost + size)

        return min((stop for _, stop in blocks(every)), key=time)


def chip_cost(workload: Workload) -> float:
    """How many images a network answers in the time that one of its chips takes to make, for one supply: a round figure
    (ResNets of 78,000 and 11 million words, one core, to 1% of cells), of which the best sample is the square root.

    >>> from simulator.workload import linear
    >>> round(chip_cost(Workload("n", (linear("fc", 1, 1000, 1000),))))
    146
    """
    chip_ms, image_ms = 5.5 + 1e-5 * workload.weights, 0.08 + 2.6e-8 * workload.macs
    return chip_ms / image_ms
