"""Is nothing left running when a run ends, however it ends?"""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from tests.conftest import ROOT, TINY

POOL = """
import os, time
from neuralfuse.sweep.executors import choose
if __name__ == "__main__":
    pool = choose(workers=2).make()
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 1000)
    time.sleep(1000)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def ended(pids, within_s=20.0):
    """Whether none of these runs any more, or will within some time."""
    end = time.monotonic() + within_s
    while left := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return not left


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        workers = children(parent.pid)
        assert worker in workers
        parent.send_signal(signal.SIGKILL)
    assert ended(workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_told_to_end_leaves_nobody_behind(number, tiny_copy, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(TINY.read_text().replace("evaluation: 3", "evaluation: 900"))
    command = [sys.executable, "-m", "neuralfuse", "sweep", study, "--out", tiny_copy, "--workers", "2"]
    rows = tiny_copy / "rows"
    before = len(list(rows.glob("*.jsonl")))
    start = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # ignored in the background
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=start) as sweep:
        while len(list(rows.glob("*.jsonl"))) == before and sweep.poll() is None:
            time.sleep(0.1)
        workers = children(sweep.pid)
        assert len(workers) >= 2
        sweep.send_signal(number)
        assert sweep.wait(30) == 130
        assert sweep.stderr is not None
        assert "interrupted; what was done is kept" in sweep.stderr.read()
    assert ended(workers)
