"""Does the wheel alone, where the repository is not, run the demo?"""

import os
import subprocess

import pandas as pd
import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_wheel_alone_runs_the_demo(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(["make", "dist"], cwd=ROOT, env=environment, check=True)
    demo = [ROOT / "build" / "venv" / "bin" / "neuralfuse", "demo", "--out", "demo"]
    subprocess.run(demo, cwd=tmp_path, env=environment, check=True)
    assert {"none", "NeuralFuse"} <= set(pd.read_csv(tmp_path / "demo" / "results.csv").protection)
