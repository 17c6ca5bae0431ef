"""Layers of an ONNX model: shapes are inferred (`onnx_shapes`), no layer is executed, weights are not even loaded."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx import checker, inliner

from simulator.readers import onnx_recurrent, onnx_shapes
from simulator.readers.collector import Collector, Place, Value, Weight, Window, merged
from simulator.workload import Workload
from sram.errors import InputError

# Addressing only. Quantising a constant is done once; quantising an activation is an operation, see ELEMENTWISE.
SAME = frozenset("Identity Dropout Cast CastLike Expand".split())
FREE = SAME | frozenset(
    """Reshape Flatten Transpose Squeeze Unsqueeze Concat Split Slice Tile Pad
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
COUNTED = frozenset(("Conv", "ConvTranspose", "MatMul", "Gemm", "Softmax", "LogSoftmax", "Resize", "Upsample")).union(
    POOLS, GLOBAL_POOLS, NORMS, ACTIVATIONS, ELEMENTWISE, REDUCTIONS, MOVES
)
# What these make of a weight still is that weight; what others make of it (a slice, a product) is another one.
SAME_WEIGHTS = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Cast CastLike QuantizeLinear DequantizeLinear".split()
)
MOST_NODES = 2**17
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
        _check_whole(model, path)
        model = inliner.inline_local_functions(model)
        filled = onnx_shapes.bind_inputs(model, path, input_shapes)
        reader = Reader(model)  # of the nodes as they are; inference replaces those that compute sizes
        reader.shapes = onnx_shapes.infer(model, trust=not filled)
        return reader.read(path.stem)
    except InputError:
        raise
    except Exception as error:  # protobuf and onnx raise types of their own, which are not public
        message = " ".join(str(error).split())[:200]
        raise InputError(path, "content", message or type(error).__name__, "a valid ONNX model") from None


def _check_whole(model: onnx.ModelProto, path: Path) -> None:
    """Refuse an opset of the future, a tensor that is made twice, and functions of functions that stand for much."""
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise InputError(
                path, "opset", entry.version, f"at most {newest}, the newest that onnx {onnx.__version__} knows"
            )
    made = collections.Counter(name for node in model.graph.node for name in node.output if name)
    for name, times in made.most_common(1):
        if times > 1:
            raise InputError(path, "tensor", name, "one that a single node makes")
    functions = {(function.domain, function.name): function.node for function in model.functions}
    if (nodes := _nodes(model.graph.node, functions, {})) > MOST_NODES:
        raise InputError(path, "nodes", nodes, f"at most {MOST_NODES}, with functions written out")


def _nodes(nodes: Iterable[onnx.NodeProto], functions: dict, known: dict[tuple[str, str], int]) -> int:
    """How many there are once functions are written out."""
    total = 0
    for node in nodes:
        key = node.domain, node.op_type
        if key in functions and key not in known:
            known[key] = 0  # of a circle, which the inliner refuses
            known[key] = _nodes(functions[key], functions, known)
        total += 1 + known.get(key, 0) + sum(_nodes(part.g.node, functions, known) for part in node.attribute)
    return total


class NotCounted(Exception):
    """Why an operator is not counted; what it says follows the operator's name."""


