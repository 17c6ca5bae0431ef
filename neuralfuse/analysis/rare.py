"""How rare is a chip that loses too much? Tried at one in a thousand, with some hundreds of chips measured.

Chips are drawn where failures are, and weighed by how much rarer they are in the lot (importance sampling over the
factors of die, banks and columns): from a mixture of the lot itself and, for each factor, the lot with that factor
moved to where it alone would make a chip fail (Owen and Zhou, J. Am. Stat. Assoc. 95, 2000: a defensive mixture, whose
weights are bounded). Of the many chips drawn only their fault maps are made, and a score of them; at some there is a
glance, a few images; of these some are measured. Each is chosen with a known probability that goes with its weight and
with how likely it is to fail (Poisson sampling in phases; Horvitz and Thompson, J. Am. Stat. Assoc. 47, 1952). So the
estimate is right on average whatever scores and glances are worth; poor ones make it uncertain, not wrong.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit, ndtr

from sram.memory import Factors

OWN = 0.3  # of the mixture is the lot itself: no chip weighs more than 1 / OWN
PILOT_CHIPS, PILOT = 400, 64  # maps of the pilot, and how many of its chips are measured
NEAREST, FARTHEST = 0.05, 6.0  # standard deviations that a factor is moved by
PARTS = (0.05, 0.1, 0.2)  # of the score of chips of which half fail: what a moved factor gives, the others the rest
SPREAD = 0.2  # of the measured chips are chosen whatever their score


@dataclass(frozen=True)
class Mode:
    """One factor of a lot's chips: the die's, or one of its banks' or columns'. `expected(z)`: the score of a chip
    whose factor is z, the others being average."""

    kind: str  # a field of `Factors`
    place: tuple[int, ...]  # in it; () of the die
    expected: Callable[[float], float]

    def index(self, like: Factors) -> int:
        """Of the factor, among all that there are (`_all`)."""
        if self.kind == "die":
            return 0
        if self.kind == "bank":
            return 1 + self.place[0]
        return 1 + like.bank.size + self.place[0] * like.column.shape[1] + self.place[1]


class Lot(Protocol):
    """Chips, by number; each may be moved (`sram.memory.Chip.fault_map`)."""

    @property
    def modes(self) -> Sequence[Mode]:
        """What chips may fail by."""

    def factors(self, chip: int) -> Factors:
        """Of a chip as it is."""

    def score(self, chip: int, moved: Factors) -> float:
        """Cheap, and the higher the worse."""

    def glance(self, chip: int, moved: Factors) -> float:
        """The same, dearer and better: on a few images."""

    def fails(self, chip: int, moved: Factors) -> bool:
        """Dear: measured."""


@dataclass(frozen=True)
class Rare:
    """The share of a lot's chips that fail. `error`: standard error as these draws show it, as a share of `share`; NaN
    where none failed. It is too small where they missed what weighs most, so that several estimates say more."""

    share: float
    error: float
    measured: int  # chips
    failed: int  # of them
    glances: int
    maps: int


@dataclass(frozen=True)
class _Mixture:
    """Beside the lot itself: factors (numbers among `_all`), by how much each is moved, and how often."""

    factor: np.ndarray
    shift: np.ndarray
    chance: np.ndarray

    def drawn(self, random: np.random.Generator, like: Factors) -> Factors:
        """By how much a chip is moved."""
        if random.random() < OWN:
            return _moved(like, 0, 0.0)
        which = int(random.choice(len(self.factor), p=self.chance))
        return _moved(like, int(self.factor[which]), float(self.shift[which]))

    def weight(self, factors: Factors) -> float:
        """How often chips with these factors are in the lot, against how often they are drawn."""
        ratio = np.exp(self.shift * _all(factors)[self.factor] - self.shift**2 / 2)
        return 1 / (OWN + (1 - OWN) * float(self.chance @ ratio))


def estimate(lot: Lot, maps: int, glances: int, measured: int, first: int = 0, seed: int = 0) -> Rare:
    """The share of chips that fail, from `maps` chips from number `first` on: at about so many of them there is a
    glance, and about so many of these are measured, the pilot's `PILOT` among both."""
    random = np.random.default_rng([seed, first])
    by_score, by_glance = _pilot(lot, range(first, first + PILOT_CHIPS), random)
    chips = range(first + PILOT_CHIPS, first + maps)
    mixture = _mixture(lot, first, math.exp(by_score[0]))
    moves, weights, scores = [], np.empty(len(chips)), np.empty(len(chips))
    for i, chip in enumerate(chips):
        own = lot.factors(chip)
        moves.append(mixture.drawn(random, own))
        weights[i], scores[i] = mixture.weight(own + moves[-1]), lot.score(chip, moves[-1])
    chance = _chances(weights, _thought(scores, by_score), glances - PILOT)
    seen = np.flatnonzero(random.random(len(chips)) < chance)
    weights = weights[seen] / chance[seen]
    glanced = np.array([lot.glance(chips[i], moves[i]) for i in seen])
    chance = _chances(weights, _thought(glanced, by_glance), measured - PILOT)
    chosen = np.flatnonzero(random.random(len(seen)) < chance)
    failed = np.array([lot.fails(chips[i], moves[i]) for i in seen[chosen]], bool)
    value = np.zeros(len(chips))
    value[seen[chosen]] = failed * weights[chosen] / chance[chosen]
    share = float(value.mean())
    error = float(value.std(ddof=1)) / math.sqrt(len(chips)) / share if share else math.nan
    return Rare(share, error, PILOT + len(chosen), int(failed.sum()), PILOT + len(seen), maps)


