"""Layers of an ONNX model: shapes by onnx.shape_inference, nothing executed, weights not even loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from simulator.workload import Layer, Workload, conv, linear, matmul, name_layers
from sram.errors import InputError

# Addressing only. Quantising a constant is done once; quantising an activation is an operation, see ELEMENTWISE.
FREE = frozenset(
    """Identity Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Expand Tile Dropout Cast CastLike Pad
    Shape Size Constant ConstantOfShape Range DepthToSpace SpaceToDepth SequenceConstruct SplitToSequence SequenceAt
    ConcatFromSequence""".split()
)
ELEMENTWISE = frozenset(
    """Add Sub Mul Div Pow Sqrt Exp Log Abs Neg Reciprocal Floor Ceil Round Sign Sin Cos Erf Max Min Mean Sum Mod And
    Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual Where IsNaN IsInf BitShift QuantizeLinear
    DequantizeLinear""".split()
)
ACTIVATIONS = frozenset(
    """Relu Clip Sigmoid Tanh Gelu HardSigmoid HardSwish LeakyRelu Elu Selu Celu Mish Softplus Softsign PRelu
    ThresholdedRelu Shrink Swish""".split()
)
REDUCTIONS = frozenset(
    """ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax
    ArgMin CumSum TopK""".split()
)
NORMS = {"BatchNormalization": 2, "LayerNormalization": 7, "InstanceNormalization": 7, "GroupNormalization": 7,
         "RMSNormalization": 4}  # fmt: skip
MOVES = frozenset("Gather GatherElements GatherND Scatter ScatterElements ScatterND ReverseSequence Trilu".split())
GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
POOLS = frozenset(("MaxPool", "AveragePool", "LpPool"))
SIZE_OPERATORS = frozenset(
    """Constant ConstantOfShape Concat Reshape Slice Transpose Cast Gather Squeeze Unsqueeze Add Sub Mul Div
    Range""".split()
)
# What these make of a weight still is that weight; what others make of it (a slice, a product) is another one.
SAME_WEIGHTS = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Cast CastLike QuantizeLinear DequantizeLinear".split()
)
SMALL = 64  # elements; what is larger is no size
INTERPOLATION_TAPS = {b"linear": 2, b"cubic": 4}  # of each axis that changes size


def read(path: str | Path, input_shape: tuple[int, ...] | None = None) -> Workload:
    """The workload of an ONNX file. `input_shape`, of one sample, is for a first input whose axes are free.

    Conventions (operations an element, free operators) are those of `torch_graph`. A tensor whose shape cannot be
    inferred makes its reader an unknown. Raises InputError if the file is no ONNX model or an axis stays free.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "file", "missing", "an ONNX model")
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = inliner.inline_local_functions(model)
        _fix_inputs(model, path, input_shape)
        model = shape_inference.infer_shapes(model, data_prop=True)
        while _fold_sizes(
            model
        ):  # exporters compute sizes and paddings by small graphs, which inference cannot see through
            model = shape_inference.infer_shapes(model, data_prop=True)
    except InputError:
        raise
    except Exception as error:  # protobuf and onnx raise types of their own, which are not public
        message = " ".join(str(error).split())[:200]
        raise InputError(path, "content", message or type(error).__name__, "a valid ONNX model") from None
    return Reader(model).workload(path.stem)


