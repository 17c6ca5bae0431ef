"""Do results survive everything? Kill, resume, two writers, shards, lost workers: the same rows, none lost, none
double."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import warnings
import zlib
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from neuralfuse.results.rows import Result, Rows
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import AdaptiveConfig, ChipsConfig, NetworkConfig, StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point
from neuralfuse.sweep.collect import chunks, collect, shard
from neuralfuse.sweep.executors import InProcess, Workers, choose
from neuralfuse.sweep.plan import plan
from neuralfuse.sweep.sampling import order_of
from neuralfuse.sweep.task import Task
from sram.errors import InputError
from tests.conftest import ROOT

POINTS = [Point("net", "digits", "paper", "ibm14", s, p, "0") for s in ("iid", "column") for p in ("none", "fuse")]
STUDY = StudyConfig(
    name="t", networks=(NetworkConfig(name="net"),), voltages=(1.0, 0.9, 0.8), chips=ChipsConfig(evaluation=12, wave=4)
)


def accuracy_of(task: Task) -> int:
    """A made-up chip: correct out of 1000, falling with voltage, different for each chip, a pure function of the
    task."""
    voltage = task.at.supply("weights").voltage
    noise = int(hashlib.sha256(repr((task.point, task.chip, voltage)).encode()).hexdigest()[:4], 16) / 65535
    loss = max(0.0, 0.85 - voltage) * 4 * (0.5 if task.point.protection == "fuse" else 1.0)
    return int(1000 * (0.95 - loss * (0.8 + 0.4 * noise)))


def _counts(task: Task) -> tuple:
    """Of a made-up chip's images, in its own order: those that are wrong without a fault come every twentieth."""
    start, stop = task.images or (0, 1000)
    order = order_of(0, task.chip, 1000)[start:stop]
    clean, right = order % 20 > 0, order < accuracy_of(task)
    return int(right.sum()), len(order), int(clean.sum()), int((clean & right).sum()), 1000, 0.95


def fake_chunk(tasks: list[Task]) -> list[Result]:
    rows = []
    for t in tasks:
        p = t.point
        names = (p.network, p.dataset, p.accelerator, p.curve, "weights alone", p.structure, p.protection)
        voltage = t.at.supply("weights").voltage
        supplies, rates, counts = (voltage, 1.0, 1.0, 1.0), (0.0,) * 3, _counts(t)
        energy, saving = (voltage**2,) * 4, (1 - voltage**2,) * 4
        rows.append(Result(t.key, *names, *supplies, t.chip, *counts, *rates, *energy, *saving, 7, 1e6, 7e-6, 0.1))
    return rows


def whole(rows):
    return plan(STUDY, POINTS, rows)


def in_process() -> Workers:
    return choose(workers=1)


def rows_of(folder) -> Rows:
    return Rows(folder / "rows")


def table_of(folder, wanted=whole):
    rows = rows_of(folder)
    return rows.frame(task.key for task in wanted(rows.read()))


def csv_of(folder) -> bytes:
    return table_of(folder).to_csv(index=False).encode()


def test_whole_grid_in_order(tmp_path):
    assert collect(rows_of(tmp_path), whole, fake_chunk, in_process()) == []
    table = table_of(tmp_path)
    assert len(table) == 4 * 3 * 12
    assert list(table.structure[:36]) == ["iid"] * 36
    assert list(table.voltage[:13]) == [1.0] * 12 + [0.9]
    assert list(table.chip[:12]) == list(range(12))
    assert (table.accuracy == table.correct / table.total).all()


def test_same_bytes_from_pool_shards_and_two_runs(tmp_path):
    collect(rows_of(tmp_path / "one"), whole, fake_chunk, in_process())
    expected = csv_of(tmp_path / "one")
    collect(rows_of(tmp_path / "pool"), whole, fake_chunk, choose(workers=2))
    assert csv_of(tmp_path / "pool") == expected
    for name in ("s1", "s2", "s3", "merged"):
        StudyFolder(tmp_path / name, STUDY).claim()
    for i in (1, 2, 3):
        part = shard(whole({}), i, 3)
        collect(rows_of(tmp_path / f"s{i}"), lambda rows, part=part: part, fake_chunk, in_process())
    shards, merged = [StudyFolder.open(tmp_path / f"s{i}") for i in (1, 2, 3)], StudyFolder.open(tmp_path / "merged")
    assert merged.merge(shards) == 144
    assert merged.merge(shards[:1]) == 0
    assert csv_of(tmp_path / "merged") == expected
    collect(rows_of(tmp_path / "one"), whole, _must_not_run, in_process())
    assert csv_of(tmp_path / "one") == expected


