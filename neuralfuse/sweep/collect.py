"""Run what a plan still lacks, keep every finished row, retry what a lost worker took with it, name what could not be
had."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass, field

from neuralfuse.results.rows import Result, Rows
from neuralfuse.study.digest import digest
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.task import Task
from sram.errors import InputError
from sram.locks import Claims

Plan = Callable[[dict[str, Result]], list[Task]]  # which tasks are wanted, given what is known; pure
RunChunk = Callable[[list[Task]], list[Result]]  # what a worker is sent
Advance = Callable[[int, int], None]
ATTEMPTS = 3
PAUSE_S = 0.2  # between looks at what another process has


@dataclass(frozen=True)
class Failure:
    """A chunk that did not finish within its attempts."""

    tasks: tuple[Task, ...]
    reason: str


def chunks(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks of one chip at one point, supplies falling: a worker touches only what changes from one to the next."""
    groups: dict[tuple, list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.point, task.chip), []).append(task)
    return [sorted(group, key=lambda task: task.at.voltages, reverse=True) for group in groups.values()]


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
    cannot be written end the run at once; rows that were finished stay. Processes that run into one folder share the
    work: a chunk is measured by the one that claimed it, and anew if that one was killed.
    """
    failures: dict[tuple[str, ...], Failure] = {}
    work: _Work | None = None
    try:
        while True:
            rows = store.read()
            wanted = plan(rows)
            given_up = {task.key for failure in failures.values() for task in failure.tasks}
            todo = [task for task in wanted if task.key not in rows and task.key not in given_up]
            advance(len(wanted) - len(todo), len(wanted))
            if not todo:
                return list(failures.values())
            work = work or _Work(run_chunk, workers, store, workers.make(), store.claims())
            for failure in work.round(chunks(todo), advance, len(wanted)):
                failures[tuple(task.key for task in failure.tasks)] = failure
    finally:
        if work is not None:
            work.close()


@dataclass
class _Work:
    """Chunks on their way to the workers and back; the workers stay from round to round of a plan."""

    run_chunk: RunChunk
    workers: Workers
    store: Rows
    executor: Executor
    claims: Claims
    queue: list[tuple[list[Task], int]] = field(default_factory=list)  # with the number of the attempt; next one last
    left: int = 0  # tasks
    pending: dict[Future, tuple[list[Task], int]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def round(self, todo: list[list[Task]], advance: Advance, wanted: int) -> list[Failure]:
        """Run these chunks; what failed."""
        self.queue, self.failures = [(chunk, 1) for chunk in reversed(todo)], []
        self.left = sum(len(chunk) for chunk in todo)
        while self.queue or self.pending:
            self.submit()
            done, _ = wait(self.pending, return_when=FIRST_COMPLETED) if self.pending else (set(), None)
            if self.queue and not done:
                time.sleep(PAUSE_S)  # others have all that is left
            broken = False
            for future in done:
                broken = not self.take(future) or broken
                advance(wanted - self.left, wanted)
            if broken:
                self.renew()
        return self.failures

    def submit(self) -> None:
        """Send what no other process has, as much as keeps the workers busy."""
        for _ in range(len(self.queue)):
            if len(self.pending) >= (1 if self.workers.count == 1 else 2 * self.workers.count):
                return
            chunk, attempt = self.queue.pop()
            if not self.claims.take(_number(chunk)):
                self.queue.insert(0, (chunk, attempt))
                continue
            known = self.store.read()  # after the claim: who had it before has written its rows
            rest = [task for task in chunk if task.key not in known]
            self.left -= len(chunk) - len(rest)
            if rest:
                self.pending[self.executor.submit(self.run_chunk, rest)] = (rest, attempt)
            else:
                self.claims.give_back(_number(chunk))

    def take(self, future: Future) -> bool:
        """Keep the rows of a chunk that came back, or try it again; False where a worker process died."""
        chunk, attempt = self.pending.pop(future)
        try:
            self.store.append(future.result())
            self.left -= len(chunk)
        except BrokenExecutor:
            self._again(chunk, attempt, "a worker process died (out of memory?)")
            return False
        except (InputError, OSError):
            raise
        except Exception as error:
            self._again(chunk, attempt, f"{type(error).__name__}: {error}")
        finally:
            self.claims.give_back(_number(chunk))
        return True

    def _again(self, chunk: list[Task], attempt: int, reason: str) -> None:
        if attempt < ATTEMPTS:
            self.queue.insert(0, (chunk, attempt + 1))
        else:
            self.failures.append(Failure(tuple(chunk), reason))

    def renew(self) -> None:
        """Another executor in place of one that broke: it is unusable, and so are its other futures."""
        for chunk, attempt in self.pending.values():
            self.claims.give_back(_number(chunk))
            self.queue.append((chunk, attempt))
        self.pending.clear()
        self.executor.shutdown(wait=False)
        self.executor = self.workers.make()

    def close(self) -> None:
        for future in self.pending:  # Dask's executor has no cancel_futures
            future.cancel()
        self.executor.shutdown(wait=False)
        self.claims.close()


def _number(chunk: list[Task]) -> int:
    """What stands for a chunk among the claims: its point and chip, whichever voltages are still to do."""
    return int(digest([asdict(chunk[0].point), chunk[0].chip]), 16) >> 2