def _fix_inputs(model: onnx.ModelProto, path: Path, input_shape: tuple[int, ...] | None) -> None:
    """Give every axis of every input a length: shape inference then finds the others."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for number, value in enumerate(inputs):
        axes = value.type.tensor_type.shape.dim
        if number == 0 and input_shape is not None:
            if len(axes) != len(input_shape) + 1:
                shape = [axis.dim_value or axis.dim_param or "?" for axis in axes]
                raise InputError(path, "input shape", input_shape, f"{len(axes) - 1} numbers, for the axes {shape[1:]}")
            for axis, size in zip(axes, (1, *input_shape), strict=True):
                axis.dim_value = size
        for position, axis in enumerate(axes):
            if not axis.dim_value and position:
                label = f"input {value.name}, axis {position}"
                raise InputError(path, label, axis.dim_param or "free", "a number; give the input shape of one sample")
            axis.dim_value = axis.dim_value or 1


def _fold_sizes(model: onnx.ModelProto) -> int:
    """Replace operators on small known integers, which are sizes, by their results; how many there were."""
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer if math.prod(tensor.dims) <= SMALL}
    values: dict[str, Any] = {}
    for name, tensor in known.items():
        if tensor.data_type == onnx.TensorProto.INT64 and not tensor.external_data:
            values[name] = numpy_helper.to_array(tensor)
    folded = []
    for node in graph.node:
        operands = [name for name in node.input if name]
        if node.op_type not in SIZE_OPERATORS or not all(name in values for name in operands):
            continue
        try:
            results: Any = ReferenceEvaluator(node).run(None, {name: values[name] for name in operands})
        except Exception:  # an odd node stays as it is: its readers say that they have no shape
            continue
        if all(np.size(result) <= SMALL for result in results):
            values |= dict(zip(node.output, results, strict=True))
            folded.append((node, results))
    for node, results in folded:
        graph.node.remove(node)
        for name, result in zip(node.output, results, strict=True):
            graph.initializer.append(numpy_helper.from_array(result, name))
    return len(folded)


class Reader:
    """One walk over the graph. `sources`: tensor -> layers it comes from, or None if it is constant."""

    def __init__(self, model: onnx.ModelProto):
        graph = model.graph
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(t.dims) for name, t in self.constants.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            axes = value.type.tensor_type.shape.dim
            if value.type.HasField("tensor_type") and all(axis.dim_value for axis in axes):
                self.shapes.setdefault(value.name, tuple(axis.dim_value for axis in axes))
        self.sources: dict[str, tuple[int, ...] | None] = {name: None for name in self.constants}
        self.origin: dict[str, str] = {name: name for name in self.constants}  # constant tensor -> initializer
        self.turned: dict[str, bool] = {}  # constant tensor -> whether its last two axes are the initializer's, swapped
        self.batch = 1
        inputs = [value.name for value in graph.input if value.name not in self.constants]
        for name in inputs:
            self.sources[name] = (-1,)
        if inputs and self.shapes.get(inputs[0]):
            self.batch = self.shapes[inputs[0]][0]
        self.layers: list[Layer] = []
        self.places: list[tuple[str, str]] = []
        self.unknown: list[str] = []

    def workload(self, name: str) -> Workload:
        for node in self.graph.node:
            self._node(node)
        leaving = {layer for value in self.graph.output for layer in self.sources.get(value.name) or () if layer >= 0}
        layers = tuple(name_layers(self.layers, self.places))
        return Workload(name, layers, tuple(self.unknown), self.batch, tuple(sorted(leaving)))

    def _node(self, node: onnx.NodeProto) -> None:
        operands = [name for name in node.input if name]
        layers = sorted({index for name in operands for index in self.sources.get(name) or ()})
        constant = not any(self.sources.get(name) is not None for name in operands) or node.op_type in ("Shape", "Size")
        for name in node.output:
            self.sources[name] = None if constant else tuple(layers)
        if constant:
            if node.op_type in SAME_WEIGHTS and operands[0] in self.origin:
                self.origin[node.output[0]] = self.origin[operands[0]]
                swaps = node.op_type == "Transpose" and _swaps_last_two(node)
                self.turned[node.output[0]] = self.turned.get(operands[0], False) != swaps
            return
        if node.op_type in FREE:
            return
        path = node.name.strip("/").replace("/", ".").removesuffix(f".{node.op_type}") or node.output[0]
        before = len(self.layers)
        try:
            known = self._layer(node, path, operands)
        except KeyError as missing:  # the shape of an operand
            self.unknown.append(f"{path}: {node.op_type} (no shape for {missing})")
            return
        if not known:
            self.unknown.append(f"{path}: {node.op_type}")
        elif len(self.layers) > before:
            for name in node.output:
                self.sources[name] = (len(self.layers) - 1,)

    def _layer(self, node: onnx.NodeProto, path: str, operands: list[str]) -> bool:
        op, out = node.op_type, node.output[0]
        if op in ("Conv", "ConvTranspose"):
            return self._conv(node, path)
        if op in ("MatMul", "Gemm"):
            self._product(node, path)
        elif op in POOLS:
            kernel = _attribute(node, "kernel_shape", [])
            self._vector(node, "pool", path, operands, math.prod(kernel) * self._size(out))
        elif op in GLOBAL_POOLS:
            self._vector(node, "pool", path, operands, self._size(operands[0]))
        elif op in NORMS:
            self._vector(node, "norm", path, operands, NORMS[op] * self._size(out))
        elif op in ("Softmax", "LogSoftmax"):
            self._vector(node, "softmax", path, operands, 5 * self._size(out))
        elif op in ACTIVATIONS:
            self._vector(node, "activation", path, operands, self._size(out))
        elif op in ELEMENTWISE:
            self._vector(node, "elementwise", path, operands, self._size(out))
        elif op in REDUCTIONS:
            self._vector(node, "elementwise", path, operands, self._size(operands[0]))
        elif op in MOVES:
            self._vector(node, "move", path, operands, self._size(out), read=self._size(out))
        elif op in ("Resize", "Upsample"):
            self._resize(node, path, operands)
        else:
            return False
        return True

    def _conv(self, node: onnx.NodeProto, path: str) -> bool:
        x, w = self.shapes[node.input[0]], self.shapes[node.input[1]]
        axes = len(w) - 2
        if axes not in (1, 2) or self.sources.get(node.input[1]) is not None:
            return False
        transposed = node.op_type == "ConvTranspose"
        groups = _attribute(node, "group", 1)
        stride = tuple(_attribute(node, "strides", [1] * axes))
        dilation = tuple(_attribute(node, "dilations", [1] * axes))
        kernel = w[2:]
        begin_end = _padding(node, x[2:], self.shapes[node.output[0]][2:], kernel, stride, dilation, transposed)
        extra = tuple(_attribute(node, "output_padding", [0] * axes))
        flat = axes == 1
        out = self.shapes[node.output[0]]
        weight = self.origin.get(node.input[1], node.input[1])
        layer = conv(
            path,
            1 if flat else x[2],
            x[-1],
            x[1],
            w[1] * groups if transposed else w[0],
            kernel=(1, *kernel) if flat else kernel,
            stride=(1, *stride) if flat else stride,
            padding=(0, begin_end[0], 0, begin_end[1]) if flat else begin_end,
            dilation=(1, *dilation) if flat else dilation,
            groups=groups,
            transposed=transposed,
            output_padding=(0, *extra) if flat else extra,
            batch=x[0],
            weight_name=weight,
            bias=len(node.input) > 2 and bool(node.input[2]),
            out_h=1 if flat else out[2],  # of a transposed convolution the file may choose it
            out_w=out[-1],
        )
        self._append(node, layer, path)
        return True

    def _product(self, node: onnx.NodeProto, path: str) -> None:
        a, b = node.input[0], node.input[1]
        x, y = self.shapes[a], self.shapes[b]
        if node.op_type == "Gemm":
            x = x[::-1] if _attribute(node, "transA", 0) else x
            y = y[::-1] if _attribute(node, "transB", 0) else y
        x = (1, *x) if len(x) == 1 else x
        y = (*y, 1) if len(y) == 1 else y
        m, k, n = x[-2], x[-1], y[-1]
        products = math.prod(np.broadcast_shapes(x[:-2], y[:-2]))
        stored = [name for name in (b, a) if self.sources.get(name) is None]
        if not stored:
            batch = self.batch if products % self.batch == 0 else 1
            self._append(node, matmul(path, m, k, n, groups=products // batch, batch=batch), path)
            return
        swapped = node.op_type == "Gemm" and bool(_attribute(node, "transB" if stored[0] == b else "transA", 0))
        by_taps = (stored[0] == b) != (swapped != self.turned.get(stored[0], False))
        if stored[0] == a:  # W x: the weights' rows are the filters
            m, n = n, m
        copies = math.prod((y if stored[0] == b else x)[:-2])
        rows = m * (products // copies)
        batch = self.batch if rows % self.batch == 0 else 1
        layer = linear(path, rows // batch, k, n, batch=batch, weight_name=self.origin.get(stored[0], stored[0]))
        if copies > 1:
            layer = replace(
                layer, groups=copies, in_channels=copies * k, out_channels=copies * n, weights=copies * k * n
            )
        bias = node.op_type == "Gemm" and len(node.input) > 2 and bool(node.input[2])
        self._append(node, replace(layer, bias=bias, k_major=by_taps), path)

    def _resize(self, node: onnx.NodeProto, path: str, operands: list[str]) -> None:
        x, y = self.shapes[operands[0]], self.shapes[node.output[0]]
        taps = INTERPOLATION_TAPS.get(_attribute(node, "mode", b"nearest"))
        if taps is None:
            self._vector(node, "resize", path, operands, self._size(node.output[0]))
            return
        axes = sum(before != after for before, after in zip(x, y, strict=True))
        self._vector(node, "resize", path, operands, 2 * taps**axes * self._size(node.output[0]))

    def _vector(
        self, node: onnx.NodeProto, kind: str, path: str, operands: list[str], operations: int, read: int | None = None
    ) -> None:
        active = [name for name in operands if self.sources.get(name) is not None]
        read = sum(self._size(name) for name in active) if read is None else read
        written = self._size(node.output[0])
        fixed = {name for name in operands if self.sources.get(name) is None} if kind == "elementwise" else set()
        constants = sum(size for size in map(self._size, fixed) if size > 1)
        batch = 1 if any(number % self.batch for number in (operations, read, written)) else self.batch
        in_h, in_w, in_channels = _pixels(self.shapes[active[0]], batch)
        out_h, out_w, out_channels = _pixels(self.shapes[node.output[0]], batch)
        layer = Layer(
            path,
            kind,
            batch,
            in_h=in_h,
            in_w=in_w,
            in_channels=in_channels,
            out_h=out_h,
            out_w=out_w,
            out_channels=out_channels,
            operations=operations // batch,
            elements_read=read // batch,
            elements_written=written // batch,
            constants=constants,
        )
        self._append(node, layer, path)

    def _append(self, node: onnx.NodeProto, layer: Layer, path: str) -> None:
        active = [name for name in dict.fromkeys(node.input) if self.sources.get(name)]
        sources = sorted({index for name in active for index in self.sources[name] or ()})
        if len(active) > 1:
            parts = ((tuple(self.sources[name] or ()), self._size(name) // layer.batch) for name in active)
            layer = replace(layer, operands=tuple(parts))
        owner, dot, field = (layer.weight_name or "").rpartition(".")
        self.layers.append(replace(layer, sources=tuple(sources), operator=node.op_type))
        # torch's exporters keep parameter names, and with them the module tree, but not always the nodes' names
        self.places.append((owner if dot and field == "weight" else path, node.op_type.lower()))

    def _size(self, name: str) -> int:
        return math.prod(self.shapes[name])


def _swaps_last_two(node: onnx.NodeProto) -> bool:
    """Whether a Transpose is one of matrices."""
    axes = _attribute(node, "perm", [1, 0])
    return list(axes) == [*range(len(axes) - 2), len(axes) - 1, len(axes) - 2]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _padding(
    node: onnx.NodeProto,
    size: tuple[int, ...],
    out: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    transposed: bool,
) -> tuple[int, ...]:
    """Begins, then ends: (top, left, bottom, right), or (left, right) in one dimension."""
    mode = _attribute(node, "auto_pad", b"NOTSET")
    if mode == b"VALID":
        return (0,) * (2 * len(size))
    if mode == b"NOTSET":
        return tuple(_attribute(node, "pads", [0] * (2 * len(size))))
    totals = []
    for i, o, k, s, d in zip(size, out, kernel, stride, dilation, strict=True):
        needed = (i - 1) * s + (k - 1) * d + 1 - o if transposed else (o - 1) * s + (k - 1) * d + 1 - i
        totals.append(max(0, needed))
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (*small, *large) if mode == b"SAME_UPPER" else (*large, *small)


def _pixels(shape: tuple[int, ...], batch: int) -> tuple[int, int, int]:
    """Height, width and channels as a buffer stores them: NCHW by its axes, anything else as rows of the last axis."""
    if len(shape) == 4 and shape[0] == batch:
        return shape[2], shape[3], shape[1]
    channels = shape[-1] if len(shape) > 1 else math.prod(shape)
    return math.prod(shape) // batch // channels, 1, channels
