"""Does an ONNX file give the workload of the network it came from?"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse import networks
from neuralfuse.transforms import generators
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.readers.read import Integers, load, trace
from sram.errors import InputError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def export(module: nn.Module, shape: tuple[int, ...], path, **options):
    """Torch's own exporter writes the file: the reader is checked against another program's idea of the network."""
    torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), str(path), dynamo=False, **options)
    return path


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv1d(4, 6, 3, padding=1, stride=2, groups=2, bias=False)
        self.up = nn.ConvTranspose1d(6, 4, 4, 2, 1)
        self.table = nn.Parameter(torch.ones(8, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        y = self.norm(self.up(self.one(x)) @ self.table)
        return F.softmax(y @ y.transpose(1, 2), -1) @ y


CASES = {
    "resnet8": (lambda: networks.build("resnet8"), (3, 32, 32)),
    "UNetS": (lambda: generators.build("UNetS"), (3, 32, 32)),
    "ConvS": (lambda: generators.build("ConvS"), (3, 32, 32)),
    "odd": (Odd, (4, 8)),
    "affine": (lambda: generators.NeuralFuse(generators.build("affine")), (3, 32, 32)),
    "dilated depth-wise": (lambda: nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=8), (8, 9, 7)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_array_layers_equal_those_of_the_traced_module(tmp_path, name):
    make, shape = CASES[name]
    module = make()
    path = export(module, shape, tmp_path / "net.onnx", opset_version=17, keep_initializers_as_inputs=False)
    found, expected = load(path), trace(module, shape)
    assert found.unknown == ()
    fields = """kind batch groups m k n in_h in_w in_channels out_h out_w out_channels kernel_h stride_h dilation_w
        padding_top padding_right transposed weights k_major""".split()
    assert [[getattr(layer, f) for f in fields] for layer in found.array_layers] == [
        [getattr(layer, f) for f in fields] for layer in expected.array_layers
    ]
    constants = [[layer.constants for layer in side.layers if layer.constants] for side in (found, expected)]
    assert constants[0] == constants[1]
    for layers in (
        found.layers,
        expected.layers,
    ):  # the way of the data: producers come first, something reads the input
        assert any(-1 in layer.sources for layer in layers)
        assert all(source < i for i, layer in enumerate(layers) for source in layer.sources)


@pytest.mark.filterwarnings("ignore")
def test_names_are_the_module_trees(tmp_path):
    network = networks.build("resnet8")
    # without constant folding BatchNorm stays, and with it the parameters' names
    path = export(
        network, (3, 32, 32), tmp_path / "n.onnx", training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False
    )
    assert [layer.name for layer in load(path).array_layers] == [
        layer.name for layer in trace(network, (3, 32, 32)).array_layers
    ]


def model(nodes, inputs, weights=(), path=None):
    """A model of given nodes; inputs are (name, shape), weights (name, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(tmp_path, mode):
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=mode, strides=[2, 2], kernel_shape=[4, 3])
    (layer,) = load(model([node], [("x", [1, 3, 9, 9])], [("w", [5, 3, 4, 3])], tmp_path / "a.onnx")).layers
    padding = (layer.padding_top, layer.padding_left, layer.padding_bottom, layer.padding_right)
    expected = {"SAME_UPPER": ((1, 1, 2, 1), 5), "SAME_LOWER": ((2, 1, 1, 1), 5), "VALID": ((0, 0, 0, 0), 3)}
    assert (padding, layer.out_h) == expected[mode]


def test_gemm_transposed_and_with_bias(tmp_path):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transA=1, transB=1)
    path = model([node], [("x", [8, 2])], [("w", [5, 8]), ("b", [5])], tmp_path / "g.onnx")
    (layer,) = load(path).layers
    assert (layer.m, layer.k, layer.n, layer.bias, layer.weight_name) == (2, 8, 5, True, "w")


def test_a_quantised_weight_is_its_initializer(tmp_path):
    nodes = [helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]), helper.make_node("MatMul", ["x", "wt"], ["y"])]
    (layer,) = load(model(nodes, [("x", [1, 8])], [("w", [5, 8])], tmp_path / "q.onnx")).layers
    assert (layer.kind, layer.weight_name, layer.weights) == ("linear", "w", 40)


