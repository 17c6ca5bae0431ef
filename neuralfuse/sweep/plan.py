"""Which tasks a study wants, given the rows it already has: a pure function, so that every run and every executor
agrees.

Without `adaptive` it is the whole grid. With it, chips and images of each come until the interval is narrow enough, and
supplies are bisected around the lowest one that keeps accuracy within the margin.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from neuralfuse.quantized.metric import metric
from neuralfuse.results.rows import Result, added
from neuralfuse.results.statistics import DIFFERENCE, SHARE, mean_bounds, sample_bounds, sample_gain_bounds, student
from neuralfuse.study.config import AdaptiveConfig, StudyConfig
from neuralfuse.study.grid import Point
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.sampling import FEWEST, Variance, blocks
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint, halfway

PILOT = 20  # chips that say how much chips differ; fewer stop too soon where bad ones are rare
SURE = 0.9  # of the chips that an interval seems to take come at once, the rest in waves
WAVES = 20  # of many chips a wave is this part
Costs = Mapping[str, float]  # by network: how many images take as long as making a chip


@dataclass(frozen=True)
class Aim:
    """The half-width of the interval of a point's mean accuracy, or of what the first of two points wins over the
    second; None: all images of all chips."""

    points: tuple[Point, ...]
    half_width: float | None


def plan(study: StudyConfig, points: list[Point], rows: dict[str, Result], costs: Costs | None = None) -> list[Task]:
    """The tasks wanted now, in the order of results.csv: point, supplies falling, chip, images."""
    tasks: dict[Task, None] = {}  # each once: several protections may be held against one bare network
    for point in points:
        swept = list(operating_points(study, point.accelerator))
        wants = partial(_wanted, study, _aims(study, point, points), rows, (costs or {}).get(point.network, FEWEST))
        tasks |= dict.fromkeys(wants(swept))
        if study.adaptive and study.adaptive.margin_points is not None:
            while all(task.key in rows for task in wants(swept)):
                between = _bisect(study, point, swept, rows, wants)
                if between is None:
                    break
                swept.append(between)
                tasks |= dict.fromkeys(wants([between]))
    order = {point: i for i, point in enumerate(points)}
    return sorted(tasks, key=lambda t: (order[t.point], *(-v for v in t.at.voltages), t.chip, t.images or (0, 0)))


def _aims(study: StudyConfig, point: Point, points: Sequence[Point]) -> list[Aim]:
    """How narrow the intervals of a point shall be: of its mean, and of what it wins over the bare network."""
    adaptive = study.adaptive or AdaptiveConfig()
    mean, gain = adaptive.half_width_points, adaptive.gain_half_width_points
    if mean is None and gain is None:
        return [Aim((point,), None)]
    alike = replace(point, protection="none", setup="")
    bare = [other for other in points if other.protection == "none" and replace(other, setup="") == alike]
    aims = [Aim((point,), mean / 100)] if mean is not None else []
    return aims + ([Aim((point, bare[0]), gain / 100)] if gain is not None and point != bare[0] else [])


def _wanted(
    study: StudyConfig, aims: list[Aim], rows: dict[str, Result], cost: float, swept: Sequence[OperatingPoint]
) -> list[Task]:
    """All chips of the study on all images, or samples that are wide enough."""
    found = []
    for aim in aims:
        for at in swept:
            if aim.half_width is None:
                found += [task for chip in study.chips.numbers for task in _whole(aim.points[0], chip, at, rows)]
            else:
                found += _sample(study, aim.points, at, rows, aim.half_width, cost)
    return found


def _whole(point: Point, chip: int, at: OperatingPoint, rows: dict[str, Result]) -> list[Task]:
    """All images of a chip: at once, or the parts of which a search has measured the first."""
    whole = Task(point, chip, at)
    first = rows.get(Task(point, chip, at, (0, FEWEST)).key) if rows and whole.key not in rows else None
    return [whole] if first is None else [Task(point, chip, at, part) for part in blocks(first.test_images)]


def _sample(
    study: StudyConfig, points: tuple[Point, ...], at: OperatingPoint, rows: dict[str, Result], goal: float, cost: float
) -> list[Task]:
    """The first chips on the fewest images say how much chips differ, and images of one; then so many images of each
    chip as are worth their time, and chips until the interval over them is narrow enough. Where the study has no more
    chips, more images of each."""
    most, numbers = study.chips.evaluation, study.chips.numbers

    def on(images: int, first: int, last: int) -> list[Task]:
        parts = [(chip, part) for chip in numbers[first:last] for part in blocks(images)]
        return [Task(point, chip, at, part) for chip, part in parts for point in points]

    def seen(tasks: list[Task]) -> list[list[Result]]:
        """Of each point, chip after chip."""
        found: dict[tuple[Point, int], list[Result]] = {}
        for task in tasks:
            found.setdefault((task.point, task.chip), []).append(rows[task.key])
        return [[added(parts) for (of, _), parts in found.items() if of == point] for point in points]

    tasks = on(FEWEST, 0, PILOT)
    if not all(task.key in rows for task in tasks):
        return tasks
    pilot = seen(tasks)
    every, chips, images = pilot[0][0].test_images, len(pilot[0]), FEWEST
    if most == 1 or _half_width(pilot) > goal:
        spread = Variance.of(*pilot) if len(points) == 1 else Variance.of_gains(*pilot)
        images = spread.images(goal, len(points) * cost, every, chips) if most > 1 else every
    tasks = []
    done = 0
    while True:
        tasks, done = tasks + on(images, done, chips), chips
        if not all(task.key in rows for task in tasks):
            return tasks
        half = _half_width(seen(tasks))
        if half <= goal or (chips == most and images == every):
            return tasks
        if chips < most:
            narrower = half / goal * student(0.975, most) / student(0.975, chips - 1)
            wave = max(study.chips.wave, chips // WAVES)
            chips = min(most, chips + wave * max(1, int((SURE * narrower**2 - 1) * chips // wave)))
        else:
            images, tasks, done = min(2 * images, every), [], 0


def _half_width(measured: list[list[Result]]) -> float:
    """Of the interval over chips: of the mean of one point, or of what the first of two wins over the second."""
    rows, *bare = measured
    whole = rows[0].total == rows[0].test_images
    accuracy = np.array([[row.accuracy] for row in rows])
    if bare:
        gain = accuracy - np.array([[row.accuracy] for row in bare[0]])
        images = np.array([[row.total] for row in rows])
        low, high = mean_bounds(gain, within=DIFFERENCE) if whole else sample_gain_bounds(gain, images)
    else:
        counts = np.array([(r.total, r.correct_clean - r.correct_both, r.correct - r.correct_both) for r in rows])
        images, lost, gained = counts.sum(axis=0)[:, None]
        low, high = mean_bounds(accuracy, within=SHARE) if whole else sample_bounds(accuracy, lost, gained, images)
    return float(high[0] - low[0]) / 2


def _bisect(
    study: StudyConfig,
    point: Point,
    swept: list[OperatingPoint],
    rows: dict[str, Result],
    wants: Callable[[Sequence[OperatingPoint]], list[Task]],
) -> OperatingPoint | None:
    """Half way between the lowest supply that holds and the one below it, or None when they are close enough."""
    adaptive = study.adaptive or AdaptiveConfig()
    falling = sorted(swept, key=lambda at: at.voltages, reverse=True)
    holds = []
    for at in falling:
        found = [rows[task.key] for task in wants([at]) if task.point == point]
        lost = sum(row.correct_clean - row.correct for row in found)  # exact: no rounding at the very margin
        holds.append(
            metric(study.metric).per_score * lost <= (adaptive.margin_points or 0) * sum(row.total for row in found)
        )
    first_failure = holds.index(False) if False in holds else None
    if first_failure in (None, 0):
        return None
    high, low = falling[first_failure - 1], falling[first_failure]
    apart = max(a - b for a, b in zip(high.voltages, low.voltages, strict=True))
    return halfway(high, low) if apart > adaptive.voltage_step else None
