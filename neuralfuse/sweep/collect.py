"""Run what a plan still lacks, keep every finished row, retry what a lost worker took with it, name what could not be
had."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass

from neuralfuse.results.rows import Result, Rows
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.task import Task
from sram.errors import InputError

Plan = Callable[[dict[str, Result]], list[Task]]  # which tasks are wanted, given what is known; pure
RunChunk = Callable[[list[Task]], list[Result]]  # what a worker is sent
Advance = Callable[[int, int], None]
ATTEMPTS = 3


@dataclass(frozen=True)
class Failure:
    """A chunk that did not finish within its attempts."""

    tasks: tuple[Task, ...]
    reason: str


def chunks(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks of one chip at one point, voltages falling: a worker touches only what changes from one to the next."""
    groups: dict[tuple, list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.point, task.chip), []).append(task)
    return [sorted(group, key=lambda t: -t.voltage) for group in groups.values()]


def shard(tasks: list[Task], index: int, count: int) -> list[Task]:
    """Part `index` (from 1) of `count`: whole chunks, dealt in turn, so that the parts are equally long."""
    return [task for i, chunk in enumerate(chunks(tasks)) if i % count == index - 1 for task in chunk]


def collect(
    store: Rows,
    plan: Plan,
    run_chunk: RunChunk,
    workers: Workers,
    advance: Advance = lambda done, wanted: None,
) -> list[Failure]:
    """Run until the plan has nothing left that is not in the store; returns what failed `ATTEMPTS` times.

    `advance(done, wanted)` is called after each finished chunk. A mistake of the user (InputError) and a store that
    cannot be written end the run at once; rows that were finished stay. Safe to run twice, or by two processes, into
    one folder.
    """
    failures: dict[tuple[str, ...], Failure] = {}
    while True:
        rows = store.read()
        wanted = plan(rows)
        given_up = {task.key for failure in failures.values() for task in failure.tasks}
        todo = [task for task in wanted if task.key not in rows and task.key not in given_up]
        advance(len(wanted) - len(todo), len(wanted))
        if not todo:
            return list(failures.values())
        for failure in _run(chunks(todo), run_chunk, workers, store, advance, len(wanted)):
            failures[tuple(task.key for task in failure.tasks)] = failure


def _run(
    todo: list[list[Task]], run_chunk: RunChunk, workers: Workers, store: Rows, advance: Advance, wanted: int
) -> list[Failure]:
    queue = [(chunk, 1) for chunk in reversed(todo)]
    failures: list[Failure] = []
    pending: dict[Future, tuple[list[Task], int]] = {}
    executor: Executor = workers.make()
    left = sum(len(chunk) for chunk in todo)

    def again(chunk: list[Task], attempt: int, reason: str) -> None:
        if attempt < ATTEMPTS:
            queue.insert(0, (chunk, attempt + 1))
        else:
            failures.append(Failure(tuple(chunk), reason))

    try:
        while queue or pending:
            while queue and len(pending) < 2 * workers.count:
                chunk, attempt = queue.pop()
                known = store.read()  # another process may have done it meanwhile
                rest = [task for task in chunk if task.key not in known]
                left -= len(chunk) - len(rest)
                if rest:
                    pending[executor.submit(run_chunk, rest)] = (rest, attempt)
                if workers.count == 1:
                    break
            done, _ = wait(pending, return_when=FIRST_COMPLETED) if pending else (set(), None)
            broken = False
            for future in done:
                chunk, attempt = pending.pop(future)
                try:
                    store.append(future.result())
                    left -= len(chunk)
                except BrokenExecutor:
                    broken = True
                    again(chunk, attempt, "a worker process died (out of memory?)")
                except (InputError, OSError):
                    raise
                except Exception as error:
                    again(chunk, attempt, f"{type(error).__name__}: {error}")
                advance(wanted - left, wanted)
            if broken:  # the pool is unusable, and so are its other futures
                for chunk, attempt in pending.values():
                    queue.append((chunk, attempt))
                pending.clear()
                executor.shutdown(wait=False)
                executor = workers.make()
    finally:
        for future in pending:  # Dask's executor has no cancel_futures
            future.cancel()
        executor.shutdown(wait=False)
    return failures
