"""Which tasks a study wants, given the rows it already has: a pure function, so that every run and every executor
agrees.

Without `adaptive` it is the whole grid. With it, chips and images of each come until the interval is narrow enough, and
supplies are bisected around the lowest one that keeps accuracy within the margin.
"""

from collections.abc import Mapping

import numpy as np

from neuralfuse.quantized.metric import metric
from neuralfuse.results.rows import Result, added
from neuralfuse.results.statistics import SHARE, mean_bounds, sample_bounds, student
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


def plan(study: StudyConfig, points: list[Point], rows: dict[str, Result], costs: Costs | None = None) -> list[Task]:
    """The tasks wanted now, in the order of results.csv: point, supplies falling, chip, images."""
    tasks: list[Task] = []
    for point in points:
        swept = list(operating_points(study, point.accelerator))
        cost = (costs or {}).get(point.network, FEWEST)
        tasks += _chips_at(study, point, swept, rows, cost)
        if study.adaptive and study.adaptive.margin_points is not None:
            while all(task.key in rows for task in _chips_at(study, point, swept, rows, cost)):
                between = _bisect(study.adaptive, point, swept, study, rows, cost)
                if between is None:
                    break
                swept.append(between)
                tasks += _chips_at(study, point, [between], rows, cost)
    order = {point: i for i, point in enumerate(points)}
    return sorted(tasks, key=lambda t: (order[t.point], *(-v for v in t.at.voltages), t.chip, t.images or (0, 0)))


def _chips_at(
    study: StudyConfig, point: Point, swept: list[OperatingPoint], rows: dict[str, Result], cost: float
) -> list[Task]:
    """All chips of the study on all images, or samples that are wide enough."""
    if study.adaptive is None or study.adaptive.half_width_points is None:
        return [task for at in swept for chip in study.chips.numbers for task in _whole(point, chip, at, rows)]
    goal = study.adaptive.half_width_points / 100
    return [task for at in swept for task in _sample(study, point, at, rows, goal, cost)]


def _whole(point: Point, chip: int, at: OperatingPoint, rows: dict[str, Result]) -> list[Task]:
    """All images of a chip: at once, or the parts of which a search has measured the first."""
    whole = Task(point, chip, at)
    first = rows.get(Task(point, chip, at, (0, FEWEST)).key) if rows and whole.key not in rows else None
    return [whole] if first is None else [Task(point, chip, at, part) for part in blocks(first.test_images)]


def _sample(
    study: StudyConfig, point: Point, at: OperatingPoint, rows: dict[str, Result], goal: float, cost: float
) -> list[Task]:
    """The first chips on the fewest images say how much chips differ, and images of one; then so many images of each
    chip as are worth their time, and chips until the interval over them is narrow enough. Where the study has no more
    chips, more images of each."""
    most, numbers = study.chips.evaluation, study.chips.numbers
    first = [Task(point, chip, at, (0, FEWEST)) for chip in numbers[:PILOT]]
    if not all(task.key in rows for task in first):
        return first
    seen = [rows[task.key] for task in first]
    every = seen[0].test_images
    chips, images = len(first), FEWEST
    if most == 1 or _half_width(seen) > goal:
        images = Variance.of(seen).images(goal, cost, every, len(first)) if most > 1 else every
    tasks: list[list[Task]] = []  # of each chip
    while True:
        tasks += [[Task(point, chip, at, part) for part in blocks(images)] for chip in numbers[len(tasks) : chips]]
        if not all(task.key in rows for parts in tasks for task in parts):
            break
        half = _half_width([added([rows[task.key] for task in parts]) for parts in tasks])
        if half <= goal or (chips == most and images == every):
            break
        if chips < most:
            narrower = half / goal * student(0.975, most) / student(0.975, chips - 1)
            wave = max(study.chips.wave, chips // WAVES)
            chips = min(most, chips + wave * max(1, int((SURE * narrower**2 - 1) * chips // wave)))
        else:
            images, tasks = min(2 * images, every), []
    return [task for parts in tasks for task in parts]


def _half_width(rows: list[Result]) -> float:
    """Of the interval of the mean over chips."""
    counts = np.array([(r.total, r.correct_clean - r.correct_both, r.correct - r.correct_both) for r in rows])
    images, lost, gained = counts.sum(axis=0)[:, None]
    accuracy, every = np.array([[row.accuracy] for row in rows]), rows[0].total == rows[0].test_images
    low, high = mean_bounds(accuracy, within=SHARE) if every else sample_bounds(accuracy, lost, gained, images)
    return float(high[0] - low[0]) / 2


def _bisect(
    adaptive: AdaptiveConfig,
    point: Point,
    swept: list[OperatingPoint],
    study: StudyConfig,
    rows: dict[str, Result],
    cost: float,
) -> OperatingPoint | None:
    """Half way between the lowest supply that holds and the one below it, or None when they are close enough."""
    falling = sorted(swept, key=lambda at: at.voltages, reverse=True)
    holds = []
    for at in falling:
        found = [rows[task.key] for task in _chips_at(study, point, [at], rows, cost)]
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
