"""From a graph of aten operators to layers: what each operator costs, and what it is called.

The graph has the shape of every value and the module each operator came from (torch_trace.py makes it). What has only
parameters as inputs is constant and costs nothing at run time; views and concatenation are addressing and cost nothing;
a composite operator without an entry below (einsum, gru, ...) is opened and its parts are read; what is left is listed
as unknown.

Operations a vector element costs, by convention: one for an activation function (a table), an addition, a comparison, a
move; batch normalisation 2 (scale and shift: its statistics are constants); layer, group and instance normalisation 7
(sum; subtract, square, add; multiply by 1/sigma; scale, shift), RMS normalisation 4; softmax 5 (compare, subtract,
exponential, add, divide); pooling one for each tap; interpolation two (multiply, add) for each tap.
"""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from simulator.readers import torch_bodies
from simulator.workload import Layer, Workload, conv, linear, matmul, name_layers

# Operator names without the trailing underscore of the in-place form. FREE: addressing only.
FREE = frozenset(
    """dropout feature_dropout alpha_dropout clone contiguous to _to_copy lift_fresh_copy cat concat stack hstack vstack
    pad constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle reshape flatten unflatten repeat
    repeat_interleave tile chunk split unsafe_split split_with_sizes unbind tensor_split zero fill copy _unsafe_view
    expand expand_as detach transpose squeeze unsqueeze movedim swapaxes type_as meshgrid
    slice_scatter select_scatter""".split()
)
MOVES = frozenset(
    """embedding index index_select gather roll flip rot90 take_along_dim scatter index_put im2col col2im tril triu
    masked_fill""".split()
)
REDUCTIONS = frozenset(
    """mean sum amax amin max min argmax argmin prod any all norm linalg_vector_norm logsumexp cumsum var std var_mean
    topk sort argsort""".split()
)
ACTIVATIONS = frozenset(
    """relu relu6 gelu silu sigmoid tanh hardswish hardsigmoid hardtanh clamp leaky_relu elu selu celu mish
    softplus prelu glu hardshrink softshrink threshold softsign logsigmoid""".split()
)
NORMS = {
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm"), 2),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm"), 7),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), 4),
}
SOFTMAX = frozenset(("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"))
# Taps of one output element.
NEAREST = frozenset(("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d"))
INTERPOLATIONS = {"upsample_linear1d": 2, "upsample_bilinear2d": 4, "grid_sampler": 4, "upsample_bicubic2d": 16}
POOLS = frozenset(("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d"))
ADAPTIVE_POOLS = frozenset(
    "adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d".split()
)
TRANSPOSED_CONVS = frozenset(("conv_transpose1d", "conv_transpose2d"))
CONVS = frozenset(("conv1d", "conv2d", "convolution")) | TRANSPOSED_CONVS
MATRIX_PRODUCTS = {"matmul": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # index of the first factor
PRODUCTS = CONVS | {"linear"} | frozenset(MATRIX_PRODUCTS)
ATTENTION = frozenset(("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"))


@dataclass(frozen=True)
class Value:
    """Where a tensor comes from: layers, parameters, or neither (zeros, arange: made at run time without an input)."""

    layers: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether it is made of parameters alone."""
        return bool(self.parameters) and not self.layers


Values = dict[torch.fx.Node, Value]


class Reader:
    """Walks graphs and collects layers; `batch` is the extent of the first axis of the network's input."""

    def __init__(self, batch: int):
        self.batch = batch
        self.layers: list[Layer] = []
        self.places: list[tuple[str, str]] = []  # module path and operator of each layer, for its name
        self.unknown: list[str] = []
        self.made: dict[tuple[str, ...], str] = {}  # names of weights that are computed from several parameters

    def workload(self, name: str, outputs: list[Value]) -> Workload:
        """What was read; `outputs` are the values that the network returns."""
        leaving = tuple(sorted({layer for value in outputs for layer in value.layers if layer >= 0}))
        layers = tuple(name_layers(self.layers, self.places))
        return Workload(name, layers, tuple(self.unknown), self.batch, leaving)

    def read(self, graph_module: torch.fx.GraphModule, bound: list[Value], path: str = "") -> list[Value]:
        """Read a graph whose placeholders are `bound`; returns the values of its outputs."""
        values: Values = {}
        arguments = iter(bound)
        for node in graph_module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(arguments, Value())
            elif node.op == "get_attr":
                values[node] = Value(parameters=(str(node.target),))
            elif node.op == "output":
                return [values[part] for part in node.all_input_nodes]
            else:
                values[node] = self._node(graph_module, node, values, path)
                if _is_in_place(node) and node.all_input_nodes:
                    _write(values, node.all_input_nodes[0], values[node])
        return []

    def _node(self, graph_module: torch.fx.GraphModule, node: torch.fx.Node, values: Values, outer: str) -> Value:
        sources = [values[part] for part in node.all_input_nodes]
        merged = Value(
            tuple(sorted({layer for value in sources for layer in value.layers})),
            tuple(dict.fromkeys(key for value in sources for key in value.parameters)),
        )
        op = _operator(node)
        if not merged.layers and not (op in PRODUCTS and any(not value.constant for value in sources)):
            return merged  # made of parameters only: computed once, before any inference
        activation = replace(merged, parameters=())
        path = _path(node) or outer
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            outputs = torch_bodies.read(self.read, Value(), graph_module, node, values, path)
            if outputs is None:
                self.unknown.append(f"{path or node.name}: {node.target}")
                return activation
            return Value(tuple(sorted({layer for value in outputs for layer in value.layers})))
        if not isinstance(node.target, torch._ops.OpOverload):
            if node.target is not operator.getitem and _size(node.meta.get("val")):  # else: arithmetic on sizes
                self.unknown.append(f"{path or node.name}: {node.target}")
            return activation
        before = len(self.layers)
        if not self._layer(node, op, path, values):
            if _is_free(node.target, op):
                return activation
            body = _opened(node)
            if body is None:
                self.unknown.append(f"{path or node.name}: {node.target}")
                return activation
            inner = [values[part] for part in node.all_input_nodes]
            outputs = self.read(body, inner, path)
            return Value(tuple(sorted({layer for value in outputs for layer in value.layers})))
        return Value(layers=(len(self.layers) - 1,)) if len(self.layers) > before else activation

    def _layer(self, node: torch.fx.Node, op: str, path: str, values: Values) -> bool:  # noqa: C901 (a case an operator)
        """Add the layers of one operator; False if there is no entry for it."""
        arguments = _bind(node)
        if op in CONVS:
            return self._conv(node, op, path, arguments, values)
        if op == "linear":
            self._product(node, path, values, arguments["input"], arguments["weight"], transpose_b=True)
        elif op in MATRIX_PRODUCTS:
            first, second = list(arguments.values())[MATRIX_PRODUCTS[op] :][:2]
            self._product(node, path, values, first, second)
        elif op in ATTENTION:
            self._attention(node, path, values, *list(arguments.values())[:3])
        elif op in POOLS:
            taps = math.prod(_many(arguments["kernel_size"], 1 if op.endswith("1d") else 2))
            self._vector(node, op, "pool", path, values, operations=taps * _size(_first(node)))
        elif op in ADAPTIVE_POOLS:
            self._vector(node, op, "pool", path, values, operations=_size(node.all_input_nodes[0].meta["val"]))
        elif op in NORMS:
            self._vector(node, op, "norm", path, values, operations=NORMS[op] * _size(_first(node)))
        elif op in SOFTMAX:
            self._vector(node, op, "softmax", path, values, operations=5 * _size(_first(node)))
        elif op in ACTIVATIONS:
            self._vector(node, op, "activation", path, values, operations=_size(_first(node)))
        elif op in NEAREST:
            self._vector(node, op, "resize", path, values, operations=_size(_first(node)))
        elif op in INTERPOLATIONS:
            self._vector(node, op, "resize", path, values, operations=2 * INTERPOLATIONS[op] * _size(_first(node)))
        elif op in REDUCTIONS:
            self._vector(node, op, "elementwise", path, values, operations=_size(node.all_input_nodes[0].meta["val"]))
        elif op in MOVES:
            self._vector(node, op, "move", path, values, operations=_size(_first(node)), read=_size(_first(node)))
        elif torch.Tag.pointwise in getattr(node.target, "tags", ()) and op not in FREE:
            self._vector(node, op, "elementwise", path, values, operations=_size(_first(node)))
        else:
            return False
        return True

    def _add(
        self, layer: Layer, node: torch.fx.Node, path: str, op: str, values: Values,
        operands: tuple[torch.fx.Node, ...] | None = None,
    ) -> None:  # fmt: skip
        """`operands`: the activations among the inputs, if their order there is another."""
        active = [part for part in operands or node.all_input_nodes if not values[part].constant]
        layer = replace(layer, sources=_sources(values, *node.all_input_nodes), operator=str(node.target))
        if len(active) > 1:
            parts = ((_sources(values, part), _size(part.meta["val"]) // layer.batch) for part in active)
            layer = replace(layer, operands=tuple(parts))
        self._append(layer, path, op)

    def _append(self, layer: Layer, path: str, op: str) -> None:
        free: dict[str, Any] = {
            key: int(value) for key, value in vars(layer).items() if isinstance(value, torch.SymInt)
        }
        self.layers.append(replace(layer, **free) if free else layer)
        self.places.append((path, op))

    def _conv(self, node: torch.fx.Node, op: str, path: str, arguments: dict, values: Values) -> bool:
        x, w = arguments["input"].meta["val"], arguments["weight"].meta["val"]
        axes = w.dim() - 2
        transposed = op in TRANSPOSED_CONVS or bool(arguments.get("transposed"))
        if axes not in (1, 2):
            return False
        dilation = _many(arguments["dilation"], axes)
        stride = _many(arguments["stride"], axes)
        kernel = tuple(w.shape[2:])
        padding: tuple[int, ...]
        if arguments["padding"] == "same":  # an odd total puts the extra element at the end, as torch does
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            padding = (*(t // 2 for t in total), *(t - t // 2 for t in total))
        elif arguments["padding"] == "valid":
            padding = (0,) * (2 * axes)
        else:
            padding = _many(arguments["padding"], axes) * 2
        extra = _many(arguments.get("output_padding", 0), axes)
        flat = axes == 1
        groups = arguments["groups"]
        weight_name, offset = self._weight(arguments["weight"], values, path)
        in_h, in_w = (1, x.shape[-1]) if flat else x.shape[-2:]
        layer = conv(
            path,
            in_h,
            in_w,
            x.shape[-axes - 1],
            w.shape[1] * groups if transposed else w.shape[0],
            kernel=(1, *kernel) if flat else kernel,
            stride=(1, *stride) if flat else stride,
            padding=(0, padding[0], 0, padding[1]) if flat else padding,
            dilation=(1, *dilation) if flat else dilation,
            groups=groups,
            transposed=transposed,
            output_padding=(0, *extra) if flat else extra,
            batch=x.shape[0] if x.dim() == axes + 2 else 1,
            weight_name=weight_name,
            weight_offset=offset,
            bias=arguments.get("bias") is not None,
        )
        if not values[arguments["weight"]].constant:  # the kernel is computed from the input: an activation
            layer = replace(layer, weights=0, weight_name=None)
        operands = arguments["input"], arguments["weight"]
        self._add(layer, node, path, "conv_transpose" if transposed else "conv", values, operands)
        return True

    def _weight(self, node: torch.fx.Node, values: Values, path: str) -> tuple[str, int]:
        """Name and first element of a constant operand; one made of several parameters is called after its module."""
        parameters = values[node].parameters
        if len(parameters) == 1:
            return parameters[0], int(node.meta["val"].storage_offset())
        if parameters not in self.made:
            name = f"{path}.weight".lstrip(".")
            others = sum(taken.split("#")[0] == name for taken in self.made.values())
            self.made[parameters] = f"{name}#{others + 1}" if others else name
        return self.made[parameters], int(node.meta["val"].storage_offset())

    def _product(
        self,
        node: torch.fx.Node,
        path: str,
        values: Values,
        a: torch.fx.Node,
        b: torch.fx.Node,
        transpose_b: bool = False,
    ) -> None:
        x, y = a.meta["val"], b.meta["val"]
        if x.dim() == 1:
            x = x.unsqueeze(0)
        if y.dim() == 1:
            y = y.unsqueeze(0) if transpose_b else y.unsqueeze(1)
        if transpose_b:
            y = y.transpose(-1, -2)
        m, k, n = x.shape[-2], x.shape[-1], y.shape[-1]
        products = math.prod(torch.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
        constant = values[a].constant or values[b].constant
        if not constant:
            batch = self.batch if products % self.batch == 0 else 1
            layer = matmul(path, m, k, n, groups=products // batch, batch=batch)
            self._add(layer, node, path, "matmul", values, (a, b))
            return
        weight, w = (b, y) if values[b].constant else (a, x)
        if weight is a:  # W x: the weights' rows are the filters
            m, n = n, m
        copies = math.prod(size for size, stride in zip(w.shape[:-2], w.stride()[:-2], strict=True) if stride)
        rows = m * (products // copies)
        batch = self.batch if rows % self.batch == 0 else 1
        weight_name, offset = self._weight(weight, values, path)
        layer = linear(path, rows // batch, k, n, batch=batch, weight_name=weight_name, weight_offset=offset)
        filters, taps = (-1, -2) if weight is b else (-2, -1)
        layer = replace(layer, k_major=w.stride(filters) < w.stride(taps))
        arguments = _bind(node)
        layer = replace(layer, bias=arguments.get("bias") is not None or _operator(node) == "addmm")
        if copies > 1:
            layer = replace(
                layer, groups=copies, in_channels=copies * k, out_channels=copies * n, weights=copies * k * n
            )
        self._add(layer, node, path, "linear", values)

    def _attention(
        self,
        node: torch.fx.Node,
        path: str,
        values: Values,
        query: torch.fx.Node,
        key: torch.fx.Node,
        value: torch.fx.Node,
    ) -> None:
        q, k, v = query.meta["val"], key.meta["val"], value.meta["val"]
        if _bind(node).get("enable_gqa"):  # groups of query heads share the keys' and values'
            products = math.prod(torch.broadcast_shapes(q.shape[:-3], k.shape[:-3], v.shape[:-3])) * q.shape[-3]
        else:
            products = math.prod(torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2]))
        batch = 1 if any(number % self.batch for number in (products, *map(_size, (q, k, v)))) else self.batch
        heads, rows, columns = products // batch, q.shape[-2], k.shape[-2]
        name = str(node.target)
        scores = matmul(path, rows, q.shape[-1], columns, groups=heads, batch=batch, operator=name)
        operands = tuple((_sources(values, part), _size(part.meta["val"]) // batch) for part in (query, key, value))
        scores = replace(scores, sources=_sources(values, query, key), operands=operands[:2])
        self._append(scores, path, "scores")
        size = heads * rows * columns
        softmax = Layer(
            path, "softmax", batch, operations=5 * size, elements_read=size, elements_written=size, operator=name
        )
        self._append(replace(softmax, sources=(len(self.layers) - 1,)), path, "softmax")
        context = matmul(path, rows, columns, v.shape[-1], groups=heads, batch=batch, operator=name)
        last = len(self.layers) - 1
        sources = tuple(sorted({last, *values[value].layers}))
        self._append(replace(context, sources=sources, operands=(((last,), size), operands[2])), path, "context")

    def _vector(
        self,
        node: torch.fx.Node,
        op: str,
        kind: str,
        path: str,
        values: Values,
        operations: int,
        read: int | None = None,
    ) -> None:
        """A layer on the vector unit. Reads are the activation operands, each once, as large as they are stored."""
        output = _first(node)
        if read is None:
            read = sum(_size(part.meta["val"]) for part in node.all_input_nodes if not values[part].constant)
        inputs = [part.meta["val"] for part in node.all_input_nodes if not values[part].constant]
        constants = 0
        if kind == "elementwise":
            fixed = {part for part in node.all_input_nodes if values[part].constant}
            constants = sum(size for size in (_size(part.meta["val"]) for part in fixed) if size > 1)
        batch = self.batch
        if any(number % batch for number in (operations, read, _size(output))):
            batch = 1
        in_h, in_w, in_channels = _pixels(inputs[0], batch)
        out_h, out_w, out_channels = _pixels(output, batch)
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
            elements_written=_size(output) // batch,
            constants=constants,
        )
        if kind == "pool" and "kernel_size" in (arguments := _bind(node)):
            flat = op.endswith("1d")
            kernel = _many(arguments["kernel_size"], 1 if flat else 2)
            stride = _many(arguments.get("stride") or arguments["kernel_size"], len(kernel))
            kernel, stride = ((1, *kernel), (1, *stride)) if flat else (kernel, stride)
            layer = replace(layer, kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0], stride_w=stride[1])
        self._add(layer, node, path, op.strip("_"), values)


def _sources(values: Values, *nodes: torch.fx.Node) -> tuple[int, ...]:
    return tuple(sorted({index for node in nodes for index in values[node].layers}))


def _is_in_place(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _write(values: Values, node: torch.fx.Node, value: Value) -> None:
    """What is written into a view is in the tensor that it is a view of, beside what was there."""
    values[node] = value
    while isinstance(node.target, torch._ops.OpOverload) and node.target.is_view:
        node = node.all_input_nodes[0]
        before = values[node]
        layers = tuple(sorted({*before.layers, *value.layers}))
        values[node] = Value(layers, tuple(dict.fromkeys((*before.parameters, *value.parameters))))


def _path(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    path = path.removeprefix("L['self']").lstrip(".")
    path = path.removeprefix("root").lstrip(".") if path == "root" or path.startswith("root.") else path
    return path.split("@")[0]


def _operator(node: torch.fx.Node) -> str:
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return node.target._overloadpacket._qualified_op_name.split("::")[-1].removesuffix("_")


def _bind(node: torch.fx.Node) -> dict:
    """Arguments of an operator by the names of its schema, defaults included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    bound = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    bound |= {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    ordered = {argument.name: bound.get(argument.name) for argument in schema}
    return ordered | dict(node.kwargs)


def _is_free(target: torch._ops.OpOverload, op: str) -> bool:
    returns = target._schema.returns
    return op in FREE or not returns or target.is_view or not any("Tensor" in str(value.type) for value in returns)


def _opened(node: torch.fx.Node) -> torch.fx.GraphModule | None:
    """The parts of a composite operator as a graph whose placeholders are the node's tensor inputs; None if none."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if not target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return None
    inputs = node.all_input_nodes

    def call(*tensors: torch.Tensor) -> Any:
        known = dict(zip(inputs, tensors, strict=True))
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda part: known[part])
        return target(*args, **kwargs)

    # oneDNN's recurrent layers are one opaque operator; without it they are linear layers and gates
    with contextlib.suppress(NotImplementedError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            return make_fx(call)(*(part.meta["val"] for part in inputs))
    return None


def _first(node: torch.fx.Node) -> torch.Tensor:
    value = node.meta["val"]
    return value[0] if isinstance(value, (tuple, list)) else value


def _size(value: object) -> int:
    if isinstance(value, (tuple, list)):
        return sum(_size(part) for part in value)
    return int(value.numel()) if isinstance(value, torch.Tensor) else 0


def _pixels(tensor: torch.Tensor, batch: int) -> tuple[int, int, int]:
    """Height, width and channels as a buffer stores them: NCHW by its axes, anything else as rows of the last axis."""
    shape = tuple(tensor.shape)
    if len(shape) == 4:
        channels, height, width = shape[1:]
    elif len(shape) < 2:
        channels, height, width = int(tensor.numel()), 1, 1
    else:
        channels, height, width = shape[-1], math.prod(shape[:-1]), 1
    if len(shape) == 4 and shape[0] == batch:
        return height, width, channels
    return int(tensor.numel()) // batch // channels, 1, channels


def _many(value: int | list[int] | tuple[int, ...], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)