class Reader(Collector):
    """One walk over the graph; a value without layers is constant."""

    def __init__(self, model: onnx.ModelProto):
        super().__init__()
        self.graph = graph = model.graph
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.checks = checker.C.CheckerContext()
        self.checks.ir_version = model.ir_version
        self.checks.opset_imports = {entry.domain: entry.version for entry in model.opset_import}
        stored = [tensor.name for tensor in graph.initializer] + [part.values.name for part in graph.sparse_initializer]
        self.inputs = [value.name for value in onnx_shapes.network_inputs(graph)]
        self.values = {name: Value(parameters=(name,)) for name in stored}
        self.values |= {name: Value(layers=(-1,)) for name in self.inputs}
        self.origin: dict[str, str] = {name: name for name in stored}  # constant tensor -> initializer
        self.turned: dict[str, bool] = {}  # constant tensor -> whether its last two axes are the initializer's, swapped

    def read(self, name: str) -> Workload:
        """The layers of the graph, in its order."""
        self.values = {key: replace(value, shape=self.shapes.get(key, ())) for key, value in self.values.items()}
        if self.inputs and self.shapes.get(self.inputs[0]):
            self.batch = self.shapes[self.inputs[0]][0]
        for node in self.graph.node:
            self._node(node)
        return self.workload(name, [self._value(value.name) for value in self.graph.output])

    def _node(self, node: onnx.NodeProto) -> None:
        operands = [name for name in node.input if name]
        reads = [*operands, *(name for name in _read_by_bodies(node) if name in self.values)]
        layers = merged(map(self._value, reads)).layers
        constant = not layers or node.op_type in ("Shape", "Size")
        for name in node.output:
            shape = self.shapes.get(name, ())
            self.values[name] = Value(shape, parameters=(name,)) if constant else Value(shape, layers)
        if constant:
            if node.op_type in SAME_WEIGHTS and operands[0] in self.origin:
                self.origin[node.output[0]] = self.origin[operands[0]]
                swaps = node.op_type == "Transpose" and _swaps_last_two(node)
                self.turned[node.output[0]] = self.turned.get(operands[0], False) != swaps
            return
        slices = node.op_type == "Gather" and self.shapes.get(operands[1]) == () and self._value(operands[1]).constant
        if node.op_type in FREE or slices:
            if node.op_type in SAME and self.shapes.get(node.output[0]) == self.shapes.get(operands[0]):
                self.values[node.output[0]] = self._value(operands[0])
            return
        path = node.name.strip("/").replace("/", ".").removesuffix(f".{node.op_type}") or node.output[0]
        try:
            self._check(node)
            self._layer(node, path, operands)
        except NotCounted as reason:
            self.unknown.append(f"{path}: {node.op_type} {reason}".rstrip())

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
        place = Place(path, op.lower(), op)
        if op in onnx_recurrent.KINDS:
            self._recurrent(node, path)
            return
        if op not in COUNTED:
            raise NotCounted()
        if unsized := [name for name in operands if self._value(name).layers and name not in self.shapes]:
            self._shape(unsized[0])
        inputs = [self._value(name) for name in operands]
        shape = self._shape(out)
        size = math.prod(shape)
        make = partial(self.vector, place=place, operands=inputs, shape=shape, operations=size)
        if op in ("Conv", "ConvTranspose"):
            made = self._conv(node, place)
        elif op in ("MatMul", "Gemm"):
            made = self._product(node, place)
        elif op in POOLS:
            kernel = _attribute(node, "kernel_shape", [])
            stride = _attribute(node, "strides", [1] * len(kernel))
            made = make("pool", operations=math.prod(kernel) * size, pool=(kernel, stride))
        elif op in GLOBAL_POOLS:
            made = make("pool", operations=inputs[0].size, pool=(inputs[0].shape[2:],) * 2)
        elif op in NORMS:
            if _attribute(node, "training_mode", 0):
                raise NotCounted("(training_mode)")
            made = make("norm", operations=NORMS[op] * size)
        elif op in ("Softmax", "LogSoftmax"):
            made = make("softmax", operations=5 * size)
        elif op in ACTIVATIONS:
            made = make("activation", pointwise=True)
        elif op in ELEMENTWISE:
            made = make("elementwise", pointwise=True)
        elif op in REDUCTIONS:
            made = make("elementwise", operations=inputs[0].size)
        elif op == "Gather" and self._value(operands[0]).constant and not _attribute(node, "axis", 0):
            table, indices = self._value(operands[0]), self._value(operands[1])
            made = self.look_up(place, indices, shape, self._weight(operands[0]), table.size, size)
        elif op in MOVES:
            made = make("move", read=size)
        else:
            made = make("resize", operations=self._taps(node) * size)
        for name in node.output:
            self.values[name] = made if name == out else replace(made, shape=self.shapes.get(name, ()), root=None)

    def _conv(self, node: onnx.NodeProto, place: Place) -> Value:
        x, w, out = (self._shape(name) for name in (*node.input[:2], node.output[0]))
        axes = len(w) - 2
        if axes not in (1, 2):
            raise NotCounted(f"of {axes} axes")
        if not (kernel := self._value(node.input[1])).constant:
            raise NotCounted("(its kernel is computed)")
        transposed, groups = node.op_type == "ConvTranspose", _attribute(node, "group", 1)
        given = _attribute(node, "kernel_shape", w[2:])
        if x[1] != w[0 if transposed else 1] * (1 if transposed else groups) or list(given) != list(w[2:]):
            raise ValueError(f"{node.op_type} that makes {node.output[0]}: an input {x}, weights {w}, kernel {given}")
        stride, dilation = (tuple(_attribute(node, name, [1] * axes)) for name in ("strides", "dilations"))
        padding = _padding(node, x[2:], out[2:], w[2:], stride, dilation, transposed)
        extra = tuple(_attribute(node, "output_padding", [0] * axes))
        window = Window(stride, padding, dilation, groups, transposed, extra)
        weight = self._weight(node.input[1])
        bias = len(node.input) > 2 and bool(node.input[2])
        return self.convolution(
            self._placed(place, weight), self._value(node.input[0]), kernel, out, window, weight, bias
        )

    def _product(self, node: onnx.NodeProto, place: Place) -> Value:
        a, b = node.input[:2]
        shapes = self._shape(a), self._shape(b)
        gemm = node.op_type == "Gemm"
        swaps = gemm and bool(_attribute(node, "transA", 0)), gemm and bool(_attribute(node, "transB", 0))
        weight = None
        if self._value(a).constant or self._value(b).constant:
            left = not self._value(b).constant
            stored = a if left else b
            by_taps = left == (swaps[not left] != self.turned.get(stored, False))
            weight = self._weight(stored)._replace(left=left, k_major=by_taps, copies=math.prod(shapes[not left][:-2]))
        bias = gemm and len(node.input) > 2 and bool(node.input[2])
        values = self._value(a), self._value(b)
        return self.product(self._placed(place, weight), *values, self._shape(node.output[0]), weight, swaps, bias)

    def _weight(self, name: str) -> Weight:
        return Weight(self.origin.get(name, name))

    def _placed(self, place: Place, weight: Weight | None) -> Place:
        """Torch's exporters keep parameter names, and with them the module tree, but not always the nodes' names."""
        owner, dot, field = (weight.name if weight else "").rpartition(".")
        return place._replace(path=owner) if dot and field == "weight" else place

    def _recurrent(self, node: onnx.NodeProto, path: str) -> None:
        x, w, r = (self._shape(name) for name in node.input[:3])
        if any(self._value(name).layers for name in node.input[1:3]):
            raise NotCounted("(its weights are computed)")
        weights = [(self.origin.get(name, name)) for name in node.input[1:3]]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        try:
            found = onnx_recurrent.layers(node.op_type, x, (w, r), list(node.input), attributes, weights, self.batch)
        except ValueError as unread:
            raise NotCounted(f"({unread})") from None
        before, outer = len(self.layers), self._value(node.input[0]).layers
        for layer in found.layers:
            self.layers.append(replace(onnx_recurrent.placed(layer, before, outer), operator=node.op_type))
            self.places.append((path, layer.name.split("#")[0].split(".")[-1]))
        for name in node.output:
            self.values[name] = replace(self.values[name], layers=tuple(index + before for index in found.outputs))

    def _taps(self, node: onnx.NodeProto) -> int:
        """Operations an element of a Resize."""
        taps = INTERPOLATION_TAPS.get(_attribute(node, "mode", b"nearest"))
        x, y = self._shape(node.input[0]), self._shape(node.output[0])
        return 2 * taps ** sum(before != after for before, after in zip(x, y, strict=True)) if taps else 1

    def _value(self, name: str) -> Value:
        return self.values.get(name, Value())

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
    if mode not in (b"SAME_UPPER", b"SAME_LOWER"):
        raise ValueError(f"{node.op_type} that makes {node.output[0]}: auto_pad {mode!r}")
    totals = []
    for i, o, k, s, d in zip(size, out, kernel, stride, dilation, strict=True):
        needed = (i - 1) * s + (k - 1) * d + 1 - o if transposed else (o - 1) * s + (k - 1) * d + 1 - i
        totals.append(max(0, needed))
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (*small, *large) if mode == b"SAME_UPPER" else (*large, *small)
