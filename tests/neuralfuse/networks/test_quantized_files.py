"""Are a quantised ONNX model's own integers the stored words, and its answers those of onnxruntime, to the bit?"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from neuralfuse import data, networks
from neuralfuse.networks.words import Words
from neuralfuse.quantized.faulty import FaultyNetwork
from simulator.readers.read import trace
from sram.errors import InputError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

node = helper.make_node
RANDOM = np.random.default_rng(0)


def session(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def integers(network, path):
    """What the file has of each stored weight, row-major, beside its words."""
    file = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    faulty = FaultyNetwork(network)
    for layer in faulty.layer_table:
        own = file[layer.name.removeprefix("network.")]
        yield own.astype(own.dtype).ravel(), faulty.words[layer.offset : layer.offset + layer.size].view(own.dtype)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small trained network in a file, and the images to test it with."""
    torch.manual_seed(0)
    found = data.load("digits")
    x = (lambda images: images.float() / 127.5 - 1) if found.train_x.dtype == torch.uint8 else (lambda images: images)
    side = found.train_x.shape[-1]
    network = nn.Sequential(
        nn.Conv2d(found.train_x.shape[1], 8, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * (side // 4) ** 2, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x(found.train_x)), found.train_y).backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("digits") / "float.onnx"
    axes = {"x": {0: "n"}}
    torch.onnx.export(network.eval(), (x(found.train_x[:4]),), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path, x(found.train_x[:200]).numpy(), x(found.test_x), found.test_y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_network_that_onnxruntime_quantised_answers_as_there(tmp_path, digits, form, per_channel, weights):
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, known, x, y = digits
    batches = iter([{"x": known}])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    options = {} if form == "QDQ" else {"op_types_to_quantize": ["Conv", "MaxPool"]}  # its Gemm is no operator of ONNX
    quantization.quantize_static(
        path, tmp_path / "q.onnx", Reader(), quant_format=quantization.QuantFormat[form], per_channel=per_channel,
        weight_type=quantization.QuantType[weights], activation_type=quantization.QuantType.QUInt8, **options,
    )  # fmt: skip
    (want,) = session(tmp_path / "q.onnx").run(None, {"x": x.numpy()})
    network = networks.build(str(tmp_path / "q.onnx"))
    got = network(x).numpy()
    assert np.allclose(got, want, atol=1e-5)
    assert abs((got.argmax(1) == y.numpy()).mean() - (want.argmax(1) == y.numpy()).mean()) < 0.001
    assert (want.argmax(1) == y.numpy()).mean() > 0.8  # it has learned something
    kept = [isinstance(network.get_parameter(name), Words) for name in network.stored_weights]
    assert kept == [True, form == "QDQ"]
    if form == "QDQ":
        assert np.array_equal(got, want)
        for own, words in integers(copy.deepcopy(network), tmp_path / "q.onnx"):
            assert np.array_equal(own, words)
    faulty = FaultyNetwork(network)
    assert np.array_equal(faulty(x).numpy(), got) or form == "QOperator"  # its Gemm is rounded to words of 8 bits
    assert {name for name, _, _ in trace(network, tuple(x.shape[1:]), name="q").tensors()} == set(
        network.stored_weights
    )


def words(*shape, kind=np.int8):
    return RANDOM.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, shape).astype(kind)


def point(value, kind=np.uint8):
    return np.array(value, kind)


QUANT = node("QuantizeLinear", ["x", "xs", "xz"], ["i"])
BACK = node("DequantizeLinear", ["o", "ys", "yz"], ["y"])
POINTS = {"xs": np.float32(0.03), "xz": point(120), "ys": np.float32(0.5), "yz": point(7)}
ROWS = {"ws": np.array([0.02, 0.01, 0.03, 0.02], np.float32), "wz": point([0, 0, 0, 0], np.int8)}
FLAT = [QUANT, node("Flatten", ["i"], ["f"])]
NODES = {
    "QLinearConv": (
        [QUANT, node("QLinearConv", ["i", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["o"], strides=[2, 2],
                     pads=[1, 1, 1, 1]), BACK],
        {"w": words(4, 3, 3, 3), "b": np.array([5, -900, 0, 1000], np.int32), **ROWS},
    ),
    "asymmetric": (
        [QUANT, node("QLinearConv", ["i", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["o"]), BACK],
        {"w": words(4, 3, 3, 3, kind=np.uint8), "ws": np.float32(0.02), "wz": point(97)},
    ),
    "QLinearMatMul": (
        [*FLAT, node("QLinearMatMul", ["f", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["o"]), BACK],
        {"w": words(192, 4), **ROWS},
    ),
    "ConvInteger": (
        [QUANT, node("ConvInteger", ["i", "w", "xz", "wz"], ["o"], pads=[1, 0, 1, 0]),
         node("Cast", ["o"], ["y"], to=1)],
        {"w": words(4, 3, 3, 3, kind=np.uint8), "wz": point(130)},
    ),
    "MatMulInteger": (
        [*FLAT, node("MatMulInteger", ["f", "w", "xz", "wz"], ["o"]), node("Cast", ["o"], ["y"], to=1)],
        {"w": words(192, 4), "wz": point(3, np.int8)},
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", ["w", "ws", "wz"], ["d"], axis=0), node("Conv", ["x", "d"], ["y"])],
        {"w": words(4, 3, 3, 3), **ROWS | {"wz": point([3, -100, 0, 9], np.int8)}},
    ),
}  # fmt: skip


def saved(path, nodes, constants, domains=()):
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (2, 3, 8, 8)), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("case", NODES)
def test_an_operator_of_integers_is_that_of_onnxruntime_to_the_bit(tmp_path, case):
    nodes, constants = NODES[case]
    path = saved(tmp_path / "n.onnx", nodes, POINTS | constants)
    network = networks.build(path)
    assert network.stored_weights == ("network.w",)
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)
        (want,) = session(path).run(None, {"x": x})
        got = network(torch.from_numpy(x)).numpy()
        assert np.array_equal(got, want) if case != "DequantizeLinear" else np.allclose(got, want, atol=1e-4)
    ((own, stored),) = integers(network, path)
    assert np.array_equal(own, stored)


def test_a_fault_is_in_the_word_that_the_file_has(tmp_path):
    """Bit 7 of a uint8 is worth 128, of an int8 -128; the scale is the file's."""
    for kind, worth in ((np.uint8, 128), (np.int8, -128)):
        constants = {"w": np.full((192, 4), 5, kind), "s": np.float32(0.25), "z": point(3, kind)}
        nodes = [node("Flatten", ["x"], ["f"]), node("DequantizeLinear", ["w", "s", "z"], ["d"]),
                 node("MatMul", ["f", "d"], ["y"])]  # fmt: skip
        faulty = FaultyNetwork(networks.build(saved(tmp_path / "n.onnx", nodes, constants)))
        x = torch.zeros(2, 3, 8, 8)
        x[:, 0, 0, 0] = 1
        assert faulty(x)[0].tolist() == [0.5] * 4
        faulty.set_faults(np.array([0]), np.array([7], np.uint8), np.array([1], np.uint8))
        assert faulty(x)[0].tolist() == [0.5 + worth / 4, 0.5, 0.5, 0.5]


def test_words_of_another_width_are_refused(tmp_path):
    nodes, constants = NODES["DequantizeLinear"]
    path = saved(tmp_path / "n.onnx", nodes, POINTS | constants)
    with pytest.raises(InputError, match="format int with bits 8, as the model has them"):
        FaultyNetwork(networks.build(path), bits=4)


def test_words_of_sixteen_bits_are_refused(tmp_path):
    """Not read as floats and quantised anew."""
    constants = {"w": np.full((192, 4), 5, np.int16), "s": np.float32(0.25), "z": point(3, np.int16)}
    nodes = [node("Flatten", ["x"], ["f"]), node("DequantizeLinear", ["w", "s", "z"], ["d"]),
             node("MatMul", ["f", "d"], ["y"])]  # fmt: skip
    with pytest.raises(InputError, match=r"words of w = 'int16' .*8 or 4 bits"):
        networks.build(saved(tmp_path / "n.onnx", nodes, constants))


def quant(x, scale, zero, bits, signed=True, narrow=False):
    """As QONNX defines it."""
    low, high = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1 - narrow)
    return ((np.clip(np.round(x / scale + zero), low, high) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scale", [np.float32(0.1), np.array([0.1, 0.2, 0.05, 0.3], np.float32).reshape(4, 1, 1, 1)])
@pytest.mark.parametrize("signed", [True, False])
def test_quant_of_qonnx_is_its_definition(tmp_path, bits, scale, signed):
    domain = "qonnx.custom_op.general"
    zero = np.float32(0 if signed else 2)
    weight = RANDOM.standard_normal((4, 3, 1, 1)).astype(np.float32)
    constants = {
        "w": weight,
        "ws": scale,
        "wz": zero,
        "n": np.float32(bits),
        "xs": np.float32(0.25),
        "xz": np.float32(0),
    }
    nodes = [
        node(
            "Quant", ["w", "ws", "wz", "n"], ["q"], domain=domain, signed=int(signed), narrow=1, rounding_mode="ROUND"
        ),
        node("Quant", ["x", "xs", "xz", "n"], ["a"], domain=domain, signed=1, narrow=0, rounding_mode="ROUND"),
        node("Conv", ["a", "q"], ["y"]),
    ]
    network = networks.build(saved(tmp_path / "n.onnx", nodes, constants, [domain]))
    x = RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32)
    w = quant(weight, scale, zero, bits, signed, narrow=True)
    want = np.einsum("nihw,oi->nohw", quant(x, 0.25, 0, bits), w[:, :, 0, 0])
    assert np.allclose(network(torch.from_numpy(x)).numpy(), want, atol=1e-5)
    faulty = FaultyNetwork(network, bits=bits)
    stored = faulty.words.astype(int) % 2**bits if not signed else faulty.words.astype(int)
    assert np.allclose(
        (stored - int(zero)) * np.broadcast_to(scale, weight.shape).ravel(), w.ravel(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"n": np.float32(16)}, "bitwidth"), ({"wz": np.float32(0.5)}, "zero points"), ({}, "FLOOR")],
)
def test_what_quant_does_not_read_is_refused(tmp_path, changed, named):
    domain = "qonnx.custom_op.general"
    mode = "ROUND" if changed else "FLOOR"
    constants = {
        "w": words(4, 3, 1, 1).astype(np.float32),
        "ws": np.float32(1),
        "wz": np.float32(0),
        "n": np.float32(8),
    }
    nodes = [
        node("Quant", ["w", "ws", "wz", "n"], ["q"], domain=domain, rounding_mode=mode),
        node("Conv", ["x", "q"], ["y"]),
    ]
    with pytest.raises(InputError, match=named):
        networks.build(saved(tmp_path / "n.onnx", nodes, constants | changed, [domain]))
