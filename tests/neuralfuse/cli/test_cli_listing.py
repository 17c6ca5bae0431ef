"""Do the commands that list things list them all, and say what they mean?"""

import dataclasses
from importlib.metadata import version

import pytest

from neuralfuse import networks
from simulator import keys
from simulator.accelerator import Accelerator, Buffer, accelerator_names
from simulator.delay import Delay
from tests.conftest import run


def test_every_key_of_an_accelerator_has_a_meaning():
    assert list(keys._MEANING) == [field.name for field in dataclasses.fields(Accelerator)]
    assert set(keys._OF_DELAY) == {field.name for field in dataclasses.fields(Delay)}
    assert set(keys._OF_BUFFERS) == {field.name for field in dataclasses.fields(Buffer)}


@pytest.mark.parametrize("name", accelerator_names())
def test_accelerator_show_has_values_defaults_and_meanings(name, capsys):
    assert run("accelerator", "show", name) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "half of capacity_bytes" in lines["weight_buffer.double"]
    assert lines["vector_lanes"].split()[2] == "32"
    assert "required" not in lines["rails"]


def test_accelerator_list_and_networks_list_name_all(capsys):
    assert run("accelerator", "list") == run("networks", "list") == 0
    first = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {*accelerator_names(), *networks.names()} < first


@pytest.mark.parametrize("group", ["accelerator", "networks", "curve", "faultmap", "device"])
def test_a_group_alone_lists_its_commands(group, capsys):
    run(group)
    found = capsys.readouterr()
    assert f" {group} [OPTIONS] COMMAND" in found.out
    assert "Commands" in found.out
    assert "Missing command" not in found.err


def test_an_unknown_accelerator_is_refused(capsys):
    assert run("accelerator", "show", "paperr") == 2
    assert "paper" in capsys.readouterr().err


def test_versions(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"neuralfuse {version('neuralfuse-sim')}\n"
    assert run("version") == 0
    out = capsys.readouterr().out
    assert all(f"{name} {version(name)}" in out for name in ("torch", "numpy", "numba"))
