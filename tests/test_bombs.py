"""Do small files that stand for much end in one message, soon and within little memory?"""

import gzip
import io
import pickle
import resource
import zipfile

import numpy as np
import pytest

from neuralfuse import networks
from neuralfuse.data import cifar, idx
from neuralfuse.transforms import generators
from simulator.readers import topology, torch_file
from simulator.readers.read import load
from sram import mapfile
from sram.errors import InputError


@pytest.fixture(autouse=True)
def memory():
    """No more than 1 GB beyond what the tests have already."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def zipped(path, names, size=2**28 + 2**24):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            with file.open(name, "w") as member:
                for _ in range(size // 2**24):
                    member.write(bytes(2**24))
    return path


def test_npz(tmp_path):
    path = zipped(tmp_path / "map.npz", ["cell.npy", "header.npy"])
    with pytest.raises(InputError, match="unpacks to"):
        mapfile.load(path)


def test_npz_with_a_header_that_claims_much(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (2**37,)})
    with zipfile.ZipFile(tmp_path / "map.npz", "w") as file:
        file.writestr("cell.npy", head.getvalue())
    with pytest.raises(InputError, match="whole fault map"):
        mapfile.load(tmp_path / "map.npz")


@pytest.mark.parametrize("name", ["m/data/weights/w", "m/models/model.json", "m/data/sample_inputs/model.pt"])
def test_pt2(tmp_path, name):
    with pytest.raises(InputError, match="unpacks to"):
        torch_file.load_program(zipped(tmp_path / "m.pt2", [name]))


@pytest.mark.parametrize(
    ("size", "fine"),
    [
        ("Add(Pow(Symbol('s0', integer=True), Integer(2)), Integer(-1))", True),
        ("Symbol('s0')", True),
        ("Pow(Integer(9), Integer(9999999999))", False),
        ("Pow(Integer(9), Pow(Integer(9), Integer(9)))", False),
        ("9**9**9**9", False),
        ("1<<9999999999", False),
        ("Pow(" * 5 + "Integer(10)" + ", Integer(8))" * 5, False),
        ("(" * 900 + "1" + ")" * 900, False),
        ("1+" * 2000 + "1", False),
    ],
)
def test_sizes_that_are_large_to_work_out(size, fine):
    assert torch_file._is_arithmetic(size) is fine


@pytest.mark.parametrize("claimed", [2**31, 100])
def test_idx(tmp_path, claimed):
    path = tmp_path / "labels.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(bytes((0, 0, 8, 1)) + claimed.to_bytes(4, "big"))
        for _ in range(40):
            file.write(bytes(2**24))
    with pytest.raises(InputError, match="size"):
        idx.read(path, 1)


def nested(depth=40):
    made = [1] * 10
    for _ in range(depth):
        made = [made] * 10
    return made


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # LONG_BINPUT 2**31 - 1
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",  # BYTEARRAY8
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",  # BINBYTES8
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": nested()}),
        b"(" * 10**5 + b"l" * 10**5 + b".",
    ],
)
def test_pickles(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(InputError, match="a CIFAR batch"):
        cifar.read_python(tmp_path / "batch", "labels")


def test_messages_are_short():
    assert len(str(InputError("f" * 10**5, "k" * 10**5, "v" * 10**5, "a" * 10**5))) < 3000
    for most, message in (
        (500, lambda n: InputError("x" * n, "key", 1, "2")),
        (200, lambda n: InputError("file", "x" * n, 1, "2")),
        (300, lambda n: InputError("file", "key", "x" * (n - 2), "2")),  # and its quotation marks
        (1500, lambda n: InputError("file", "key", 1, "x" * n)),
    ):
        assert "..." not in str(message(most))
        assert "..." in str(message(most + 1))


def test_topologies(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("".join(f"l{i},8192,8192,3,3,1,1,1,\n" for i in range(5)))
    with pytest.raises(InputError, match="line 5: ifmaps up to here"):
        topology.read(path)


def test_an_idx_file_may_unpack_to_what_its_size_warrants(tmp_path):
    """Random bytes do not shrink: 300 MB of them are no bomb."""
    path, block = tmp_path / "images", np.random.default_rng(0).bytes(2**20)
    with path.open("wb") as file:
        file.write(bytes((0, 0, 8, 1)) + (300 * 2**20).to_bytes(4, "big"))
        for _ in range(300):
            file.write(block)
    assert idx.read(path, 1).shape == (300 * 2**20,)


@pytest.mark.parametrize("make", [networks.build, generators.build])
@pytest.mark.parametrize("width", [10**5, 10**8])
def test_widths_beyond_any_memory(make, width):
    with pytest.raises(InputError, match="268435456"):
        make("resnet8" if make is networks.build else "UNetS", width=width)


def test_functions_of_functions(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    own = helper.make_opsetid("own", 1), helper.make_opsetid("", 17)
    relu = [helper.make_node("Relu", ["a"], ["b"])]
    functions = [helper.make_function("own", "F0", ["a"], ["b"], relu, own)]
    for level in range(1, 30):
        pair = [helper.make_node(f"F{level - 1}", *names, domain="own") for names in ((["a"], ["c"]), (["c"], ["b"]))]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], pair, own))
    x, y = (helper.make_tensor_value_info(name, 1, [1, 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node("F29", ["x"], ["y"], domain="own")], "g", [x], [y])
    onnx.save(helper.make_model(graph, functions=functions, opset_imports=own), tmp_path / "bomb.onnx")
    with pytest.raises(InputError, match=r"nodes = .* at most 131072"):
        load(tmp_path / "bomb.onnx")


def test_topologies_of_many_lines(tmp_path):
    (tmp_path / "t.csv").write_text("a,8,8,3,3,3,4,1\n" * 2**16)
    with pytest.raises(InputError, match="lines = 65536"):
        topology.read(tmp_path / "t.csv")
