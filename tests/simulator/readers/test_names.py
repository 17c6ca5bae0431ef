"""Is a name with what does not print refused, through whichever reader it comes?"""

from dataclasses import replace

import pytest
import torch
from torch import nn

import simulator
from sram import failure
from sram.errors import InputError
from tests.conftest import run

HIDDEN = ["a\x1b[2Jb", "a\0b", "a\rb", "a\x85b", "a\u2028b", "a\u202eb", "\x7f"]
HEAD = "name, h, w, r, s, c, n, st\n"


def named(name: str) -> nn.Sequential:
    net = nn.Sequential()
    net.add_module(name, nn.Linear(4, 2))
    return net


@pytest.mark.parametrize("name", HIDDEN)
def test_of_torch_and_of_an_exported_program(name, tmp_path):
    with pytest.raises(InputError, match="characters that print"):
        simulator.trace(named(name), (4,))
    with pytest.raises(InputError, match="characters that print"):
        simulator.trace(named("fine"), (4,), name=name)
    torch.export.save(torch.export.export(named(name), (torch.zeros(1, 4),)), tmp_path / "net.pt2")
    with pytest.raises(InputError, match=r"characters that print|an archive that torch"):  # torch itself refuses some
        simulator.load(tmp_path / "net.pt2")


@pytest.mark.parametrize("name", HIDDEN)
def test_of_onnx(name, tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name=name)
    weights = onnx.helper.make_tensor("w", 1, (4, 2), [0.0] * 8)
    graph = onnx.helper.make_graph([node], "net", [value("x", 1, [1, 4])], [value("y", 1, None)], [weights])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="characters that print"):
        simulator.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", [name for name in HIDDEN if len(name.splitlines()) == 1])
def test_of_a_topology_with_its_line(name, tmp_path, capsys):
    (tmp_path / "net.csv").write_text(f"{HEAD}fine,8,8,3,3,3,8,1\n{name},8,8,3,3,3,8,1\n", encoding="utf-8")
    assert run("simulate", "--topology", tmp_path / "net.csv") == 2
    error = capsys.readouterr().err
    assert "line 3: name = " in error
    assert error.isprintable() or error[:-1].isprintable()


@pytest.mark.parametrize("name", HIDDEN)
def test_of_a_study_a_machine_and_a_curve(name):
    import neuralfuse as nf

    fine = {"networks": ["resnet8"], "voltages": [1.0], "protections": ["none"]}
    odd = [{"protections": ["none", {"name": name, "sram": ["secded72"]}]}, {"networks": [{"name": name}]}]
    for changed in odd:
        with pytest.raises((InputError, ValueError), match="characters that print"):
            nf.Study("mine", **fine | changed)
    with pytest.raises((InputError, ValueError), match="characters that print"):
        nf.Study(name, **fine)
    with pytest.raises(InputError, match="characters that print"):
        replace(simulator.accelerator("paper"), name=name)
    with pytest.raises(InputError, match="characters that print"):
        replace(failure.curve("ibm14"), name=name)
