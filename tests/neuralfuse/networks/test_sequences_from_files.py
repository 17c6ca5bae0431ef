"""Do recurrent and attention networks from files compute what their runtime does, with their weights as words?"""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from neuralfuse import data, networks
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import weight_parameters
from neuralfuse.study.files import Study
from neuralfuse.training.network import NetworkSettings, train_network
from sram.errors import InputError
from tests.conftest import swept

STEPS, PIXELS, HIDDEN = 16, 16, 6


class Rows(nn.Module):
    """Reads rows of pixels; answers from the mean of what every step makes."""

    def __init__(self, kind, **options):
        super().__init__()
        self.cell = getattr(nn, kind)(PIXELS, HIDDEN, **options)
        self.head = nn.Linear(HIDDEN * (1 + self.cell.bidirectional), 10)

    def forward(self, x):
        return self.head(self.cell(x.transpose(0, 1))[0].mean(0))


class LastState(Rows):
    def forward(self, x):
        state = self.cell(x.transpose(0, 1))[1]
        return self.head((state[0] if isinstance(state, tuple) else state)[-1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(PIXELS, 2, batch_first=True), nn.Linear(PIXELS, 10)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(PIXELS, 3 * PIXELS), nn.Linear(PIXELS, 10)

    def forward(self, x):
        q, k, v = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(seen.transpose(1, 2).flatten(2).mean(1))


MADE = {
    "lstm": lambda: Rows("LSTM"),
    "lstm of two directions": lambda: Rows("LSTM", bidirectional=True),
    "lstm of two layers": lambda: Rows("LSTM", num_layers=2),
    "lstm without biases": lambda: Rows("LSTM", bias=False),
    "last state of an lstm": lambda: LastState("LSTM"),
    "gru": lambda: Rows("GRU"),
    "last state of a gru": lambda: LastState("GRU"),
    "rnn": lambda: Rows("RNN"),
    "rnn of relu": lambda: Rows("RNN", nonlinearity="relu"),
    "attention": Attention,
    "causal": Causal,
    "encoder": lambda: nn.Sequential(
        nn.TransformerEncoderLayer(PIXELS, 2, 32, batch_first=True), nn.Flatten(), nn.Linear(STEPS * PIXELS, 10)
    ),
}


def exported(path, network, free=True, batch=3):
    torch.manual_seed(1)
    x = torch.randn(batch, STEPS, PIXELS)
    if path.suffix == ".pt2":
        sizes = ({0: torch.export.Dim("b", min=1, max=4096)},) if free else None
        torch.export.save(torch.export.export(network, (x,), dynamic_shapes=sizes), path)
    else:
        pytest.importorskip("onnxruntime")
        axes = {"x": {0: "b"}} if free else None
        torch.onnx.export(network, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return str(path)


@pytest.mark.filterwarnings("ignore")  # the exporter's own, on what it traces
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("kind", MADE)
def test_a_sequence_network_from_a_file_computes_the_same_and_stores_its_weights(tmp_path, kind, suffix, free):
    torch.manual_seed(0)
    network = MADE[kind]().eval()
    found = networks.build(exported(tmp_path / f"n{suffix}", network, free))
    x = torch.randn(5, STEPS, PIXELS)
    with torch.no_grad():
        want, got = network(x), copy.deepcopy(found)(x)
    assert torch.allclose(got, want, atol=2e-6)
    stored = {tuple(sorted(value.flatten().tolist())) for value in weight_parameters(network).values()}
    assert {tuple(sorted(value.flatten().tolist())) for value in weight_parameters(found).values()} == stored
    faulty = FaultyNetwork(found)
    before = faulty(x)
    for layer in faulty.layer_table:  # each is what the network reads
        bits, flips = np.full(layer.size, 6, np.uint8), np.full(layer.size, 2, np.uint8)
        faulty.set_faults(layer.offset + np.arange(layer.size), bits, flips)
        assert not torch.allclose(faulty(x), before, atol=1e-4), layer.name


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def one_node(path, kind, inputs=(), constants=None, directions=1, **attributes):
    """A node with initial states that are given, and its Y alone."""
    random = np.random.default_rng(2)
    names = {
        "w": (directions, GATES[kind] * HIDDEN, PIXELS),
        "r": (directions, GATES[kind] * HIDDEN, HIDDEN),
        "b": (directions, 2 * GATES[kind] * HIDDEN),
        "h": (directions, 3, HIDDEN),
        "c": (directions, 3, HIDDEN),
        "p": (directions, 3 * HIDDEN),
    }
    stored = {name: random.standard_normal(shape).astype(np.float32) / 2 for name, shape in names.items()}
    stored["l"] = np.full(3, STEPS, np.int32)
    node = helper.make_node(kind, ["x", "w", "r", *(inputs or ("b", "", "h"))], ["y"], hidden_size=HIDDEN, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (STEPS, 3, PIXELS))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (stored | (constants or {})).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_directions_and_initial_states_are_the_runtimes(tmp_path, kind, direction):
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    inputs = ("b", "", "h", "c") if kind == "LSTM" else ("b", "", "h")
    directions = 2 if direction == "bidirectional" else 1
    path = one_node(tmp_path / "n.onnx", kind, inputs, directions=directions, direction=direction, **attributes)
    x = np.random.default_rng(3).standard_normal((STEPS, 3, PIXELS)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.allclose(networks.build(path).network(torch.from_numpy(x)).numpy(), want, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "named", "inputs", "attributes"),
    [
        ("LSTM", "LSTM: sequence_lens", ("b", "l"), {}),
        ("LSTM", "LSTM: P", ("b", "", "h", "c", "p"), {}),
        ("LSTM", "LSTM: layout", (), {"layout": 1}),
        ("LSTM", "LSTM: clip", (), {"clip": 3.0}),
        ("LSTM", "LSTM: input_forget", (), {"input_forget": 1}),
        ("LSTM", "LSTM: activations", (), {"activations": ["Sigmoid", "Relu", "Tanh"]}),
        ("GRU", "GRU: linear_before_reset", (), {}),
        ("RNN", "RNN: direction", (), {"direction": "sideways"}),
    ],
)
def test_what_torchs_layers_lack_is_refused_by_name(tmp_path, kind, named, inputs, attributes):
    with pytest.raises(InputError, match=named):
        networks.build(one_node(tmp_path / "n.onnx", kind, inputs, **attributes))


def test_an_lstm_from_onnx_is_swept(tmp_path):
    torch.manual_seed(0)
    network = LastState("LSTM")
    settings = NetworkSettings(epochs=3, batch=64, optimizer="adamw", learning_rate=0.02)
    score = train_network(network, data.load("digits-rows"), settings)
    study = Study(
        "rows",
        dataset={"name": "digits-rows"},
        networks=[{"name": exported(tmp_path / "rows.onnx", network.eval())}],
        sram={"structures": ["iid"], "schedule": "resident"},
        cell_fault_rates=[0, 0.05],
        chips={"evaluation": 2},
    )
    swept(tmp_path / "out", study)
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert score > 0.3
    assert np.allclose(rows.clean_accuracy, score, rtol=0, atol=0.005)  # the words of the network that was exported
    faulty = rows.cell_fault_rate > 0.01
    assert faulty.sum() == 2
    assert (rows.flip_rate[faulty] > 0.01).all()
    assert (rows.flip_rate[~faulty] == 0).all()