Curve = tuple[float, float]  # at which log score half of the chips fail, and how steeply


def _thought(scores: np.ndarray, curve: Curve) -> np.ndarray:
    """How likely a chip is to fail, by a score."""
    return expit(curve[1] * (_log(scores) - curve[0]))


def _pilot(lot: Lot, chips: range, random: np.random.Generator) -> tuple[Curve, Curve]:
    """By score and by glance: how often chips fail, moved by anything."""
    likely = np.array([mode.expected(FARTHEST / 2) for mode in lot.modes])
    drawn = []
    for chip in chips:
        which = int(random.choice(len(lot.modes), p=likely / likely.sum()))
        like = lot.factors(chip)
        moved = _moved(like, lot.modes[which].index(like), float(random.uniform(0, FARTHEST)))
        drawn.append((lot.score(chip, moved), chip, moved))
    drawn.sort(key=lambda each: each[0])
    levels = np.linspace(_log(np.array([drawn[0][0]]))[0], _log(np.array([drawn[-1][0]]))[0], PILOT)
    places = np.clip(np.searchsorted(_log(np.array([s for s, _, _ in drawn])), levels), 0, len(drawn) - 1)
    some = [drawn[i] for i in places]
    x = _log(np.array([score for score, _, _ in some]))
    y = np.array([lot.fails(chip, moved) for _, chip, moved in some], float)
    glanced = _log(np.array([lot.glance(chip, moved) for _, chip, moved in some]))
    return _logistic(x, y), _logistic(glanced, y)


def _logistic(x: np.ndarray, y: np.ndarray) -> Curve:
    """(where half is, slope) of a logistic curve of 0 and 1: by Newton's steps, halved where they go too far. The slope
    is held near 2 where nothing says another."""
    centre, usual, prior = x.mean(), np.array([0.0, 2.0]), np.array([0.01, 0.1])
    design = np.stack([np.ones_like(x), x - centre], axis=1)

    def against(theta: np.ndarray) -> float:
        return float(np.logaddexp(0, design @ theta * (1 - 2 * y)).sum() + (prior * (theta - usual) ** 2).sum() / 2)

    theta = usual
    for _ in range(50):
        p = expit(design @ theta)
        gradient = design.T @ (y - p) - prior * (theta - usual)
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + np.diag(prior), gradient)
        while against(theta + step) > against(theta) and np.abs(step).max() > 1e-9:
            step = step / 2
        theta = theta + step
    slope = max(float(theta[1]), 0.5)
    return float(centre - theta[0] / slope), slope


def _mixture(lot: Lot, chip: int, score: float) -> _Mixture:
    """Each factor moved to where it alone gives a part of this score, as often as it is there in the lot. `chip`: any
    of the lot's."""
    like, parts = lot.factors(chip), []
    factor = np.array([mode.index(like) for mode in lot.modes])
    for part in PARTS:
        shift = np.array([_reaches(mode.expected, part * score) for mode in lot.modes])
        chance = ndtr(-shift) * ((shift > NEAREST) & (shift < FARTHEST))
        if chance.any():
            parts.append((factor, shift, chance / chance.sum() / len(PARTS)))
    if not parts:  # no factor alone makes that score: all of them, as far as it goes
        parts.append((factor, np.full(len(factor), FARTHEST / 2), np.full(len(factor), 1.0)))
    factor, shift, chance = (np.concatenate(each) for each in zip(*parts, strict=True))
    return _Mixture(factor, shift, chance / chance.sum())


def _reaches(expected: Callable[[float], float], score: float) -> float:
    """Where a rising function has this value, in [0, FARTHEST]; by bisection."""
    low, high = 0.0, FARTHEST
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if expected(middle) >= score else (middle, high)
    return high


def _all(factors: Factors) -> np.ndarray:
    """Of the die, the banks, the columns (1 + b + b x c,)."""
    return np.concatenate([[factors.die], factors.bank, factors.column.ravel()])


def _moved(like: Factors, factor: int, shift: float) -> Factors:
    """One factor by so much, of a die like this."""
    every, banks = np.zeros(1 + like.bank.size + like.column.size), like.bank.size
    every[factor] = shift
    return Factors(float(every[0]), every[1 : 1 + banks], every[1 + banks :].reshape(like.column.shape))


def _chances(weights: np.ndarray, thought: np.ndarray, total: int) -> np.ndarray:
    """Probabilities, at most 1, that add up to `total`: those that leave least variance if chips fail as is thought
    (Neyman, J. R. Stat. Soc. 97, 1934), and for SPREAD of it whatever is thought."""
    size = weights * np.sqrt(thought)
    size = SPREAD * weights / weights.sum() + (1 - SPREAD) * size / size.sum()
    if total >= len(size):
        return np.ones(len(size))
    sure = np.zeros(len(size), bool)
    while True:
        chance = np.where(sure, 1.0, size * (total - sure.sum()) / size[~sure].sum())
        if not (chance > 1).any():
            return chance
        sure |= chance >= 1


def _log(scores: np.ndarray) -> np.ndarray:
    """Of a chip without a fault: that of next to nothing."""
    return np.log(np.maximum(scores, 1e-6))
