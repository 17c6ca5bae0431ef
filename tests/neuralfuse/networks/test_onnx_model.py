"""Does a study's network from an ONNX file compute what onnxruntime computes, or is it refused by name?"""

import copy

import numpy as np
import pytest
import torch

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from sram.errors import InputError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

node = helper.make_node
RANDOM = np.random.default_rng(0)


def floats(*shape):
    return (0.4 * RANDOM.standard_normal(shape)).astype(np.float32)


def saved(path, nodes, constants=(), opset=17, shape=(2, 3, 8, 8), output="y"):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", [value("x", shape)], [value(output, None)], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return str(path)


def deconv(**attributes):
    return [node("ConvTranspose", ["x", "w"], ["y"], **attributes)]


def cast(to):
    return [node("Cast", ["x"], ["i"], to=to), node("Cast", ["i"], ["y"], to=TensorProto.FLOAT)]


INTS = {
    "zero": np.array([0]), "four": np.array([4]), "last": np.array([3]), "one": np.array([1]), "minus": np.array([-1]),
    "far": np.array([-100]),
}  # fmt: skip
RIGHT = {
    "softmax of opset 11": ([node("Softmax", ["x"], ["y"], axis=1)], {}, 11),
    "its default axis": ([node("Softmax", ["x"], ["y"])], {}, 11),
    "softmax of opset 13": ([node("Softmax", ["x"], ["y"])], {}, 13),
    "cast to int": (cast(TensorProto.INT32), {}, 17),
    "cast to bool": (cast(TensorProto.BOOL), {}, 17),
    "same padding": (deconv(auto_pad="SAME_UPPER", strides=[2, 2]), {"w": floats(3, 4, 3, 3)}, 17),
    "same padding, lower": (deconv(auto_pad="SAME_LOWER", strides=[2, 2]), {"w": floats(3, 4, 4, 3)}, 17),
    "uneven padding": (deconv(pads=[0, 1, 2, 1], strides=[2, 3]), {"w": floats(3, 4, 3, 5)}, 17),
    "output shape": (deconv(output_shape=[16, 16], strides=[2, 2]), {"w": floats(3, 4, 3, 3)}, 17),
    "ends of a shape": (
        [node("Shape", ["x"], ["s"], start=0, end=1), node("Concat", ["s", "minus"], ["t"], axis=0),
         node("Reshape", ["x", "t"], ["y"])], INTS, 17,
    ),
    "slice backwards": ([node("Slice", ["x", "minus", "far", "last", "minus"], ["y"])], INTS, 17),
    "slice of opset 9": ([node("Slice", ["x"], ["y"], starts=[1, 0], ends=[9, 3], axes=[2, 3])], {}, 9),
    "gather from the end": ([node("Gather", ["x", "minus"], ["y"], axis=1)], INTS, 17),
    "clip without limits": ([node("Clip", ["x"], ["y"])], {}, 17),
    "clip of opset 6": ([node("Clip", ["x"], ["y"], max=0.5)], {}, 6),
    "flatten from the end": ([node("Flatten", ["x"], ["y"], axis=-1)], {}, 17),
    "squares": ([node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1)], {}, 17),
}  # fmt: skip
RIGHT["squares"] = (
    [node("Flatten", ["x"], ["f"]), *RIGHT["squares"][0]], {"w": floats(5, 192), "b": floats(5)}, 17
)  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_a_network_computes_what_onnxruntime_does(tmp_path, case):
    nodes, constants, opset = RIGHT[case]
    path = saved(tmp_path / "n.onnx", nodes, constants, opset)
    x = RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    got = networks.build(path)(torch.from_numpy(x)).numpy()
    assert got.shape == want.shape
    assert np.allclose(got, want, atol=1e-5)


