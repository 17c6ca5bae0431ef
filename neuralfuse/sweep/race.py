"""The operating point of least energy that keeps accuracy, found without the whole grid: pure functions of the rows
that are there, as `plan` is, so that every executor and every run that goes on decides alike.

The energy of a point is known before it is measured, and accuracy falls with every supply of a memory: what surely
fails takes all points with it that are lower, what keeps all that are dearer. The point is asked for next whose answer
settles most, on a few images of a few chips first, the same for all points, and on more while the interval leaves it
open. The answer itself is measured on all images of all chips, and then on chips that the search has not seen.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neuralfuse.results.rows import Result, added
from neuralfuse.results.statistics import keeps, sample_bounds
from neuralfuse.study.grid import Point
from neuralfuse.sweep.sampling import FEWEST, blocks
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint

FEW_CHIPS = 4  # of the first look at a point
SURE = 0.99  # confidence at which a sample settles it
WIDTH = 4  # protections that are looked at together
LOOKED_AT = 64  # of the open points of a protection, where the next is chosen
UNEVEN = 1.0  # points that accuracy may rise by on the way down: what misses by less settles itself alone
OPEN, KEPT, FAILED = 0, 1, -1


@dataclass(frozen=True)
class Candidate:
    """A point of the grid at an operating point, what it costs, and how easy it is: of two with one protection, the one
    that is nowhere lower is at least as accurate. `energy_pj`: of an inference, at the scope that is searched."""

    point: Point
    at: OperatingPoint
    ease: tuple[float, ...]  # supplies of the memories; with late sums also that of the logic, and the clock's period
    energy_pj: float


@dataclass(frozen=True)
class Goal:
    """What a point has to keep: mean accuracy within so many points of clean, and so on at least `share` of the chips
    each for itself."""

    points: float
    share: float = 0.0

    def kept(self, chips: Sequence[Result]) -> bool:
        """By these chips, counted."""
        correct, clean, total = np.array([(row.correct, row.correct_clean, row.total) for row in chips]).T
        kept = keeps(correct.sum(), clean.sum(), total.sum(), self.points)
        return bool(kept) and self.good(chips) >= self.share

    def good(self, chips: Sequence[Result]) -> float:
        """Share of these chips that are within the points, each for itself."""
        correct, clean, total = np.array([(row.correct, row.correct_clean, row.total) for row in chips]).T
        return float(keeps(correct, clean, total, self.points).mean())


@dataclass(frozen=True)
class Lot:
    """The chips of a search, those that it is confirmed on, and the images of the test set."""

    chips: int
    held_out: int
    images: int
    first: int = 0  # the number of the first chip

    @functools.cached_property
    def rungs(self) -> list[tuple[int, int]]:
        """So many chips on so many images each, from the first look to all: chips come first, for images of one share
        its faults.

        >>> Lot(chips=10, held_out=10, images=100).rungs
        [(4, 32), (8, 32), (10, 32), (10, 64), (10, 100)]
        """
        chips, images = min(FEW_CHIPS, self.chips), min(FEWEST, self.images)
        found = [(chips, images)]
        while (chips, images) != (self.chips, self.images):
            chips, images = (
                (min(2 * chips, self.chips), images) if chips < self.chips else (chips, min(2 * images, self.images))
            )
            found.append((chips, images))
        return found


_task = functools.lru_cache(maxsize=2**20)(Task)  # a search is gone through anew after each round


@dataclass
class Ledger:
    """The rows that are there, and what was asked for: of so many images of all chips and points (`limit`)."""

    rows: Mapping[str, Result]
    limit: float
    asked: dict[str, Task] = field(default_factory=dict)
    spent: int = 0
    waits: bool = False  # for rows that are not there yet
    short: bool = False  # something was not asked for, beyond the limit

    def chips(
        self, of: Candidate, chips: range, parts: Sequence[tuple[int, int] | None], limited: bool = True
    ) -> list[Result] | None:
        """Chips at a point on these parts of their images; None where they are not there yet, or beyond the limit."""
        tasks = [[_task(of.point, chip, of.at, part) for part in parts] for chip in chips]
        new = {task.key: task for each in tasks for task in each if task.key not in self.asked}
        size = sum(task.images[1] - task.images[0] for task in new.values() if task.images)
        if limited and self.spent + size > self.limit:
            self.short = True
            return None
        self.spent += size
        self.asked.update(new)
        if not all(task.key in self.rows for each in tasks for task in each):
            self.waits = True
            return None
        return [added([self.rows[task.key] for task in each]) for each in tasks]


@dataclass(frozen=True)
class Verdict:
    """What was measured at a point. `loss`, `low`, `high`: of the mean over chips, in accuracy points."""

    state: int
    chips: int
    images: int
    loss: float
    low: float
    high: float
    good: float  # share of the chips within the points
    whole: bool  # all chips and images of the search
    held_out: bool = False  # it failed on these


@dataclass(frozen=True)
class Found:
    """Where a race ended. `chosen`: None where no point keeps; `nearest` then is the one that loses least."""

    chosen: int | None
    nearest: int | None
    verdicts: dict[int, Verdict]  # of what was measured
    state: np.ndarray  # of every candidate
    by: np.ndarray  # the candidate whose verdict it follows from; -1: from none
    settled: bool  # nothing was left open for want of evaluations
    held_out: list[Result] = field(default_factory=list)  # the chosen point on chips that the search has not seen


class Race:
    """The search for the point of least energy among candidates that differ in protection and operating point alone,
    on the first `lot.chips` chips; confirmed on the next `lot.held_out`."""

    def __init__(self, candidates: Sequence[Candidate], goal: Goal, lot: Lot):
        self.candidates, self.goal, self.lot = list(candidates), goal, lot
        self.energy = np.array([each.energy_pj for each in candidates])
        self.ease = np.array([each.ease for each in candidates]).reshape(len(candidates), -1)
        names = [each.point.protection for each in candidates]
        self.protection = np.unique(names, return_inverse=True)[1]
        self._next: dict[bytes, list[int]] = {}

    def run(self, ledger: Ledger) -> Found | None:
        """Where it ends by the rows of the ledger; None, and asked for, where some are not there yet."""
        verdicts: dict[int, Verdict] = {}
        state, by = self._settled(verdicts)
        short = ledger.waits = False
        while True:
            kept = np.flatnonzero(state == KEPT)
            best = kept[self.energy[kept].argmin()] if len(kept) else None
            still = (state == OPEN) & (self.energy < (np.inf if best is None else self.energy[best]))
            if still.any() and not short:
                ledger.short = False
                probes = self._probes(still)
                looks = {i: self._look(ledger, i) for i in probes}
                short = ledger.short
                if ledger.waits:
                    return None
                for i, verdict in looks.items():
                    if verdict is not None:
                        verdicts[i] = verdict
                        self._follow(state, by, verdicts, i)
                continue
            found = best if best is not None else self._nearest(verdicts)
            if found is None:
                return Found(None, None, verdicts, state, by, not short)
            i = int(found)
            if i not in verdicts or not verdicts[i].whole:
                rows = ledger.chips(
                    self.candidates[i], self._chips(self.lot.chips), self._parts(self.lot.images), False
                )
                if rows is None:
                    return None
                verdicts[i] = self._judge(rows, whole=True)
                state, by = self._settled(verdicts)
                continue
            if best is None:
                return Found(None, i, verdicts, state, by, not short)
            seen = self._confirmed(ledger, i)
            if seen is None:
                return None
            if not seen or self.goal.kept(seen):
                return Found(i, None, verdicts, state, by, not short, seen)
            verdicts[i] = self._judge(seen, whole=True, held_out=True)
            state, by = self._settled(verdicts)

    def _chips(self, count: int) -> range:
        return range(self.lot.first, self.lot.first + count)

    def _parts(self, images: int) -> list[tuple[int, int] | None]:
        return list(blocks(images))

    def _confirmed(self, ledger: Ledger, i: int) -> list[Result] | None:
        """A point on the chips that the search has not seen, all images of each; [] where there are to be none."""
        chips = range(self.lot.first + self.lot.chips, self.lot.first + self.lot.chips + self.lot.held_out)
        return ledger.chips(self.candidates[i], chips, [None], limited=False) if chips else []

    def _look(self, ledger: Ledger, i: int) -> Verdict | None:
        """More and more of a point until it is settled; None where rows are missing."""
        for chips, images in self.lot.rungs:
            rows = ledger.chips(self.candidates[i], self._chips(chips), self._parts(images))
            if rows is None:
                return None
            verdict = self._judge(rows, (chips, images) == (self.lot.chips, self.lot.images))
            if verdict.state != OPEN:
                return verdict
        raise AssertionError("all chips and images settle a point")

    def _judge(self, rows: list[Result], whole: bool, held_out: bool = False) -> Verdict:
        """By counts where all is measured, else by the interval."""
        counts = np.array([(r.total, r.correct_clean - r.correct_both, r.correct - r.correct_both) for r in rows])
        images, lost, gained = counts.sum(axis=0)[:, None]
        clean = rows[0].clean_accuracy
        accuracy = np.array([[row.accuracy] for row in rows])
        bounds = sample_bounds(accuracy, lost, gained, images, SURE)
        low, high = (100 * (clean - float(bounds[k, 0])) for k in (1, 0))
        if whole:
            state = KEPT if not held_out and self.goal.kept(rows) else FAILED
        else:
            surely = high <= self.goal.points and not self.goal.share
            state = FAILED if low > self.goal.points else KEPT if surely else OPEN
        loss = 100 * float((lost - gained)[0] / images[0])
        return Verdict(state, len(rows), rows[0].total, loss, low, high, self.goal.good(rows), whole, held_out)

    def _nearest(self, verdicts: dict[int, Verdict]) -> int | None:
        """Of the points that were measured, the one whose chips lose least."""
        order = {i: (-v.good if self.goal.share else 0.0, v.loss) for i, v in verdicts.items()}
        return min(order, key=lambda i: order[i]) if order else None

    def _settled(self, verdicts: dict[int, Verdict]) -> tuple[np.ndarray, np.ndarray]:
        """(state, by) of all candidates, as it follows from verdicts."""
        state, by = np.full(len(self.energy), OPEN), np.full(len(self.energy), -1)
        for i in verdicts:
            self._follow(state, by, verdicts, i)
        return state, by

    def _follow(self, state: np.ndarray, by: np.ndarray, verdicts: dict[int, Verdict], i: int) -> None:
        """What a verdict says of the other points of its protection, in place; what was measured stays as measured."""
        same = self.protection == self.protection[i]
        same[list(verdicts)] = False
        missed = max(verdicts[i].low, verdicts[i].loss - UNEVEN) > self.goal.points or self.goal.share > 0
        if verdicts[i].state == FAILED:  # a failure is believed where another point's verdict says otherwise
            follows = same & (self.ease <= self.ease[i]).all(axis=1) & missed
        else:
            follows = same & (self.ease >= self.ease[i]).all(axis=1) & (state == OPEN)
        state[follows], by[follows] = verdicts[i].state, i
        state[i], by[i] = verdicts[i].state, i

    def _probes(self, still: np.ndarray) -> list[int]:
        """Of each protection the open point whose answer settles most at the least, whether it keeps or fails; of the
        protections those where it settles most."""
        if (known := self._next.get(still.tobytes())) is not None:
            return known
        best: list[tuple[int, int]] = []
        dearer = np.sort(self.energy[still])
        for protection in np.unique(self.protection[still]):
            own = np.flatnonzero(still & (self.protection == protection))
            own = own[np.argsort(self.energy[own], kind="stable")]
            some = own[np.unique(np.linspace(0, len(own) - 1, LOOKED_AT).round().astype(int))]
            lower = (self.ease[own][None] <= self.ease[some][:, None]).all(axis=2).sum(axis=1)
            settles = np.minimum(lower, len(dearer) - np.searchsorted(dearer, self.energy[some]))
            best.append((-int(settles.max()), int(some[settles.argmax()])))
        self._next[still.tobytes()] = [i for _, i in sorted(best)[:WIDTH]]
        return self._next[still.tobytes()]