def _must_not_run(tasks):
    raise AssertionError("everything is there already")


def test_torn_and_foreign_lines_are_skipped_and_redone(tmp_path):
    collect(rows_of(tmp_path), whole, fake_chunk, in_process())
    expected = csv_of(tmp_path)
    (file,) = (tmp_path / "rows").glob("*.jsonl")
    text = file.read_bytes()
    file.write_bytes(text[: len(text) // 2 + 7])  # killed in the middle of a line
    (tmp_path / "rows" / "other.jsonl").write_text('{"half": 1}\nnonsense\n{"key": "no newline"')
    assert len(rows_of(tmp_path).read()) < 144
    collect(rows_of(tmp_path), whole, fake_chunk, in_process())
    assert csv_of(tmp_path) == expected


@pytest.mark.parametrize(
    "change",
    [{"correct": 999, "total": 120}, {"correct": -1}, {"total": 0}, {"correct_clean": 1001}, {"flip_rate": 1.5},
     {"cell_fault_rate": float("nan")}, {"chip": -1}, {"chip": True}, {"correct": "7"}, {"voltage": "0.8"},
     {"energy_sram_pj": float("inf")}, {"network": 7}, {"cycles": None}],
)  # fmt: skip
@pytest.mark.parametrize("resealed", [True, False])
def test_a_row_that_cannot_be_does_not_count_and_is_done_again(change, resealed, tmp_path):
    collect(rows_of(tmp_path), whole, fake_chunk, in_process())
    expected = csv_of(tmp_path)
    (file,) = (tmp_path / "rows").glob("*.jsonl")
    first, *rest = file.read_text().splitlines()
    changed = json.loads(first) | change
    if resealed:
        del changed["crc32"]
        body = json.dumps(changed)[:-1]
        first = f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}'
    else:
        first = json.dumps(changed)
    file.write_text("\n".join([first, *rest, ""]))
    with pytest.warns(UserWarning, match="not written so"):
        assert len(rows_of(tmp_path).read()) == 143
    with pytest.warns(UserWarning, match="not written so"):
        collect(rows_of(tmp_path), whole, fake_chunk, in_process())
    with pytest.warns(UserWarning, match="not written so"):
        found = csv_of(tmp_path)
    assert found == expected


def test_a_digit_that_changed_within_its_range_is_noticed(tmp_path):
    """Each byte of a row, one after the other: the row is not counted, or its JSON is torn."""
    rows_of(tmp_path).append(fake_chunk(whole({})[:1]))
    (file,) = (tmp_path / "rows").glob("*.jsonl")
    line = file.read_bytes()
    assert len(rows_of(tmp_path).read()) == 1
    for at in range(len(line) - 1):
        changed = bytearray(line)
        changed[at] = ord("7") if changed[at] != ord("7") else ord("3")
        file.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert rows_of(tmp_path).read() == {}, bytes(changed[at - 5 : at + 5])


def test_two_stores_in_one_folder_count_once(tmp_path):
    tasks = whole({})[:10]
    first, second = rows_of(tmp_path), rows_of(tmp_path)
    first.append(fake_chunk(tasks))
    second.append(fake_chunk(tasks[5:]))
    assert len(list((tmp_path / "rows").glob("*.jsonl"))) == 2
    assert len(first.frame(task.key for task in tasks)) == 10


def test_kill_9_then_resume(tmp_path):
    """A real process, killed without warning in the middle of its run."""
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from tests.neuralfuse.sweep.test_sweep_collect import *
        def slow(tasks):
            time.sleep(0.02); return fake_chunk(tasks)
        collect(rows_of(Path(sys.argv[1])), whole, slow, in_process(), lambda done, wanted: print(done, flush=True))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 24:
            process.kill()
            break
    process.wait()
    kept = len(rows_of(tmp_path).read())
    assert 24 <= kept < 144
    collect(rows_of(tmp_path), whole, fake_chunk, in_process())
    collect(rows_of(tmp_path / "clean"), whole, fake_chunk, in_process())
    assert csv_of(tmp_path) == csv_of(tmp_path / "clean")


SLOW = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.neuralfuse.sweep.test_sweep_collect import *
def slow(tasks):
    print(len(tasks), flush=True); time.sleep(float(sys.argv[2])); return fake_chunk(tasks)
collect(rows_of(Path(sys.argv[1])), whole, slow, in_process())
"""


def collecting(folder, seconds):
    """A process that needs so long for each chunk and prints how many tasks it begins with."""
    command = [sys.executable, "-c", SLOW, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_in_one_folder_share_the_work(tmp_path):
    both = [collecting(tmp_path, 0.3) for _ in range(2)]
    begun = [sum(map(int, process.communicate()[0].split())) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(begun) == 144  # none twice
    collect(rows_of(tmp_path / "alone"), whole, fake_chunk, in_process())
    assert csv_of(tmp_path) == csv_of(tmp_path / "alone")


def test_what_a_killed_process_had_claimed_is_done_by_another(tmp_path):
    held = collecting(tmp_path, 1000)
    assert held.stdout is not None
    assert held.stdout.readline() == "3\n"
    seen = []

    def see(done, wanted):
        seen.append(done)
        if done == 141:
            held.kill()

    collect(rows_of(tmp_path), whole, fake_chunk, in_process(), see)
    assert held.wait(10) == -9
    assert seen[-1] == 144


class DyingPool(InProcess):
    """Its workers die at the third call; the next pool is well."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.calls = 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        if type(self).made == 1 and self.calls >= 3:
            future: Future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future
        return super().submit(fn, *args, **kwargs)


def test_a_lost_worker_is_replaced(tmp_path):
    DyingPool.made = 0
    assert collect(rows_of(tmp_path), whole, fake_chunk, Workers(DyingPool, 2, "dying")) == []
    assert DyingPool.made == 2
    assert len(rows_of(tmp_path).read()) == 144


def test_what_fails_is_retried_and_named_and_the_rest_is_kept(tmp_path):
    calls = []

    def bad(tasks):
        if tasks[0].chip == 3 and tasks[0].point == POINTS[0]:
            calls.append(1)
            raise RuntimeError("boom")
        return fake_chunk(tasks)

    (failure,) = collect(rows_of(tmp_path), whole, bad, in_process())
    assert len(calls) == 3
    assert "boom" in failure.reason
    assert {t.chip for t in failure.tasks} == {3}
    assert len(rows_of(tmp_path).read()) == 144 - 3


def test_user_mistakes_end_the_run_at_once(tmp_path):
    def wrong(tasks):
        raise InputError("map", "voltage", 0.1, "more")

    with pytest.raises(InputError, match=r"map: voltage = 0\.1"):
        collect(rows_of(tmp_path), whole, wrong, in_process())


def test_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    store = rows_of(tmp_path)
    tasks = whole({})
    store.append(fake_chunk(tasks[:5]))
    real = os.write
    monkeypatch.setattr(
        os, "write", lambda fd, data: (real(fd, data[:40]), (_ for _ in ()).throw(OSError(28, "full")))[0]
    )
    with pytest.raises(OSError, match="full"):
        store.append(fake_chunk(tasks[5:8]))
    monkeypatch.undo()
    store.append(fake_chunk(tasks[5:8]))
    assert len(rows_of(tmp_path).read()) == 8


def test_merge_of_a_foreign_folder_is_refused(tmp_path):
    for name in ("one", "other"):
        StudyFolder(tmp_path / name, STUDY.model_copy(update={"seed": int(name == "other")})).claim()
    for source, into in ((tmp_path, "one"), (tmp_path / "one", "typo"), (tmp_path / "other", "one")):
        with pytest.raises(InputError, match=r"study\.yaml|seed"):
            StudyFolder.open(tmp_path / into).merge([StudyFolder.open(source)])
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}


