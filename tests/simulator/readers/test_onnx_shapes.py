"""Are the sizes of tensors those that onnxruntime finds, whatever the file claims, and unknown where they are?"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from simulator.readers.read import load, trace
from sram.errors import InputError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, nodes, inputs, constants=(), opset=17, known=(), output=None):
    """A model of these nodes; `constants` are (name, array), the output is y."""
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", inputs, [tensor("y", output)], stored, value_info=list(known))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


WEIGHT = {"w": np.zeros((8, 3, 3, 3), np.float32)}
CONV = [helper.make_node("Conv", ["x", "w"], ["y"], name="c")]


@pytest.mark.parametrize("batch", [-1, "n", None])
def test_an_axis_without_a_size_is_one_sample(tmp_path, batch):
    path = saved(tmp_path / "a.onnx", CONV, [tensor("x", [batch, 3, 32, 32])], WEIGHT)
    assert load(path).macs == 30 * 30 * 8 * 27


def test_an_input_without_axes_is_one_sample(tmp_path):
    found = load(saved(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], [tensor("x", [])]))
    assert (found.batch, [layer.operations for layer in found.layers]) == (1, [1])


@pytest.mark.parametrize("axis", [-1, "h"])
def test_another_axis_without_a_size_is_asked_for(tmp_path, axis):
    path = saved(tmp_path / "a.onnx", CONV, [tensor("x", [1, 3, axis, 32])], WEIGHT)
    with pytest.raises(InputError, match="axis 2"):
        load(path)
    assert load(path, (3, 16, 32)).macs == 14 * 30 * 8 * 27


def test_what_a_file_claims_of_inner_tensors_is_inferred_anew(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    stale = [tensor("c", [1, 8, 32, 32])]
    path = saved(tmp_path / "a.onnx", nodes, [tensor("x", [1, 3, "h", "w"])], WEIGHT, 17, stale, [1, 8, 32, 32])
    assert [layer.operations for layer in load(path, (3, 64, 64)).layers] == [0, 8 * 64 * 64]


def test_a_size_that_the_file_fixes_is_not_replaced(tmp_path):
    path = saved(tmp_path / "a.onnx", CONV, [tensor("x", [4, 3, 32, 32])], WEIGHT)
    with pytest.raises(InputError, match="that of the file"):
        load(path, (3, 64, 64))
    with pytest.raises(InputError, match="3 numbers"):
        load(path, (3, 64))
    assert load(path, (3, 32, 32)) == load(path)
    assert load(path).batch == 4


def test_axes_of_one_name_have_one_size_and_inputs_take_a_shape_each(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["m"]),
        helper.make_node("Mul", ["e", "m"], ["em"]),
        helper.make_node("MatMul", ["em", "w"], ["y"]),
    ]
    constants = {"table": np.zeros((9, 32), np.float32), "w": np.zeros((32, 64), np.float32), "axis": np.array([2])}
    for second, given in (("seq", (12,)), ("other", ((12,), (12,)))):
        inputs = [tensor("ids", ["b", "seq"], TensorProto.INT64), tensor("mask", ["b", second])]
        path = saved(tmp_path / "two.onnx", nodes, inputs, constants)
        assert load(path, given).macs == 12 * 32 * 64
    with pytest.raises(InputError, match="input mask, axis 1"):
        load(path, (12,))
    with pytest.raises(InputError, match="at most 2"):
        load(path, ((12,), (12,), (12,)))


def test_an_empty_axis_is_empty_and_no_shape_is_no_scalar(tmp_path):
    nodes = [helper.make_node("Concat", ["past", "x"], ["k"], axis=1), helper.make_node("MatMul", ["k", "w"], ["y"])]
    inputs = [tensor("x", [1, 4, 32]), tensor("past", [1, 0, 32])]
    w = {"w": np.zeros((32, 64), np.float32)}
    assert load(saved(tmp_path / "a.onnx", nodes, inputs, w)).macs == 4 * 32 * 64
    only_past = [helper.make_node("MatMul", ["past", "w"], ["y"], name="empty")]
    (entry,) = load(saved(tmp_path / "e.onnx", only_past, inputs[1:], w)).unknown
    assert entry.startswith("empty: MatMul (no shape for 'past'")
    path = saved(tmp_path / "b.onnx", CONV, [tensor("x", None)], WEIGHT)
    with pytest.raises(InputError, match="no shape"):
        load(path)
    assert load(path, (3, 16, 16)).macs == 14 * 14 * 8 * 27


def after_if(path, tail, stored=()):
    """Behind branches of different ranks nothing is known of z."""
    yes = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "yes", [], [tensor("t", None)])
    no = helper.make_graph([helper.make_node("Flatten", ["x"], ["e"])], "no", [], [tensor("e", None)])
    nodes = [helper.make_node("If", ["c"], ["z"], then_branch=yes, else_branch=no, name="if"), *tail]
    return saved(path, nodes, [tensor("x", [1, 3, 8, 8]), tensor("c", [1], TensorProto.BOOL)], stored)


@pytest.mark.parametrize("op", ["Relu", "Softmax", "GlobalAveragePool", "Conv", "MatMul", "Gemm", "Gather", "Resize"])
def test_behind_a_tensor_without_shape_nothing_is_counted_and_everything_is_said(tmp_path, op):
    other = {"Conv": ["w"], "MatMul": ["m"], "Gemm": ["m"], "Gather": ["i"], "Resize": ["", "s"]}.get(op, [])
    constants = WEIGHT | {"m": np.zeros((8, 3), np.float32), "i": np.array([0]), "s": np.ones(4, np.float32)}
    tail = [helper.make_node(op, ["z", *other], ["y"], name="tail")]
    workload = load(after_if(tmp_path / "a.onnx", tail, constants))
    assert workload.layers == ()
    assert [entry.split(" (")[0] for entry in workload.unknown] == ["if: If", f"tail: {op}"]


def test_a_body_that_reads_an_activation_is_no_constant(tmp_path):
    """Its condition is constant, but its branches read x."""
    yes = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "yes", [], [tensor("t", None)])
    no = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "no", [], [tensor("e", None)])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=no, name="if")]
    path = saved(tmp_path / "a.onnx", nodes, [tensor("x", [1, 4])], {"c": np.array([True])})
    assert load(path).unknown == ("if: If",)


@pytest.mark.parametrize("inputs", [["x"], ["x", "nowhere"]])
def test_a_node_without_its_inputs_is_said(tmp_path, inputs):
    nodes = [helper.make_node("Conv", inputs, ["y"], name="bad")]
    (entry,) = load(saved(tmp_path / "a.onnx", nodes, [tensor("x", [1, 3, 8, 8])])).unknown
    assert entry.startswith("bad: Conv (")


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], training_mode=1, name="n"),
        helper.make_node("Relu", ["x"], ["y"], slope=0.5, name="n"),
        helper.make_node("Conv", ["x", "v"], ["y"], name="n"),
        helper.make_node("LSTM", ["q", "lw", "lr", "", "", "", "", "p"], ["y"], hidden_size=2, name="n"),
        helper.make_node("LSTM", ["q", "lw", "lr"], ["y"], hidden_size=2, clip=0.5, name="n"),
    ],
    ids=["training", "unknown attribute", "three axes", "peepholes", "clip"],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, node):
    zeros = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    constants = {"s": zeros(3), "v": zeros(2, 3, 1, 1, 1), "lw": zeros(1, 8, 4), "lr": zeros(1, 8, 2), "p": zeros(1, 6)}
    inputs = [tensor("x", [1, 3, 4, 4, 4]), tensor("q", [5, 1, 4])]
    workload = load(saved(tmp_path / "a.onnx", [node], inputs, constants))
    assert workload.layers == ()
    assert workload.unknown[0].startswith(f"n: {node.op_type} ")


class Windows(nn.Module):
    """Windows of 4 x 4, padded to size: exporters compute it by Mod, Where, Range, Expand and the like."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 6)

    def forward(self, x):
        b, c, h, w = x.shape
        x = F.pad(x, (0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
        h, w = x.shape[2:]
        x = x.reshape(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        y = self.proj(x)
        y = F.interpolate((y @ y.transpose(1, 2))[:, None], scale_factor=2.0)
        steps = torch.arange(y.shape[-1], device=x.device).expand(y.shape[0], -1)
        return (y + steps[:, None, None])[:, :, -1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("size", [(24, 40), (9, 15)])
def test_sizes_that_an_exporter_computes(tmp_path, opset, size):
    axes = {"x": {0: "b", 2: "h", 3: "w"}}
    path, names = tmp_path / "w.onnx", dict(input_names=["x"], output_names=["y"])
    example = torch.zeros(1, 3, 8, 8)
    torch.onnx.export(Windows(), (example,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    workload = load(path, (3, *size))
    windows = -(-size[0] // 4) * -(-size[1] // 4)
    assert workload.unknown == ()
    assert workload.macs == windows * (16 * 3 * 6 + 16 * 6 * 16) == trace(Windows(), (3, *size)).macs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("both", "first"), [(False, True), (True, True), (True, False)])
def test_recurrent_layers_are_counted_as_torch_counts_them(tmp_path, kind, both, first):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = getattr(nn, kind)(5, 6, 2, bidirectional=both, batch_first=first)
            self.fc = nn.Linear(12 if both else 6, 3)

        def forward(self, x):
            return self.fc(self.r(x)[0])

    example = torch.zeros(2, 7, 5)
    torch.onnx.export(Recurrent().eval(), (example,), tmp_path / "r.onnx", dynamo=False, opset_version=17)
    found, expected = load(tmp_path / "r.onnx"), trace(Recurrent(), [example])
    assert found.unknown == ()
    assert (found.macs, found.weights) == (expected.macs, expected.weights)
    kinds = lambda workload, kind: sum(layer.kind == kind for layer in workload.layers)  # noqa: E731
    for kind in ("linear", "activation"):
        assert kinds(found, kind) == kinds(expected, kind)
    assert all(source < i for i, layer in enumerate(found.layers) for source in layer.sources)
    assert -1 in found.layers[0].sources
    assert found.outputs == (len(found.layers) - 1,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sizes_of_onnx_own_models_are_those_of_their_results(tmp_path):
    """ONNX's own models, an operator each: a size that is known is that of the result; whatever else is a message."""
    from onnx.backend.test.loader import load_model_tests

    from simulator.readers import onnx_shapes

    checked = 0
    for case in load_model_tests(kind="node"):
        path = tmp_path / "case.onnx"
        onnx.save(case.model, path)
        try:
            load(path)
            onnx_shapes.bind_inputs(case.model, path, ())
            shapes = onnx_shapes.infer(case.model, trust=False)
        except InputError:
            continue
        for value, result in zip(case.model.graph.output, case.data_sets[0][1], strict=True):
            if value.name in shapes:
                dims = tuple(result.dims) if isinstance(result, TensorProto) else np.shape(result)
                assert shapes[value.name] == dims, case.name
                checked += 1
    assert checked > 1000


@pytest.mark.parametrize(("entries", "unknown"), [(4096, 0), (4097, 1)])
def test_sizes_are_read_from_small_tables_and_not_from_weights(tmp_path, entries, unknown):
    """64 numbers take the shape in a table's last two places: 4 x 16, times 16 x 3."""
    nodes = [
        helper.make_node("Gather", ["table", "last"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    table = np.append(np.zeros(entries - 2, np.int64), [4, 16])
    constants = {"table": table, "last": np.array([-2, -1]), "w": np.zeros((16, 3), np.float32)}
    found = load(saved(tmp_path / "a.onnx", nodes, [tensor("x", [1, 64])], constants))
    assert (found.macs, len(found.unknown)) == (0 if unknown else 4 * 16 * 3, unknown)
