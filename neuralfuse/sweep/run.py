"""A whole study: prepare the folder, collect what is missing, write results.csv."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuralfuse.results.rows import Result
from neuralfuse.study import variants
from neuralfuse.study.check import check
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.making import Say
from neuralfuse.study.prepare import prepare, trainings_to_do
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.bench import run_chunk
from neuralfuse.sweep.collect import Failure, collect, shard
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.plan import plan
from neuralfuse.sweep.sampling import chip_cost
from neuralfuse.sweep.task import Task
from sram import plugins
from sram.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """What a run left behind: rows in the folder, tasks that could not be had."""

    results: Path
    rows: int
    wanted: int
    failures: list[Failure]


def run_study(folder: StudyFolder, workers: Workers, say: Say, part: tuple[int, int] | None = None) -> Outcome:
    """Train what must be trained, run what is missing, write results.csv. `part` = (I, N): only the I-th of N
    shards. Processes in one folder share the work."""
    check_shard(folder.study, part)
    check(folder.study)  # before the folder is made: a refused study writes nothing
    with folder.in_use():
        return _run(folder, workers, say, part)


def _run(folder: StudyFolder, workers: Workers, say: Say, part: tuple[int, int] | None) -> Outcome:
    points, costs = prepare(folder, say), chip_costs(folder)

    def wanted(rows: dict[str, Result]) -> list[Task]:
        tasks = plan(folder.study, points, rows, costs)
        return tasks if part is None else shard(tasks, *part)

    advance = say(f"sweep ({workers.label})")
    measure = partial(plugins.with_allowed, plugins.allowed(), run_chunk, str(folder.path))
    failures = collect(folder.rows, wanted, measure, workers, lambda done, total: advance(done, total, {}))
    rows = folder.rows.read()
    tasks = plan(folder.study, points, rows, costs)
    path = folder.write_results(task.key for task in tasks)
    return Outcome(path, sum(task.key in rows for task in tasks), len(tasks), failures)


def chip_costs(folder: StudyFolder) -> dict[str, float]:
    """How many images each network answers in the time that one of its chips takes to make, for one supply."""
    if folder.study.adaptive is None:
        return {}
    return {network.name: chip_cost(folder.workload(network.name)) for network in folder.study.networks}


def claimed(study: StudyConfig | str | Path, out: Path) -> dict[str, StudyFolder]:
    """{variant: its folder, now its own} of a study or its file; "" where there are no variants.

    Every variant is checked before the first is run.
    """
    if isinstance(study, StudyConfig):
        folder = StudyFolder(out, study)
        folder.check()
        return {"": folder}
    found = variants.studies_of(Path(study), out)
    if "" not in found:  # one study alone is checked when it is prepared
        for folder in found.values():
            check(folder.study)
    return variants.claim(Path(study), out)


def check_shard(study: StudyConfig, part: tuple[int, int] | None) -> None:
    """Refuse a part of a study that cannot be cut."""
    if part is not None and study.adaptive is not None:
        raise InputError(
            "command line", "--shard", f"{part[0]}/{part[1]}", "studies without `adaptive`, which needs all rows"
        )


@dataclass(frozen=True)
class Forecast:
    """What a run would do. `seconds`: of the tasks still to do; None before there are rows to go by."""

    tasks: int
    done: int
    trainings: list[str]
    seconds: float | None


def estimate(folder: StudyFolder, workers: Workers, part: tuple[int, int] | None = None) -> Forecast:
    """Count tasks (of one shard, with `part`) against the folder's rows; time from the mean of the rows that are there.

    Writes nothing.
    """
    study = folder.study
    check_shard(study, part)
    trainings = trainings_to_do(folder)
    index, count = part or (1, 1)
    if trainings or not folder.path.is_dir():
        measured = sum(len(study.protections_of(network.name)) for network in study.networks)
        settings = measured * len(study.accelerators) * len(study.forms)
        chips = len(range(index - 1, settings * study.chips.evaluation, count))
        return Forecast(chips * len(operating_points(study, study.accelerators[0])), 0, trainings, None)
    rows = folder.rows.read()
    tasks = shard(plan(study, points_of(folder), rows, chip_costs(folder)), index, count)
    done = [rows[task.key] for task in tasks if task.key in rows]
    mean = sum(row.seconds for row in done) / len(done) if done else None
    left = len(tasks) - len(done)
    return Forecast(len(tasks), len(done), trainings, None if mean is None else mean * left / workers.count)
