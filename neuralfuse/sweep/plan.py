"""Which tasks a study wants, given the rows it already has: a pure function, so that every run and every executor
agrees.

Without `adaptive` it is the whole grid. With it, chips come in waves until the interval is narrow enough, and voltages
are bisected around the lowest one that keeps accuracy within the margin.
"""

import numpy as np

from neuralfuse.results.rows import Result
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import AdaptiveConfig, StudyConfig
from neuralfuse.study.grid import Point
from neuralfuse.sweep.task import Task


def plan(study: StudyConfig, points: list[Point], rows: dict[str, Result]) -> list[Task]:
    """The tasks wanted now, in the order of results.csv: point, voltage falling, chip."""
    tasks: list[Task] = []
    for point in points:
        voltages = list(study.voltages)
        tasks += _chips_at(study, point, voltages, rows)
        if study.adaptive and study.adaptive.margin_points is not None:
            while all(task.key in rows for task in _chips_at(study, point, voltages, rows)):
                between = _bisect(study.adaptive, point, voltages, study, rows)
                if between is None:
                    break
                voltages.append(between)
                tasks += _chips_at(study, point, [between], rows)
    order = {point: i for i, point in enumerate(points)}
    return sorted(tasks, key=lambda t: (order[t.point], -t.voltage, t.chip))


def _chips_at(study: StudyConfig, point: Point, voltages: list[float], rows: dict[str, Result]) -> list[Task]:
    """All chips of the study, or waves of them until the interval over chips is narrow enough."""
    goal = study.adaptive.half_width_points if study.adaptive else None
    tasks = []
    for voltage in voltages:
        chips = [Task(point, chip, voltage) for chip in range(study.chips.evaluation)]
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
    adaptive: AdaptiveConfig, point: Point, voltages: list[float], study: StudyConfig, rows: dict[str, Result]
) -> float | None:
    """The voltage half way between the lowest that holds and the one below it, or None when they are close enough."""
    falling = sorted(voltages, reverse=True)
    holds = []
    for voltage in falling:
        found = [rows[task.key] for task in _chips_at(study, point, [voltage], rows)]
        lost = sum(row.correct_clean - row.correct for row in found)  # whole images: no rounding at the very margin
        holds.append(100 * lost <= (adaptive.margin_points or 0) * sum(row.total for row in found))
    first_failure = holds.index(False) if False in holds else None
    if first_failure in (None, 0):
        return None
    high, low = falling[first_failure - 1], falling[first_failure]
    return round((high + low) / 2, 9) if high - low > adaptive.voltage_step else None
