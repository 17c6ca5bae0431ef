"""Do single recurrent nodes of ONNX, in both directions and from given states, answer as ONNX Runtime does?"""

import numpy as np
import pytest
import torch

from neuralfuse import networks

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

PIXELS, HIDDEN, STEPS = 6, 5, 4
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
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("LSTM", {}), ("RNN", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {"linear_before_reset": 0})],
)
def test_directions_and_initial_states_are_the_runtimes(tmp_path, kind, attributes, direction):
    inputs = ("b", "", "h", "c") if kind == "LSTM" else ("b", "", "h")
    directions = 2 if direction == "bidirectional" else 1
    path = one_node(tmp_path / "n.onnx", kind, inputs, directions=directions, direction=direction, **attributes)
    x = np.random.default_rng(3).standard_normal((STEPS, 3, PIXELS)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.allclose(networks.build(path).network(torch.from_numpy(x)).numpy(), want, atol=2e-6)
