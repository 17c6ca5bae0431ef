"""Made-up chips on several rails: a logistic curve around voltages of their own, lower with a protection."""

import functools
import hashlib
from dataclasses import dataclass
from itertools import product

import numpy as np

from neuralfuse.results.rows import Result
from neuralfuse.study.grid import Point
from neuralfuse.sweep.race import Candidate
from neuralfuse.sweep.sampling import order_of
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint, Supply

IMAGES, CLEAN = 500, 0.95
RAILS = ("weights", "activations", "accumulators")
SHARES = (0.3, 0.5, 0.2)  # of the energy


@dataclass(frozen=True)
class MadeUp:
    """A lot of chips, by its number, under protections that cost energy and lower the voltages at which chips fail."""

    seed: int
    supplies: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8)
    protections: tuple[str, ...] = ("none", "code", "fuse")

    def candidates(self, rails: tuple[str, ...] = RAILS) -> list[Candidate]:
        """Every combination of supplies, of every protection."""
        found = []
        for name, values in product(self.protections, product(self.supplies, repeat=len(rails))):
            at = OperatingPoint(tuple(Supply(rail, value) for rail, value in zip(rails, values, strict=True)))
            point = Point("net", "made up", "paper", "ibm14", "iid", name, str(self.seed))
            found.append(Candidate(point, at, values, self.energy(point, at)))
        return found

    def _drawn(self, *what: object) -> np.random.Generator:
        text = hashlib.sha256(repr((self.seed, *what)).encode()).digest()
        return np.random.default_rng(int.from_bytes(text[:8], "little"))

    @functools.cache  # noqa: B019 (a lot is a few numbers)
    def _tougher(self, protection: str) -> np.ndarray:
        """By how much each rail may be lower, and what the protection adds to the energy (rails + 1,)."""
        if protection == "none":
            return np.zeros(len(RAILS) + 1)
        random = self._drawn("protection", protection)
        return np.append(random.uniform(0, 0.06, len(RAILS)), random.uniform(0.02, 0.12))

    @functools.cache  # noqa: B019
    def _chip(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The voltages around which its rails fail (rails,), and how hard each image is for it (IMAGES,)."""
        base, chip = self._drawn("lot").normal(0.86, 0.02, len(RAILS)), self._drawn("chip", number)
        return base + chip.normal(0, 0.012, len(RAILS)), chip.random(IMAGES)

    def energy(self, point: Point, at: OperatingPoint) -> float:
        """Of an inference, in pJ; 1e6 at nominal supplies."""
        dynamic = sum(share * at.supply(rail).voltage ** 2 for rail, share in zip(RAILS, SHARES, strict=True))
        return 1e6 * dynamic * (1 + float(self._tougher(point.protection)[-1]))

    def right_of(self, task: Task) -> np.ndarray:
        """Which images the chip answers right (IMAGES,): each has a hardness of its own on this chip; those that are
        wrong without a fault come every twentieth."""
        own, hardness = self._chip(task.chip)
        centres = own - self._tougher(task.point.protection)[:-1]
        volts = np.array([task.at.supply(rail).voltage for rail in RAILS])
        share = float(np.prod(1 / (1 + np.exp(-(volts - centres) / 0.008))))
        return np.where(np.arange(IMAGES) % 20 > 0, hardness < share, hardness < 0.02 * (1 - share))

    def measure(self, tasks: list[Task]) -> list[Result]:
        """What a bench would."""
        return [self._row(task) for task in tasks]

    def _row(self, task: Task) -> Result:
        p, start, stop = task.point, *(task.images or (0, IMAGES))
        order = order_of(0, task.chip, IMAGES)[start:stop]
        right, clean = self.right_of(task)[order], order % 20 > 0
        names = (p.network, p.dataset, p.accelerator, p.curve, "weights alone", p.structure, p.protection)
        supplies = (*(task.at.supply(rail).voltage for rail in RAILS), 1.0)
        counts = (int(right.sum()), len(order), int(clean.sum()), int((clean & right).sum()), IMAGES, CLEAN)
        energy = self.energy(p, task.at)
        costs = ((energy,) * 4, (1 - energy / 1e6,) * 4)
        return Result(
            task.key, *names, *supplies, task.chip, *counts, *(0.0,) * 3, *costs[0], *costs[1], 7, 1e6, 7e-6, 0.1
        )
