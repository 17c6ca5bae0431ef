"""The lowest supply of each chip, found without all supplies and all images: a pure function of the rows that are
there, as `plan` is.

A chip's supplies are bisected, for accuracy falls with the supply; it meets its own images in its own order at each of
them. At a supply more and more images are asked for, twice as many at a time, until exact bounds say whether it keeps;
at the very margin that is all of them. With what all images say a chip's answer differs only where a bound fails at one
of the supplies on its way, of which there are few, and always the same ones unless one did: `ERROR` is shared out among
them and the looks at each.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neuralfuse.results.rows import Result, added
from neuralfuse.results.sequential import Seen, WithinPoints
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.grid import Point
from neuralfuse.study.supplies import beside, operating_points, supply_of
from neuralfuse.sweep.sampling import blocks
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint

ERROR = 0.001  # probability that a chip is put elsewhere than where all its images would

_task = functools.lru_cache(maxsize=2**20)(Task)  # chips are gone through anew after each round


@dataclass(frozen=True)
class Ladder:
    """A point of the grid, and the operating points at which the weights' supply falls and all else that the study
    lowers stays, or falls with it."""

    point: Point
    rails: str  # what they do beside the weights
    voltages: tuple[float, ...]  # of the weight memory, falling, in the unit of its curve
    supplies: tuple[OperatingPoint, ...]


@dataclass(frozen=True)
class Own:
    """What is known of one chip: it holds at the first `level` supplies of its ladder, if it is settled."""

    chip: int
    level: int
    settled: bool
    images: int  # that were measured, at all supplies together


def ladders(study: StudyConfig, points: Sequence[Point]) -> list[Ladder]:
    """Of each point of the grid, one or, with rails of their own, several."""
    found = []
    for point in points:
        machine = point.accelerator
        groups: dict[str, dict[float, OperatingPoint]] = {}
        for at in operating_points(study, machine):
            groups.setdefault(beside(study, machine, at), {})[supply_of(study, machine, at, "weights")] = at
        for rails, by_voltage in groups.items():
            voltages = tuple(sorted(by_voltage, reverse=True))
            found.append(Ladder(point, rails, voltages, tuple(by_voltage[voltage] for voltage in voltages)))
    return found


@dataclass
class Descent:
    """The chips of a ladder on their way down. `wanted`: the tasks that they need, known or not."""

    ladder: Ladder
    images: int  # of the test set
    points: float
    rows: Mapping[str, Result]
    wanted: list[Task] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Of one look at one supply."""
        looks = sum(1 for _ in blocks(self.images)) - 1  # the last one counts
        supplies = math.ceil(math.log2(len(self.ladder.supplies) + 1))
        return ERROR / max(1, looks * supplies)

    def own(self, chip: int) -> Own:
        """How low a chip may go, as far as the rows say."""
        holds, fails, images = 0, len(self.ladder.supplies) + 1, 0
        while fails - holds > 1:
            middle = (holds + fails) // 2
            kept, seen = self._kept(chip, self.ladder.supplies[middle - 1])
            images += seen
            if kept is None:
                return Own(chip, holds, False, images)
            holds, fails = (middle, fails) if kept else (holds, middle)
        return Own(chip, holds, True, images)

    def _kept(self, chip: int, at: OperatingPoint) -> tuple[bool | None, int]:
        """(whether a chip keeps accuracy there, by so many images); None, and asked for, where that is not known."""
        whole = _task(self.ladder.point, chip, at, None)
        if whole.key in self.rows:
            self.wanted.append(whole)
            return self._judged([self.rows[whole.key]])
        parts: list[Result] = []
        for part in blocks(self.images):
            task = _task(self.ladder.point, chip, at, part)
            self.wanted.append(task)
            if task.key not in self.rows:
                return None, sum(row.total for row in parts)
            parts.append(self.rows[task.key])
            kept, seen = self._judged(parts)
            if kept is not None:
                return kept, seen
        raise AssertionError("all images settle a chip")

    def _judged(self, parts: list[Result]) -> tuple[bool | None, int]:
        row = added(parts)
        right = round(row.clean_accuracy * row.test_images)
        margin = WithinPoints(right, row.test_images - right, self.points)
        lost, gained = row.correct_clean - row.correct_both, row.correct - row.correct_both
        seen = Seen(*map(int, (row.correct_clean, lost, row.total - row.correct_clean, gained)))
        return margin.kept(seen, self.error), row.total


def descents(
    study: StudyConfig, points: Sequence[Point], images: int, within: float, rows: Mapping[str, Result]
) -> list[tuple[Descent, list[Own]]]:
    """Every ladder of a study, and its chips as far as the rows say."""
    found = []
    for ladder in ladders(study, points):
        descent = Descent(ladder, images, within, rows)
        found.append((descent, [descent.own(chip) for chip in study.chips.numbers]))
    return found
