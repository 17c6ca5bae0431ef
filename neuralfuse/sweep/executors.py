"""Where tasks run. Everything is a `concurrent.futures.Executor`: this process, a pool of processes, or a Dask
cluster."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

from neuralfuse.sweep.allocator import keep_freed_memory
from sram.errors import InputError


class InProcess(Executor):
    """Runs each call at once, in this process: for debugging, one core, and as the reference of the others."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """A future that is done."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Workers:
    """How to make an executor (again, if a worker dies), and how many tasks to keep in flight."""

    make: Callable[[], Executor]
    count: int
    label: str


def choose(workers: int | None = None, dask: str | None = None) -> Workers:
    """Executor from the command line's options; None takes one process for each core.

    >>> choose(workers=1).label
    'in process'
    """
    if dask is not None:
        return _dask(dask)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise InputError("command line", "--workers", workers, "1 or more")
    if workers == 1:
        return Workers(InProcess, 1, "in process")
    # spawn: a forked child of a process with OpenMP threads may hang.
    pool = get_context("spawn")
    return Workers(
        lambda: ProcessPoolExecutor(workers, mp_context=pool, initializer=_start_worker),
        workers,
        f"{workers} processes",
    )


def _start_worker() -> None:
    """A worker ends with its parent, however that ends: alone it would wait for ever for its next task."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    keep_freed_memory()


def _dask(address: str) -> Workers:
    try:
        from distributed import Client
    except ImportError:
        allowed = "nothing before the extra is installed: pip install 'neuralfuse-sim[cluster]'"
        raise InputError("command line", "--dask", address, allowed) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError("command line", "--dask", address, f"a scheduler that answers ({error})") from None
    count = max(1, sum(client.nthreads().values()))
    return Workers(client.get_executor, count, f"Dask at {address}, {count} threads")
