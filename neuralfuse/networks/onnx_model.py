"""ONNX models as torch modules: each node becomes a torch function, each initialiser a parameter of the same name.

Covers what image classifiers are exported to; another operator is an InputError that names it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.networks.model_file import ModelFile
from sram.errors import InputError

if TYPE_CHECKING:
    import onnx

Operator = Callable[[list[Tensor], dict[str, Any]], Tensor]


def padded(x: Tensor, a: dict[str, Any], value: float) -> Tensor:
    """ONNX pads [begin of every axis, end of every axis]; torch wants pairs from the last axis on."""
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise InputError("ONNX", "auto_pad", a["auto_pad"], "explicit pads")
    pads = a.get("pads", [])
    half = len(pads) // 2
    pairs = [pads[axis + side * half] for axis in reversed(range(half)) for side in (0, 1)]
    return F.pad(x, pairs, value=value) if any(pairs) else x


def conv(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    run = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[i[1].dim()]
    n = i[1].dim() - 2
    bias = i[2] if len(i) > 2 else None
    return run(
        padded(i[0], a, 0.0), i[1], bias, a.get("strides", [1] * n), 0, a.get("dilations", [1] * n), a.get("group", 1)
    )


def conv_transpose(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    n = i[1].dim() - 2
    pads, extra = a.get("pads", [0] * 2 * n), a.get("output_padding", [0] * n)
    if pads[:n] != pads[n:] or n != 2:
        raise InputError("ONNX", "ConvTranspose", a, "two axes, the same padding on both sides")
    bias = i[2] if len(i) > 2 else None
    return F.conv_transpose2d(
        i[0], i[1], bias, a.get("strides", [1] * n), pads[:n], extra, a.get("group", 1), a.get("dilations", [1] * n)
    )


def gemm(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    left = i[0].T if a.get("transA") else i[0]
    right = i[1].T if a.get("transB") else i[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * i[2] if len(i) > 2 else product


def pool(x: Tensor, a: dict[str, Any], mean: bool) -> Tensor:
    if a.get("ceil_mode") or len(a["kernel_shape"]) != 2:
        raise InputError("ONNX", "pooling", a, "two axes, ceil_mode 0")
    stride = a.get("strides", [1, 1])
    if not mean:
        dilations = a.get("dilations", [1, 1])
        return F.max_pool2d(padded(x, a, -torch.inf), a["kernel_shape"], stride, dilation=dilations)
    total = F.avg_pool2d(padded(x, a, 0.0), a["kernel_shape"], stride)
    if a.get("count_include_pad") or not any(a.get("pads", [])):
        return total
    return total / F.avg_pool2d(padded(torch.ones_like(x), a, 0.0), a["kernel_shape"], stride)


def reshape(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    shape = [i[0].shape[k] if size == 0 and not a.get("allowzero") else size for k, size in enumerate(i[1].tolist())]
    return i[0].reshape(shape)


def clip(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    low = i[1].item() if len(i) > 1 and i[1].numel() else a.get("min")
    high = i[2].item() if len(i) > 2 and i[2].numel() else a.get("max")
    return i[0].clamp(low, high)


def axes(i: list[Tensor], a: dict[str, Any]) -> list[int]:
    """An attribute before opset 13 (18 for reductions), an input since."""
    return [int(axis) for axis in (i[1].tolist() if len(i) > 1 else a.get("axes", range(i[0].dim())))]


def squeeze(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    return i[0].squeeze(axes(i, a)) if len(i) > 1 or "axes" in a else i[0].squeeze()


def unsqueeze(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    x = i[0]
    for axis in sorted(axes(i, a)):
        x = x.unsqueeze(axis)
    return x


def sliced(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    starts, ends = i[1].tolist(), i[2].tolist()
    where = i[3].tolist() if len(i) > 3 and i[3].numel() else list(range(len(starts)))
    steps = i[4].tolist() if len(i) > 4 else [1] * len(starts)
    index = [slice(None)] * i[0].dim()
    for start, end, axis, step in zip(starts, ends, where, steps, strict=True):
        index[axis] = slice(start, end, step)
    return i[0][tuple(index)]


def batch_norm(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    return F.batch_norm(i[0], i[3], i[4], i[1], i[2], False, 0.0, a.get("epsilon", 1e-5))


def layer_norm(i: list[Tensor], a: dict[str, Any]) -> Tensor:
    shape = i[0].shape[a.get("axis", -1) % i[0].dim() :]
    return F.layer_norm(i[0], shape, i[1], i[2] if len(i) > 2 else None, a.get("epsilon", 1e-5))


OPERATORS: dict[str, Operator] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": lambda i, a: i[0] @ i[1],
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "MaxPool": lambda i, a: pool(i[0], a, mean=False),
    "AveragePool": lambda i, a: pool(i[0], a, mean=True),
    "GlobalAveragePool": lambda i, a: i[0].mean(tuple(range(2, i[0].dim())), keepdim=True),
    "ReduceMean": lambda i, a: i[0].mean(axes(i, a), keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda i, a: F.relu(i[0]),
    "LeakyRelu": lambda i, a: F.leaky_relu(i[0], a.get("alpha", 0.01)),
    "Sigmoid": lambda i, a: torch.sigmoid(i[0]),
    "HardSigmoid": lambda i, a: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda i, a: F.hardswish(i[0]),
    "Tanh": lambda i, a: torch.tanh(i[0]),
    "Erf": lambda i, a: torch.erf(i[0]),
    "Gelu": lambda i, a: F.gelu(i[0], approximate=a.get("approximate", "none")),
    "Softmax": lambda i, a: F.softmax(i[0], a.get("axis", -1)),
    "Clip": clip,
    "Add": lambda i, a: i[0] + i[1],
    "Sub": lambda i, a: i[0] - i[1],
    "Mul": lambda i, a: i[0] * i[1],
    "Div": lambda i, a: i[0] / i[1] if i[0].is_floating_point() else i[0] // i[1],
    "Pow": lambda i, a: i[0] ** i[1],
    "Sqrt": lambda i, a: torch.sqrt(i[0]),
    "Flatten": lambda i, a: i[0].flatten(a.get("axis", 1)) if a.get("axis", 1) == 1 else i[0].reshape(
        int(np.prod(i[0].shape[: a["axis"]])), -1
    ),
    "Reshape": reshape,
    "Transpose": lambda i, a: i[0].permute(a.get("perm", list(reversed(range(i[0].dim()))))),
    "Concat": lambda i, a: torch.cat([torch.atleast_1d(x) for x in i], a["axis"]),
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Slice": sliced,
    "Gather": lambda i, a: torch.index_select(i[0], a.get("axis", 0), i[1].flatten().long()).reshape(
        i[0].shape[: a.get("axis", 0) % i[0].dim()] + i[1].shape + i[0].shape[a.get("axis", 0) % i[0].dim() + 1 :]
    ),
    "Shape": lambda i, a: torch.tensor(i[0].shape),
    "Identity": lambda i, a: i[0],
    "Dropout": lambda i, a: i[0],
    "Cast": lambda i, a: i[0],
}  # fmt: skip


class OnnxModel(nn.Module):
    """Runs the nodes in their order (ONNX keeps them sorted)."""

    def __init__(self, graph: "onnx.GraphProto", where: Path):
        from onnx import helper, numpy_helper

        super().__init__()
        self.constants: list[str] = []
        for tensor in graph.initializer:
            self.keep(tensor.name, torch.from_numpy(np.array(numpy_helper.to_array(tensor))))
        self.steps: list[tuple[str, list[str], str, dict[str, Any]]] = []
        for node in graph.node:
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
            if node.op_type == "Constant":
                value = attributes.get("value")
                if value is None:
                    raise InputError(where, "Constant", sorted(attributes), "a tensor value")
                self.keep(node.output[0], torch.from_numpy(np.array(numpy_helper.to_array(value))))
                continue
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise InputError(where, "operator", node.op_type, ", ".join(OPERATORS))
            self.steps.append((node.op_type, list(node.input), node.output[0], attributes))
        self.input = next(value.name for value in graph.input if value.name not in self.constants)
        self.output = graph.output[0].name

    def keep(self, name: str, value: Tensor) -> None:
        """Register a constant under its own name; a dot in it is a level of modules, as in torch."""
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for step in path:
            if step not in owner._modules:
                owner.add_module(step or "_", nn.Module())
            owner = owner._modules[step or "_"]  # type: ignore[assignment]
        if value.is_floating_point():
            owner.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
        else:
            owner.register_buffer(leaf, value)
        self.constants.append(name)

    def constant(self, name: str) -> Tensor:
        """The constant of this name, as it is stored."""
        *path, leaf = name.split(".")
        return getattr(self.get_submodule(".".join(path)), leaf)

    def forward(self, x: Tensor) -> Tensor:
        values = {name: self.constant(name) for name in self.constants} | {self.input: x}
        empty = x.new_empty(0)
        for kind, inputs, output, attributes in self.steps:
            values[output] = OPERATORS[kind]([values[name] if name else empty for name in inputs], attributes)
        return values[self.output]


def read(path: Path) -> ModelFile:
    """An .onnx file; the weights of Conv, ConvTranspose, Gemm and MatMul that are initialisers are the stored ones."""
    try:
        import onnx
    except ImportError:
        raise InputError(
            "network", "name", str(path), "ONNX files need the extra: pip install neuralfuse-sim[onnx]"
        ) from None
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's own exception class depends on its backend
        raise InputError(path, "file", str(error)[:200], "an ONNX model") from None
    model = OnnxModel(graph, path)
    stored = {inputs[1]: None for kind, inputs, _, _ in model.steps
              if kind in ("Conv", "ConvTranspose", "Gemm", "MatMul") and inputs[1] in model.constants}  # fmt: skip
    size = next(value for value in graph.input if value.name == model.input).type.tensor_type.shape.dim[0]
    return ModelFile(model.eval(), list(stored), size.dim_value if size.HasField("dim_value") else None)
