"""Is what is published whole: does the wheel run the demo, does an index's page link to what there is?"""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from tests.conftest import ROOT


def test_a_package_index_is_given_no_link_that_leads_nowhere():
    page = subprocess.run([sys.executable, "setup.py", "--long-description"], cwd=ROOT, capture_output=True, text=True)
    links = re.findall(r"\]\(([^)]*)\)", page.stdout)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "glossary (`docs/glossary.md`)" in page.stdout


@pytest.mark.slow
def test_the_wheel_alone_runs_the_demo(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(["make", "dist"], cwd=ROOT, env=environment, check=True)
    demo = [ROOT / "build" / "venv" / "bin" / "neuralfuse", "demo", "--out", "demo"]
    subprocess.run(demo, cwd=tmp_path, env=environment, check=True)
    assert {"none", "NeuralFuse"} <= set(pd.read_csv(tmp_path / "demo" / "results.csv").protection)
