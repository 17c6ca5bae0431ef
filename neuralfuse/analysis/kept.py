"""What is read from chips beside a sweep: kept in the study's folder chip by chip, made on any executor."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from neuralfuse.study.digest import RESULTS_VERSION, digest
from neuralfuse.study.folder import StudyFolder, stamp_of
from neuralfuse.study.records import AS_WRITTEN
from neuralfuse.sweep.bench import Bench, bench_of
from neuralfuse.sweep.executors import Workers
from neuralfuse.training.loop import threads
from sram import plugins
from sram.errors import InputError
from sram.files import write_atomic


def kept(folder: str, made_from: Sequence[object], make: Callable[[Bench], Any]) -> Any:
    """What `make` gives (plain data, as JSON has it) on the bench of a prepared folder; read from the folder if it was
    made before from the same, by this code."""
    stamp = stamp_of(folder)
    path = Path(folder) / "sensitivity" / f"{digest([stamp, RESULTS_VERSION, *made_from])}.json"
    if not path.is_file():
        with threads(1):
            found = make(bench_of(folder, stamp))
        write_atomic(path, json.dumps(found))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, "content", str(error)[:200], AS_WRITTEN) from None


def by_network(
    read: Callable[[str, str, int, float], Any],
    folder: StudyFolder,
    chips: Sequence[int],
    voltage: float,
    workers: Workers,
    advance: Callable[[int, int, dict[str, float]], None],
) -> dict[str, list]:
    """`read(folder, network, chip, voltage)` of all networks of a folder and these chips, in the order of the chips."""
    networks = folder.study.networks
    total, done = len(networks) * len(chips), 0

    def one_more(_: object) -> None:
        nonlocal done
        done += 1
        advance(done, total, {})

    with workers.make() as pool:
        waiting = {}
        for network in networks:
            waiting[network.name] = [
                pool.submit(
                    plugins.with_allowed, plugins.allowed(), read, str(folder.path), network.name, chip, voltage
                )
                for chip in chips
            ]
            for future in waiting[network.name]:
                future.add_done_callback(one_more)
        return {name: [future.result() for future in futures] for name, futures in waiting.items()}