@pytest.mark.parametrize("goal", [0.3, 2.0, 50.0])
def test_adaptive_stops_where_the_interval_is_narrow(goal, tmp_path):
    study = STUDY.model_copy(
        update={
            "adaptive": AdaptiveConfig(half_width_points=goal),
            "chips": ChipsConfig(evaluation=60, wave=4),
            "voltages": (1.0, 0.8),
        }
    )

    def adaptive(rows):
        return plan(study, POINTS, rows, {"net": 10.0})

    collect(rows_of(tmp_path), adaptive, fake_chunk, in_process())
    rows = rows_of(tmp_path).read()
    assert set(rows) == {task.key for task in adaptive(rows)}  # nothing was run that the plan does not want
    table = table_of(tmp_path, adaptive)
    assert not table.duplicated(["structure", "protection", "voltage", "chip"]).any()
    for _, group in table.groupby(["structure", "protection", "voltage"]):
        (images,), n = group.total.unique(), len(group)
        assert images in (32, 64, 128, 256, 512, 1000)
        assert 20 <= n <= 60
        found = group.sort_values("chip").accuracy.to_numpy()
        assert 100 * mean_interval(found).half_width <= goal or (n, images) == (60, 1000)
        if n > 24:
            assert 100 * mean_interval(found[: n - 4]).half_width > goal  # a wave less was not enough
        if goal == 50.0:
            assert (n, images) == (20, 32)
    assert goal < 2 or table.total.sum() < 30_000  # of 480,000 images