NORM = {"s": floats(3), "m": floats(3), "v": np.ones(3, np.float32)}
REFUSED = {
    "dilations": ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, 19),
    "training_mode": (
        [node("BatchNormalization", ["x", "s", "s", "m", "v"], ["y", "a", "b"], training_mode=1)], NORM, 17),
    "ceil_mode": ([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {}, 17),
    "auto_pad": ([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], auto_pad="SAME_UPPER")], {}, 17),
    "output i of MaxPool": (
        [node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2]), node("Cast", ["i"], ["y"], to=1)], {}, 17),
    "If": ([node("If", ["c"], ["y"], then_branch=helper.make_graph([node("Relu", ["x"], ["t"])], "b", [], [
        helper.make_tensor_value_info("t", 1, None)]), else_branch=helper.make_graph([node("Neg", ["x"], ["e"])], "b",
        [], [helper.make_tensor_value_info("e", 1, None)]))], {"c": np.array([True])}, 17),
    "Mystery": ([node("Mystery", ["x"], ["y"])], {}, 17),
}  # fmt: skip


@pytest.mark.parametrize("named", REFUSED)
def test_what_is_not_read_is_refused_by_name(tmp_path, named):
    nodes, constants, opset = REFUSED[named]
    with pytest.raises(InputError, match=named):
        networks.build(saved(tmp_path / "n.onnx", nodes, constants, opset))


def test_a_node_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    from neuralfuse.networks import onnx_operators

    path = saved(tmp_path / "n.onnx", [node("Relu", ["x"], ["r"]), node("Tanh", ["r"], ["y"])])
    networks.build(path)
    monkeypatch.setitem(onnx_operators.OPERATORS, "Tanh", lambda i: torch.tanh(i[0]) * 1.01)
    with pytest.raises(
        InputError, match=r"Tanh that makes y = .*float32 \[\d.*what onnxruntime computes, to 0.1%: float32 \[\d"
    ):
        networks.build(path)


@pytest.mark.parametrize(
    "name", ["steps", "forward", "type", "training", "input", "places", "_parameters", "a b:/c", ".", "a..b"]
)
def test_names_of_initialisers_are_data(tmp_path, name):
    path = saved(tmp_path / "n.onnx", [node("Conv", ["x", name], ["y"])], {name: floats(4, 3, 3, 3)})
    network = networks.build(path)
    x = RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    assert np.allclose(copy.deepcopy(network)(torch.from_numpy(x)).numpy(), want, atol=1e-5)
    assert len(network.stored_weights) == 1
    assert FaultyNetwork(network).words.size == 108


def test_a_name_may_begin_another(tmp_path):
    nodes = [node("Conv", ["x", "c.w"], ["a"]), node("Conv", ["a", "c.w.1"], ["b"]), node("Add", ["b", "c"], ["y"])]
    constants = {"c.w": floats(3, 3, 3, 3), "c.w.1": floats(3, 3, 3, 3), "c": floats(1)}
    network = networks.build(saved(tmp_path / "n.onnx", nodes, constants))
    assert [name.removeprefix("network.") for name in network.stored_weights] == ["c.w", "c.w_.1"]


def test_weights_behind_views_on_the_left_and_computed_ones_are_stored_words(tmp_path):
    nodes = [
        node("Flatten", ["x"], ["f"]),
        node("Transpose", ["behind"], ["t"], perm=[1, 0]),
        node("MatMul", ["f", "t"], ["a"]),
        node("Mul", ["mask", "masked"], ["m"]),
        node("MatMul", ["a", "m"], ["b"]),
        node("Transpose", ["b"], ["turned"], perm=[1, 0]),
        node("MatMul", ["left", "turned"], ["c"]),
        node("Gemm", ["first", "c"], ["y"], transA=1),
    ]
    names = {"behind": (6, 192), "mask": (6, 5), "masked": (6, 5), "left": (4, 5), "first": (4, 3)}
    constants = {name: floats(*shape) for name, shape in names.items()}
    network = networks.build(saved(tmp_path / "n.onnx", nodes, constants))
    assert network.stored_weights == tuple(f"network.{name}" for name in ("behind", "m", "left", "first"))
    x = torch.zeros(2, 3, 8, 8) + 1
    faulty = FaultyNetwork(network)
    clean = faulty(x)
    faulty.set_faults(np.array([0]), np.array([6], np.uint8), np.array([2], np.uint8))  # of the one behind a view
    assert not torch.allclose(faulty(x), clean)