def test_unknown_operators_are_listed(tmp_path):
    nodes = [helper.make_node("NonZero", ["x"], ["z"], name="nz"), helper.make_node("Relu", ["x"], ["y"])]
    workload = load(model(nodes, [("x", [1, 8])], (), tmp_path / "u.onnx"))
    assert workload.unknown == ("nz: NonZero",)
    assert [layer.kind for layer in workload.layers] == ["activation"]


def test_free_axes(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = model(nodes, [("x", ["batch", 3, 6, 6])], (), tmp_path / "f.onnx")
    assert load(path).layers[0].operations == 108
    path = model(nodes, [("x", ["batch", 3, "h", "w"])], (), tmp_path / "g.onnx")
    assert load(path, (3, 4, 5), batch=2).layers[0].operations == 60
    with pytest.raises(InputError, match="axis 2 = 'h'"):
        load(path)
    with pytest.raises(InputError, match="3 numbers"):
        load(path, (4, 5))


def test_what_is_not_onnx_is_an_input_error(tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(InputError, match="missing"):
        load(path)
    path.write_bytes(b"not a model at all")
    with pytest.raises(InputError, match="valid ONNX"):
        load(path)


def made(nodes, inputs, outputs, constants, path):
    """A model of these nodes, and the file it is in."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", tensors, results, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def test_products_broadcast_from_both_sides(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "y"], ["z"])]
    inputs = {"x": [1, 2, 1, 4, 5], "y": [1, 1, 3, 5, 6]}
    assert load(made(nodes, inputs, ["z"], {}, tmp_path / "a.onnx")).macs == 2 * 3 * 4 * 5 * 6
    constant = {"y": np.ones((3, 5, 6), np.float32)}
    assert load(made(nodes, {"x": inputs["x"]}, ["z"], constant, tmp_path / "b.onnx")).macs == 2 * 3 * 4 * 5 * 6


def test_a_transposed_convolution_may_choose_its_output(tmp_path):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[16, 16])
    weights = {"w": np.ones((3, 4, 4, 4), np.float32)}
    (layer,) = load(made([node], {"x": [1, 3, 8, 8]}, ["y"], weights, tmp_path / "t.onnx")).layers
    assert (layer.out_h, layer.out_w, layer.ofmap_elements) == (16, 16, 1024)


def test_parts_of_a_split_weight_are_weights_of_their_own_and_a_turned_one_is_the_same(tmp_path):
    nodes = [
        helper.make_node("Split", ["w"], ["left", "right"], axis=1),
        helper.make_node("Transpose", ["v"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "left"], ["a"]),
        helper.make_node("MatMul", ["a", "right"], ["b"]),
        helper.make_node("MatMul", ["b", "turned"], ["c"]),
        helper.make_node("Gemm", ["c", "v"], ["d"], transB=1),
        helper.make_node("Gemm", ["d", "v"], ["e"]),
    ]
    constants = {"w": np.ones((8, 16), np.float32), "v": np.ones((8, 8), np.float32)}
    workload = load(made(nodes, {"x": [1, 8]}, ["e"], constants, tmp_path / "s.onnx"))
    assert [layer.weight_name for layer in workload.layers] == ["left", "right", "v", "v", "v"]
    assert [layer.k_major for layer in workload.layers] == [True, True, False, False, True]
    assert workload.weights == 64 + 64 + 64


@pytest.mark.parametrize(
    ("node", "stored", "complaint"),
    [
        (("Conv", ["x", "w"], ["y"]), (4, 5, 3, 3), "an input .* weights"),
        (("Conv", ["x", "w"], ["y"], dict(kernel_shape=[5, 5])), (4, 3, 3, 3), "kernel"),
        (("Conv", ["x", "w"], ["y"], dict(auto_pad="SAME")), (4, 3, 3, 3), "auto_pad"),
        (("Conv", ["x", "w"], ["y"], dict(group=0)), (4, 3, 3, 3), "an input .* weights"),
    ],
)
def test_a_node_that_contradicts_itself_is_refused(tmp_path, node, stored, complaint):
    made = helper.make_node(*node[:3], **dict(*node[3:]))
    path = model([made], [("x", [1, 3, 8, 8])], [("w", stored)], tmp_path / "c.onnx")
    with pytest.raises(InputError, match=complaint):
        load(path)


def test_a_tensor_made_twice_and_an_opset_to_come_are_refused(tmp_path):
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    with pytest.raises(InputError, match="tensor = 'y'"):
        load(model(twice, [("x", [1, 8])], (), tmp_path / "twice.onnx"))
    path = model(twice[:1], [("x", [1, 8])], (), tmp_path / "future.onnx")
    changed = onnx.load(path)
    changed.opset_import[0].version = 999
    onnx.save(changed, path)
    with pytest.raises(InputError, match="opset = 999"):
        load(path)


@pytest.mark.parametrize(("rows", "attributes"), [(31, {}), (32, {"direction": "sideways"}), (32, {"hidden_size": 7})])
def test_recurrent_sizes_that_contradict_each_other_are_not_counted(tmp_path, rows, attributes):
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], **({"hidden_size": 8} | attributes))
    stored = [("w", (1, rows, 4)), ("r", (1, 32, 8))]
    (entry,) = load(model([node], [("x", [5, 1, 4])], stored, tmp_path / "l.onnx")).unknown
    assert "not those of the weights" in entry


def test_nodes_are_counted_with_functions_written_out():
    """Three nodes, of which one calls a function of two, one has a body of one, and the last calls a circle."""
    from simulator.readers.onnx_graph import _nodes

    one = helper.make_node("Relu", ["x"], ["y"])
    called = helper.make_node("f", ["x"], ["y"], domain="mine")
    body = helper.make_graph([one], "body", [], [])
    looped = helper.make_node("Loop", [], ["z"], body=body)
    functions = {("mine", "f"): [one, one]}
    assert _nodes([one], {}, {}) == 1
    assert _nodes([one, called, looped], functions, {}) == 1 + 3 + 2
    assert _nodes([called], {("mine", "f"): [called, one]}, {}) == 1 + 2  # a circle is not followed


def test_a_look_up_reads_rows_of_a_stored_table_whichever_way_it_is_read(tmp_path):
    """Five tokens read five rows of six from the weight buffer; DRAM gives these rows, not the table."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.bag, self.out = nn.Embedding(19, 6), nn.EmbeddingBag(19, 6), nn.Linear(6, 3)

        def forward(self, tokens):
            return self.out(self.table(tokens)[:, -1] + self.bag(tokens))

    net = trace(Tokens(), [Integers((5,))])
    looked = {layer.name: layer for layer in net.layers if layer.kind == "move"}
    assert list(looked) == ["table", "bag"]
    for layer in looked.values():
        assert (layer.weight_name, layer.weights) == (f"{layer.name}.weight", 19 * 6)
        assert (layer.constants, layer.elements_read, layer.operations) == (5 * 6, 5, 5 * 6)
    assert net.weights == 2 * 19 * 6 + 18
    assert not net.unknown
    counts = simulate(net, accelerator("paper")).layers
    for name in ("filter_sram_reads", "filter_dram_read_bytes"):
        assert [int(counts[name][net.layers.index(layer)]) for layer in looked.values()] == [30, 30]
    two = simulate(net.with_batch(2), accelerator("paper")).layers
    assert int(two["filter_dram_read_bytes"][0]) == 60  # each sample has rows of its own
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "ids"], ["rows"]),
        helper.make_node("Gather", ["w", "ids"], ["columns"], axis=1),
    ]
    found = load(made(nodes, {"x": [1, 5]}, ["rows"], {"w": np.ones((19, 6), np.float32)}, tmp_path / "a.onnx"))
    by_rows, by_columns = (layer for layer in found.layers if layer.kind == "move")
    assert (by_rows.weight_name, by_rows.weights, by_rows.constants) == ("w", 19 * 6, 5 * 6)
    assert (by_columns.weight_name, by_columns.weights) == (None, 0)
