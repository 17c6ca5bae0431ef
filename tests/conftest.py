"""One tiny study, run once through the command line and shared by the tests that look at what it left behind."""

import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from neuralfuse.cli import main
from neuralfuse.report import plots
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.run import run_study
from sram.files import write_atomic
from sram.progress import silent

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny_study.yaml"
collect_ignore = ["mutants.py"]  # no tests: `make mutants`, with packages of its own


class Trap:
    """A file is there once this has been unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def run(*arguments: object) -> int:
    """The command line in this process; returns its exit status."""
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return int(end.value.code or 0)


def swept(folder: Path, study: StudyConfig, workers: int = 1) -> bytes:
    """A study run in a folder; its results."""
    outcome = run_study(StudyFolder(folder, study), choose(workers), silent)
    assert not outcome.failures
    return (folder / "results.csv").read_bytes()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The finished folder of tests/data/tiny_study.yaml: read it, do not change it."""
    folder = tmp_path_factory.mktemp("tiny") / "out"
    assert run("sweep", TINY, "--out", folder, "--workers", 1) == 0
    return folder


@pytest.fixture
def tiny_copy(tiny, tmp_path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def undrawn():
    """Figures are made but not rendered, which takes most of a report's time."""

    def save(figure, folder, name):
        dot = BytesIO()
        Image.new("RGB", (1, 1)).save(dot, "png")
        return [write_atomic(folder / f"{name}.{kind}", dot.getvalue()) for kind in plots.KINDS]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", save)
        yield
