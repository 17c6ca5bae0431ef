"""Do the packages import in one direction, and light ones lightly?"""

import ast
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ALLOWED = {"sram": {"sram"}, "simulator": {"sram", "simulator"}, "neuralfuse": {"sram", "simulator", "neuralfuse"}}


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["sram", "sram.faultmap", "sram.protection", "sram.cell.physics", "sram.energy"])
def test_sram_loads_neither_torch_nor_matplotlib_nor_pandas(module):
    assert not {"torch", "matplotlib", "pandas"} & loaded_by(f"import {module}")


def test_a_study_is_read_without_torch():
    """What a cluster's login node does with a study: check it, count it, submit it."""
    assert "torch" not in loaded_by("import neuralfuse.study.files")


def test_a_report_is_made_without_torch_and_the_whole_of_scipy_stats():
    assert not {"torch", "scipy.stats"} & loaded_by("import neuralfuse.report")


def test_help_loads_nothing_heavy():
    """What makes `neuralfuse --help` answer in well under a second."""
    loaded = loaded_by("import neuralfuse.cli")
    assert not {"torch", "matplotlib", "pandas", "numba", "scipy", "plotly", "pydantic"} & loaded


@pytest.mark.parametrize("package", list(ALLOWED))
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top not in ALLOWED or top in ALLOWED[package], f"{path} imports {name}"


@pytest.mark.parametrize("name", ["simulator.py", "sram.py", "simulator/__init__.py"])
def test_a_file_of_the_user_s_that_hides_a_package_is_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    command = [sys.executable, "-m", "neuralfuse", "version"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path / name} hides the package `{name.split('.')[0].split('/')[0]}`" in done.stderr
