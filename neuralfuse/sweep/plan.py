"""Which tasks a study wants, given the rows it already has: a pure function, so that every run and every executor
agrees.

Without `adaptive` it is the whole grid. With it, chips come in waves until the interval is narrow enough, and supplies
are bisected around the lowest one that keeps accuracy within the margin.
"""

import numpy as np

from neuralfuse.results.rows import Result
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import AdaptiveConfig, StudyConfig
from neuralfuse.study.grid import Point
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint, halfway


def plan(study: StudyConfig, points: list[Point], rows: dict[str, Result]) -> list[Task]:
    """The tasks wanted now, in the order of results.csv: point, supplies falling, chip."""
    tasks: list[Task] = []
    for point in points:
        swept = list(operating_points(study, point.accelerator))
        tasks += _chips_at(study, point, swept, rows)
        if study.adaptive and study.adaptive.margin_points is not None:
            while all(task.key in rows for task in _chips_at(study, point, swept, rows)):
                between = _bisect(study.adaptive, point, swept, study, rows)
                if between is None:
                    break
                swept.append(between)
                tasks += _chips_at(study, point, [between], rows)
    order = {point: i for i, point in enumerate(points)}
    return sorted(tasks, key=lambda t: (order[t.point], *(-voltage for voltage in t.at.voltages), t.chip))


def _chips_at(study: StudyConfig, point: Point, swept: list[OperatingPoint], rows: dict[str, Result]) -> list[Task]:
    """All chips of the study, or waves of them until the interval over chips is narrow enough."""
    goal = study.adaptive.half_width_points if study.adaptive else None
    tasks = []
    for at in swept:
        chips = [Task(point, chip, at) for chip in range(study.chips.evaluation)]
        if goal is None:
            tasks += chips
            continue
        wanted = min(study.chips.wave, len(chips))
        while wanted < len(chips) and all(task.key in rows for task in chips[:wanted]):
            accuracy = np.array([rows[task.key].accuracy for task in chips[:wanted]])
            if 100 * mean_interval(accuracy).half_width <= goal:
                break
            wanted = min(wanted + study.chips.wave, len(chips))
        tasks += chips[:wanted]
    return tasks


def _bisect(
    adaptive: AdaptiveConfig, point: Point, swept: list[OperatingPoint], study: StudyConfig, rows: dict[str, Result]
) -> OperatingPoint | None:
    """Half way between the lowest supply that holds and the one below it, or None when they are close enough."""
    falling = sorted(swept, key=lambda at: at.voltages, reverse=True)
    holds = []
    for at in falling:
        found = [rows[task.key] for task in _chips_at(study, point, [at], rows)]
        lost = sum(row.correct_clean - row.correct for row in found)  # whole images: no rounding at the very margin
        holds.append(100 * lost <= (adaptive.margin_points or 0) * sum(row.total for row in found))
    first_failure = holds.index(False) if False in holds else None
    if first_failure in (None, 0):
        return None
    high, low = falling[first_failure - 1], falling[first_failure]
    apart = max(a - b for a, b in zip(high.voltages, low.voltages, strict=True))
    return halfway(high, low) if apart > adaptive.voltage_step else None
