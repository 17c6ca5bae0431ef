"""Layers of an ONNX model: shapes are inferred (`onnx_shapes`), no layer is executed, weights are not even loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import checker, inliner

from simulator.readers import onnx_recurrent, onnx_shapes
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
# What these make of a weight still is that weight; what others make of it (a slice, a product) is another one.
SAME_WEIGHTS = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Cast CastLike QuantizeLinear DequantizeLinear".split()
)
INTERPOLATION_TAPS = {b"linear": 2, b"cubic": 4}  # of each axis that changes size


def read(path: str | Path, input_shapes: Sequence[Sequence[int]] = ()) -> Workload:
    """The workload of an ONNX file. `input_shapes`, of one sample of the first inputs, are for axes it leaves free.

    Conventions (operations an element, free operators) are those of `torch_graph`. A tensor whose shape cannot be
    inferred makes its reader an unknown. Raises InputError if the file is no ONNX model, an axis stays free or a given
    size is not that of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "file", "missing", "an ONNX model")
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = inliner.inline_local_functions(model)
        filled = onnx_shapes.bind_inputs(model, path, input_shapes)
        reader = Reader(model)  # of the nodes as they are; inference replaces those that compute sizes
        reader.shapes = onnx_shapes.infer(model, trust=not filled)
    except InputError:
        raise
    except Exception as error:  # protobuf and onnx raise types of their own, which are not public
        message = " ".join(str(error).split())[:200]
        raise InputError(path, "content", message or type(error).__name__, "a valid ONNX model") from None
    return reader.workload(path.stem)


class NotCounted(Exception):
    """Why an operator is not counted; what it says follows the operator's name."""


