"""Do results stay what they were from release to release, and their keys with them?

The rows of tests/data/golden_rows_v*.csv are measured anew, from a committed network whose answers are sums of whole
numbers. Where they differ on purpose, bump RESULTS_VERSION in neuralfuse/study/digest.py and write them anew:

    python -m tests.neuralfuse.sweep.test_golden
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from neuralfuse.study.digest import RESULTS_VERSION
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.progress import silent
from tests.conftest import DATA, ROOT

ROWS = DATA / f"golden_rows_v{RESULTS_VERSION}.csv"
REMEDY = "bump RESULTS_VERSION in neuralfuse/study/digest.py, then: python -m tests.neuralfuse.sweep.test_golden"
NETWORK = {
    "name": "words",
    "build": "resnet8",
    "options": {"width": 4},
    "activations": "int8",
    "checkpoint": "tests/data/golden_network.safetensors",
}
COMMON = {
    "seed": 3,
    "dataset": {"name": "digits", "test_images": 40},
    "networks": [NETWORK],
    "voltages": [0.82, 0.78],
    "chips": {"evaluation": 2},
}
STUDIES = {
    "streamed": {
        "accelerators": ["paper", "edge"],
        "sram": {"structures": ["column", "iid"]},
        "protections": ["none", "secded72", "spare_columns:1"],
    },
    "resident": {
        "sram": {"structures": ["column"], "schedule": "resident", "rows": 256, "stuck_at_one": 0.7},
        "protections": ["none", "hardened_msb:1", "word_masking", "boost:0.03"],
    },
    "paper": {"sram": {"structures": ["iid"], "schedule": "paper", "mode": "flip"}, "protections": ["none"]},
}


def measured(folder: Path) -> pd.DataFrame:
    """The rows of all STUDIES, run in folders below this one."""
    tables = []
    for name, keys in STUDIES.items():
        study = StudyFolder(folder / name, parse_study(COMMON | keys | {"name": name}, name))
        outcome = run_study(study, choose(1), silent)
        table = pd.read_csv(outcome.results)
        table.insert(0, "study", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def rows(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return measured(folder)


def test_rows_are_what_they_were(rows):
    assert ROWS.is_file(), f"no rows of version {RESULTS_VERSION}: python -m tests.neuralfuse.sweep.test_golden"
    try:
        pd.testing.assert_frame_equal(rows, pd.read_csv(ROWS), check_exact=False, rtol=1e-9, atol=0)
    except AssertionError as error:
        pytest.fail(f"{error}\nResults differ. If they are meant to: {REMEDY}")


def test_they_would_show_a_change(rows):
    """Faults, protections and machines all leave their mark in them."""
    assert (rows.correct != rows.correct_clean).sum() > len(rows) / 4
    assert rows.groupby("study").flip_rate.max().min() > 0
    assert rows.groupby("protection").energy_sram_pj.first().nunique() == rows.protection.nunique() == 6
    assert rows.groupby("accelerator").cycles.first().nunique() == 2


KEYS = """
import json, sys
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.supplies import at_voltage
from neuralfuse.sweep.task import Task
folder = StudyFolder.open(sys.argv[1])
tasks = [Task(point, 0, at_voltage(folder.study, point.accelerator, 0.82)) for point in points_of(folder)]
print(json.dumps([task.key for task in tasks]))
"""


def test_a_changed_comment_changes_no_key(rows, folder, tmp_path):
    """Rows outlive releases: keys follow settings, files and RESULTS_VERSION, and not the text of the program."""
    for package in ("sram", "simulator", "neuralfuse"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source in tmp_path.rglob("*.py"):
        source.write_text(source.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")

    def keys(tree: Path) -> list[str]:
        call = [sys.executable, "-c", KEYS, str(folder / "streamed")]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        return json.loads(subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, check=True).stdout)

    changed = keys(tmp_path)
    assert changed == keys(ROOT)
    assert set(changed) <= set(StudyFolder.open(folder / "streamed").rows.read())


if __name__ == "__main__":
    import tempfile

    if ROWS.exists():
        sys.exit(f"{ROWS.name} is there: bump RESULTS_VERSION in neuralfuse/study/digest.py first")
    with tempfile.TemporaryDirectory() as name:
        measured(Path(name)).to_csv(ROWS, index=False)
    print(ROWS)
