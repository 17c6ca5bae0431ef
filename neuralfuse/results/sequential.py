"""Does one chip keep accuracy? Asked after each part of its images, and answered as soon as that is sure.

The images of a chip are a finite number, drawn without replacement: of the N_c that are right without a fault A get
lost, of the others B are gained, and the chip keeps iff A - B <= the margin. After a sample the exact bounds of A and B
(hypergeometric, those of Clopper and Pearson for a finite population: Cochran, Sampling Techniques, 1977, section 3.6)
say whether that is settled; after all images it is a count.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.special import gammaln  # scipy.stats takes a second to load


@dataclass(frozen=True)
class Seen:
    """Of one chip at one supply so far: images that were right without a fault and how many of them were lost, and the
    others and how many of them were gained."""

    right: int
    lost: int
    wrong: int
    gained: int


@dataclass(frozen=True)
class WithinPoints:
    """Of `right` + `wrong` images, of which so many are right without a fault, no more may be lost than `points`
    accuracy points."""

    right: int
    wrong: int
    points: float

    @property
    def most(self) -> int:
        """Images that may be lost, less those that are gained.

        >>> WithinPoints(360, 90, 1.0).most, WithinPoints(90, 10, 5).most
        (4, 5)
        """
        share = Fraction(str(self.points))
        return share.numerator * (self.right + self.wrong) // (100 * share.denominator)

    def kept(self, seen: Seen, error: float) -> bool | None:
        """Whether the chip keeps; None where a sample leaves that open. It is wrong with at most this probability, over
        the order of the images, and never where all are seen.

        >>> margin = WithinPoints(right=9_000, wrong=1_000, points=1.0)
        >>> margin.kept(Seen(460, 0, 52, 0), 1e-3), margin.kept(Seen(920, 0, 104, 0), 1e-3)
        (None, True)
        >>> margin.kept(Seen(115, 20, 13, 1), 1e-3)
        False
        """
        if seen.right + seen.wrong == self.right + self.wrong:
            return seen.lost - seen.gained <= self.most
        tail = error / 2  # to err, the bound of the lost or that of the gained has to fail
        lost = _bounds(self.right, seen.right, seen.lost, tail)
        gained = _bounds(self.wrong, seen.wrong, seen.gained, tail)
        if lost[1] - gained[0] <= self.most:
            return True
        return False if lost[0] - gained[1] > self.most else None


@lru_cache(maxsize=2**16)  # many chips lose as many of as many
def _bounds(every: int, sampled: int, found: int, tail: float) -> tuple[int, int]:
    """How many of `every` are like the `found` of those that were sampled: at least and at most, each but for a
    probability of `tail`."""
    return _fewest(every, sampled, found, tail), every - _fewest(every, sampled, sampled - found, tail)


def _fewest(every: int, sampled: int, found: int, tail: float) -> int:
    """The fewest of which a sample holds so many, or more, with a probability above `tail`; by bisection."""
    low, high = found, every - (sampled - found)  # as many as are sure to be there; as many as there can be
    while low < high:
        middle = (low + high) // 2
        if _so_many_or_more(every, middle, sampled, found) > tail:
            high = middle
        else:
            low = middle + 1
    return low


def _so_many_or_more(every: int, marked: int, sampled: int, found: int) -> float:
    """P(a sample without replacement holds `found` marked ones or more)."""
    k = np.arange(found, min(marked, sampled) + 1)
    log_p = _log_choose(marked, k) + _log_choose(every - marked, sampled - k) - _log_choose(every, np.array(sampled))
    return float(np.exp(log_p[sampled - k <= every - marked]).sum())


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    """Of the binomial coefficient; infinite terms of k > n are left out by whoever calls."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, -0.5) + 1)