class Reader:
    """One walk over the graph. `sources`: tensor -> layers it comes from, or None if it is constant."""

    def __init__(self, model: onnx.ModelProto):
        self.graph = graph = model.graph
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.checks = checker.C.CheckerContext()
        self.checks.ir_version = model.ir_version
        self.checks.opset_imports = {entry.domain: entry.version for entry in model.opset_import}
        stored = [tensor.name for tensor in graph.initializer] + [part.values.name for part in graph.sparse_initializer]
        self.inputs = [value.name for value in onnx_shapes.network_inputs(graph)]
        self.sources: dict[str, tuple[int, ...] | None] = {name: None for name in stored}
        self.sources |= {name: (-1,) for name in self.inputs}
        self.origin: dict[str, str] = {name: name for name in stored}  # constant tensor -> initializer
        self.turned: dict[str, bool] = {}  # constant tensor -> whether its last two axes are the initializer's, swapped
        self.batch = 1
        self.layers: list[Layer] = []
        self.places: list[tuple[str, str]] = []
        self.unknown: list[str] = []

    def workload(self, name: str) -> Workload:
        """The layers of the graph, in its order."""
        if self.inputs and self.shapes.get(self.inputs[0]):
            self.batch = self.shapes[self.inputs[0]][0]
        for node in self.graph.node:
            self._node(node)
        leaving = {layer for value in self.graph.output for layer in self.sources.get(value.name) or () if layer >= 0}
        layers = tuple(name_layers(self.layers, self.places))
        return Workload(name, layers, tuple(self.unknown), self.batch, tuple(sorted(leaving)))

    def _node(self, node: onnx.NodeProto) -> None:
        operands = [name for name in node.input if name]
        reads = [*operands, *(name for name in _read_by_bodies(node) if name in self.sources)]
        layers = sorted({index for name in reads for index in self.sources.get(name) or ()})
        active = any(self.sources.get(name, ()) is not None for name in reads)
        constant = not active or node.op_type in ("Shape", "Size")
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
            self._check(node)
            self._layer(node, path, operands)
        except NotCounted as reason:
            self.unknown.append(f"{path}: {node.op_type} {reason}".rstrip())
            return
        if len(self.layers) > before and node.op_type not in onnx_recurrent.KINDS:
            for name in node.output:
                self.sources[name] = (len(self.layers) - 1,)

    def _check(self, node: onnx.NodeProto) -> None:
        """Inputs and attributes are those of the operator, as the model's opset has it."""
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise NotCounted()  # bodies: what runs, and how often, hangs on values
        try:
            checker.check_node(node, self.checks)
        except checker.ValidationError as error:
            raise NotCounted(f"({' '.join(str(error).split())[:100]})") from None

    def _layer(self, node: onnx.NodeProto, path: str, operands: list[str]) -> None:  # noqa: C901 (a case an operator)
        op, out = node.op_type, node.output[0]
        if op in ("Conv", "ConvTranspose"):
            self._conv(node, path)
        elif op in ("MatMul", "Gemm"):
            self._product(node, path)
        elif op in onnx_recurrent.KINDS:
            self._recurrent(node, path)
        elif op in POOLS:
            kernel = _attribute(node, "kernel_shape", [])
            self._vector(node, "pool", path, operands, math.prod(kernel) * self._size(out))
        elif op in GLOBAL_POOLS:
            self._vector(node, "pool", path, operands, self._size(operands[0]))
        elif op in NORMS:
            if _attribute(node, "training_mode", 0):
                raise NotCounted("(training_mode)")
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
            raise NotCounted()

    def _conv(self, node: onnx.NodeProto, path: str) -> None:
        x, w, out = (self._shape(name) for name in (*node.input[:2], node.output[0]))
        axes = len(w) - 2
        if axes not in (1, 2):
            raise NotCounted(f"of {axes} axes")
        if self.sources.get(node.input[1]) is not None:
            raise NotCounted("(its kernel is computed)")
        transposed = node.op_type == "ConvTranspose"
        groups = _attribute(node, "group", 1)
        stride = tuple(_attribute(node, "strides", [1] * axes))
        dilation = tuple(_attribute(node, "dilations", [1] * axes))
        kernel = w[2:]
        begin_end = _padding(node, x[2:], out[2:], kernel, stride, dilation, transposed)
        extra = tuple(_attribute(node, "output_padding", [0] * axes))
        flat = axes == 1
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

    def _product(self, node: onnx.NodeProto, path: str) -> None:
        a, b = node.input[0], node.input[1]
        x, y = self._shape(a), self._shape(b)
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

    def _recurrent(self, node: onnx.NodeProto, path: str) -> None:
        x, w = self._shape(node.input[0]), self._shape(node.input[1])
        if any(self.sources.get(name) is not None for name in node.input[1:3]):
            raise NotCounted("(its weights are computed)")
        weights = [(self.origin.get(name, name)) for name in node.input[1:3]]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        try:
            found = onnx_recurrent.layers(node.op_type, x, w, list(node.input), attributes, weights, self.batch)
        except ValueError as unread:
            raise NotCounted(f"({unread})") from None
        before, outer = len(self.layers), tuple(self.sources[node.input[0]] or ())
        for layer in found.layers:
            self.layers.append(replace(onnx_recurrent.placed(layer, before, outer), operator=node.op_type))
            self.places.append((path, layer.name.split("#")[0].split(".")[-1]))
        for name in node.output:
            self.sources[name] = tuple(index + before for index in found.outputs)

    def _resize(self, node: onnx.NodeProto, path: str, operands: list[str]) -> None:
        x, y = self._shape(operands[0]), self._shape(node.output[0])
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
        in_h, in_w, in_channels = _pixels(self._shape(active[0]), batch)
        out_h, out_w, out_channels = _pixels(self._shape(node.output[0]), batch)
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
        return math.prod(self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise NotCounted(f"(no shape for {name!r}, or an empty one)")
        return self.shapes[name]


def _read_by_bodies(node: onnx.NodeProto) -> Iterator[str]:
    """Every name that the bodies of If, Loop and Scan read, their own among them."""
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from inner.input
            yield from _read_by_bodies(inner)
        yield from (value.name for value in attribute.g.output)


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
