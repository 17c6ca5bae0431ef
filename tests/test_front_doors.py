"""Are the public names of the packages there, the same for type checkers, and callable whatever was imported before?"""

import importlib
import inspect
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.test_imports import loaded_by

PROMISED = {
    "neuralfuse": "load_study Study sweep report simulate FaultyNetwork train_generator calibrate",
    "sram": "generate load save Geometry Memory Chip FaultMap curve parse_protection check_protection",
    "simulator": "trace load simulate energy accelerator OperatingPoint Workload Accelerator",
}


@pytest.mark.parametrize("package", list(PROMISED))
def test_every_public_name_is_there(package):
    module = importlib.import_module(package)
    assert set(PROMISED[package].split()) <= set(dir(module)) == set(module.__all__)
    for name in dir(module):
        found = getattr(module, name)
        assert callable(found) or name.isupper(), name
        assert inspect.getdoc(found), name
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        module.nothing_of_this_name  # noqa: B018
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", list(PROMISED))
def test_a_package_loads_nothing_before_it_is_used(package):
    loaded = loaded_by(f"import {package}; dir({package})")
    assert not {"torch", "numpy", "pandas", "numba", "pydantic", "rich"} & loaded


def test_a_module_named_like_its_function_can_be_called_before_and_after_it_is_imported():
    script = (
        "import simulator, sys\n"
        "before = simulator.accelerator('paper')\n"
        "import simulator.energy, simulator.accelerator\n"
        "assert simulator.accelerator('paper') == before == simulator.accelerator.accelerator('paper')\n"
        "counts = simulator.simulate(simulator.Workload('w', (simulator.linear('l', 1, 8, 8),)), before)\n"
        "print(simulator.energy(counts).system_pj == simulator.energy.energy(counts).system_pj)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\n"


def test_type_checkers_know_the_names(tmp_path):
    """The stubs say types: what fits passes, what does not is an error."""
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(
        "import neuralfuse as nf\nimport simulator\nimport sram\n"
        "chip: sram.FaultMap = sram.generate(0, sram.Geometry(4), 'ibm14', voltage_floor=0.8)\n"
        "cost: sram.Overhead = sram.parse_protection('secded72').apply(chip)[1]\n"
        "found: simulator.LayerEnergy = nf.simulate('resnet8', (1, 16, 16)).energy\n"
        "wrong: int = nf.__version__\n"
        "missing = sram.generated\n"
    )
    config = str(ROOT / "pyproject.toml")
    out, _, _ = api.run([str(tmp_path / "user.py"), "--config-file", config, "--cache-dir", str(ROOT / ".mypy_cache")])
    lines = [line for line in out.splitlines() if "user.py" in line]
    assert [line.split(":")[1] for line in lines] == ["7", "8"], out
