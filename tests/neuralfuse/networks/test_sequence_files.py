"""Do recurrent and attention networks from files compute what torch does, with their weights as stored words?"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse import networks
from neuralfuse.quantized.faulty import FaultyNetwork
from simulator.readers.read import trace
from sram.errors import InputError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


class Mean(nn.Module):
    """What a recurrent layer says on average."""

    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(5, 6, batch_first=True, **options)
        self.head = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0].mean(1))


class Heads(nn.Module):
    """Two heads of torch's attention layer."""

    def __init__(self, weights):
        super().__init__()
        self.attention, self.head, self.weights = (
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
            weights,
        )

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=self.weights)[0].mean(1))


class Causal(nn.Module):
    """Attention as a function, to what came before."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)[:, -1])


class Letters(nn.Module):
    """Whole numbers in, a class a position out."""

    def __init__(self):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(11, 8), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 11)

    def forward(self, x):
        return self.head(self.layer(self.table(x))[0])


NETWORKS = {
    "lstm": (lambda: Mean(nn.LSTM), 5),
    "both ways, twice": (lambda: Mean(nn.LSTM, num_layers=2, bidirectional=True), 5),
    "gru": (lambda: Mean(nn.GRU), 5),
    "rnn": (lambda: Mean(nn.RNN), 5),
    "relu": (lambda: Mean(nn.RNN, nonlinearity="relu"), 5),
    "no bias": (lambda: Mean(nn.GRU, bias=False), 5),
    "heads": (lambda: Heads(False), 8),
    "heads and their weights": (lambda: Heads(True), 8),
    "causal": (Causal, 8),
    "encoder": (lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)), 8),
    "letters": (Letters, 0),
}


def inputs(features):
    random = torch.Generator().manual_seed(0)
    if features:
        return torch.randn(4, 7, features, generator=random)
    return torch.randint(0, 11, (4, 7), generator=random)


@pytest.mark.filterwarnings("ignore")  # of torch's exporters
@pytest.mark.parametrize("batch", ["free", "fixed"])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize("case", NETWORKS)
def test_a_file_computes_what_the_module_does_and_takes_its_faults(tmp_path, case, kind, batch):
    make, features = NETWORKS[case]
    torch.manual_seed(0)
    network, x, path = make().eval(), inputs(features), str(tmp_path / f"n.{kind}")
    free = batch == "free"
    if kind == "onnx":
        axes = {"x": {0: "n"}} if free else None
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    else:
        shapes = ({0: torch.export.Dim.DYNAMIC},) if free else None
        torch.export.save(torch.export.export(network, (x,), dynamic_shapes=shapes), path)
    with torch.no_grad():
        want = network(x)
        read = networks.build(path)
        assert torch.allclose(read(x), want, atol=1e-6)
        assert torch.allclose(read(x[:3]), want[:3], atol=1e-6)
    module, file = FaultyNetwork(network), FaultyNetwork(read)
    assert file.words.size == module.words.size  # each weight of the module is stored, and nothing else
    clean = file(x)
    for layer in file.layer_table:  # bit 6 of a tensor's words: each of them is in use
        words = np.arange(layer.offset, layer.offset + layer.size)
        six, flip = np.full(len(words), 6, np.uint8), np.full(len(words), 2, np.uint8)
        file.set_faults(words, six, flip)
        assert not torch.allclose(file(x), clean), layer.name
    file.restore()
    assert torch.equal(file(x), clean)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["both ways, twice", "gru", "heads"])
def test_layers_on_the_array_are_those_of_the_module(tmp_path, case):
    """Placements name the stored weights; products are as many."""
    make, features = NETWORKS[case]
    network, path = make().eval(), str(tmp_path / "n.onnx")
    torch.onnx.export(network, (inputs(features),), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    read = networks.build(path)
    found, expected = trace(read, (7, features), name="file"), trace(network, (7, features), name="module")
    assert not found.unknown
    assert found.macs == expected.macs
    assert {name for name, _, _ in found.tensors()} == set(read.stored_weights)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["lstm", "encoder"])
def test_an_inference_of_a_file_of_64_is_one_of_them(tmp_path, case):
    """What a layer of the fixed batch costs is counted for a sample."""
    make, features = NETWORKS[case]
    network, path = make().eval(), str(tmp_path / "n.pt2")
    torch.export.save(torch.export.export(network, (torch.zeros(64, 7, features),)), path)
    read = networks.build(path)
    assert trace(read, (7, features), name="n").macs == trace(network, (7, features), name="n").macs
    assert trace(read, (7, features), name="n").batch == 1


def lstm(path, kind="LSTM", gates=4, more=(), **attributes):
    random = np.random.default_rng(0)
    stored = {"w": (1, gates * 4, 3), "r": (1, gates * 4, 4)}
    constants = [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n) for n, s in stored.items()]
    constants.append(numpy_helper.from_array(np.array([5, 5], np.int32), "lengths"))
    node = helper.make_node(kind, ["x", "w", "r", *more], ["y"], hidden_size=4, **attributes)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (5, 2, 3)), ("y", None))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"clip": 3.0}, "LSTM of opset 17 = 'clip'"),
        ({"input_forget": 1}, "input_forget"),
        ({"layout": 1}, "layout"),
        ({"activations": ["Tanh", "Tanh", "Tanh"]}, "LSTM: activations"),
        ({"more": ("", "lengths")}, "LSTM: sequence_lens"),
    ],
)
def test_what_a_recurrent_layer_does_not_read_is_refused_by_name(tmp_path, given, named):
    with pytest.raises(InputError, match=named):
        networks.build(lstm(tmp_path / "n.onnx", **given))


@pytest.mark.parametrize("given", [{}, {"direction": "reverse"}, {"linear_before_reset": 1}])
def test_a_gru_of_either_kind_is_that_of_onnxruntime(tmp_path, given):
    path = lstm(tmp_path / "n.onnx", "GRU", 3, **given)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    assert np.allclose(networks.build(path).network(torch.from_numpy(x)), want, atol=1e-6)