def test_the_same_rows_whichever_way_a_sample_grew(tmp_path):
    """An interval that is wanted narrower later goes on from what is there, and ends where it would have begun."""
    for folder, goals in ((tmp_path / "once", [0.6]), (tmp_path / "twice", [3.0, 0.6])):
        for goal in goals:
            study = STUDY.model_copy(
                update={"adaptive": AdaptiveConfig(half_width_points=goal), "chips": ChipsConfig(evaluation=40)}
            )
            before = set(rows_of(folder).read())
            collect(rows_of(folder), lambda rows, study=study: plan(study, POINTS[:1], rows), fake_chunk, in_process())
    assert before
    assert before < set(rows_of(folder).read()) == set(rows_of(tmp_path / "once").read())


def test_bisection_brackets_the_lowest_good_voltage(tmp_path):
    adaptive = AdaptiveConfig(margin_points=5, voltage_step=0.002)
    study = STUDY.model_copy(update={"adaptive": adaptive})
    collect(rows_of(tmp_path), lambda rows: plan(study, POINTS, rows), fake_chunk, in_process())
    rows = rows_of(tmp_path).read()
    table = table_of(tmp_path, lambda rows: plan(study, POINTS, rows))
    assert len(rows) == len(table)
    for (_, _), group in table.groupby(["structure", "protection"]):
        loss = (0.95 - group.groupby("voltage").accuracy.mean()).round(9)
        good, bad = loss[loss <= 0.05].index.min(), loss[loss > 0.05].index.max()
        assert 0 < good - bad <= 0.002
        assert group.voltage.nunique() <= 3 + 6  # log2(0.1 / 0.002) = 5.6


def test_bisection_goes_on_where_already_the_second_voltage_fails(tmp_path):
    study = STUDY.model_copy(
        update={"adaptive": AdaptiveConfig(margin_points=5, voltage_step=0.02), "voltages": (1.0, 0.75, 0.7)}
    )
    collect(rows_of(tmp_path), lambda rows: plan(study, POINTS, rows), fake_chunk, in_process())
    table = table_of(tmp_path, lambda rows: plan(study, POINTS, rows))
    for _, group in table.groupby(["structure", "protection"]):
        loss = (0.95 - group.groupby("voltage").accuracy.mean()).round(9)
        assert loss[0.75] > 0.05
        assert 0 < loss[loss <= 0.05].index.min() - loss[loss > 0.05].index.max() <= 0.02


def test_chunks_hold_one_chip_with_falling_voltages():
    made = chunks(whole({}))
    assert sorted(t.key for chunk in made for t in chunk) == sorted(t.key for t in whole({}))
    for chunk in made:
        assert len({(t.point, t.chip) for t in chunk}) == 1
        assert [t.at.voltages for t in chunk] == [(1.0,), (0.9,), (0.8,)]


def test_rows_are_json_lines(tmp_path):
    rows_of(tmp_path).append(fake_chunk(whole({})[:2]))
    (file,) = (tmp_path / "rows").glob("*.jsonl")
    assert [json.loads(line)["chip"] for line in file.read_text().splitlines()] == [0, 1]


@pytest.mark.slow
def test_dask_gives_the_same_rows(tmp_path):
    """A local cluster of two workers, by address, as on a real one."""
    distributed = pytest.importorskip("distributed")
    collect(rows_of(tmp_path / "one"), whole, fake_chunk, in_process())
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        collect(rows_of(tmp_path / "dask"), whole, fake_chunk, choose(dask=cluster.scheduler_address))
        distributed.default_client().close()
    assert csv_of(tmp_path / "dask") == csv_of(tmp_path / "one")


def test_dask_at_no_address_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="scheduler"):
        choose(dask="tcp://127.0.0.1:1")
