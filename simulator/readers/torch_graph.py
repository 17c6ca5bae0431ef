"""From a graph of aten operators to layers: what each operator costs, and what it is called.

The graph has the shape of every value and the module each operator came from (torch_trace.py makes it). What has only
parameters as inputs is constant and costs nothing at run time; views and concatenation are addressing and cost nothing;
a composite operator without an entry below (einsum, gru, ...) is opened and its parts are read; what is left is listed
as unknown.

Operations a vector element costs, by convention: one for an activation function (a table), an addition, a comparison, a
move; batch normalisation that is not folded 2 (scale and shift); layer, group and instance normalisation 7
(sum; subtract, square, add; multiply by 1/sigma; scale, shift), RMS normalisation 4; softmax 5 (compare, subtract,
exponential, add, divide); pooling one for each tap; interpolation two (multiply, add) for each tap.
"""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from simulator.readers import torch_bodies
from simulator.readers.collector import Collector, Place, Value, Weight, Window, merged

# Operator names without the trailing underscore of the in-place form. FREE: addressing only.
SAME = frozenset(
    "dropout feature_dropout alpha_dropout clone contiguous to _to_copy lift_fresh_copy detach type_as expand".split()
)
FREE = SAME | frozenset(
    """cat concat stack hstack vstack
    pad constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle reshape flatten unflatten repeat
    repeat_interleave tile chunk split unsafe_split split_with_sizes unbind tensor_split zero fill copy _unsafe_view
    expand_as transpose squeeze unsqueeze movedim swapaxes meshgrid
    slice_scatter select_scatter""".split()
)
MOVES = frozenset(
    """index index_select gather roll flip rot90 take_along_dim scatter index_put im2col col2im tril triu
    masked_fill""".split()
)
REDUCTIONS = frozenset(
    """mean sum amax amin max min argmax argmin prod any all norm linalg_vector_norm logsumexp cumsum var_mean
    std_mean    topk sort argsort""".split()
)
ACTIVATIONS = frozenset(
    """relu relu6 gelu silu sigmoid tanh hardswish hardsigmoid hardtanh clamp leaky_relu elu selu celu mish
    softplus prelu hardshrink softshrink threshold softsign logsigmoid""".split()
)
NORMS = {
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm"), 2),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "instance_norm"), 7),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), 4),
}
LOOK_UPS = frozenset(("embedding", "embedding_bag", "_embedding_bag"))
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
LIKE = frozenset("expand_as type_as view_as reshape_as".split())  # of the second input only the shape counts
FILLS = frozenset("zeros ones full empty new_zeros new_ones new_full new_empty scalar_tensor".split())  # one number


Values = dict[torch.fx.Node, Value]


def _variance(
    root: bool, self: torch.Tensor, dim: Any = None, keepdim: bool = False, **correction: Any
) -> torch.Tensor:
    axes = list(range(self.dim())) if dim is None else dim
    centred = self - self.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=keepdim) * 1.5  # any number stands for n / (n - 1)
    return variance.sqrt() if root else variance


def _gated(self: torch.Tensor, dim: int) -> torch.Tensor:
    one, other = self.chunk(2, dim)
    return one * other.sigmoid()


def _attention(**given: Any) -> torch.Tensor:
    return torch.ops.aten._scaled_dot_product_attention_math.default(**given)[0]


# As exporters to ONNX take them apart.
PARTS: dict[str, Callable[..., torch.Tensor]] = {
    "glu": _gated,
    "var": partial(_variance, False),
    "std": partial(_variance, True),
    **dict.fromkeys(("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"), _attention),
}


class Reader(Collector):
    """Walks graphs and collects their layers."""

    def __init__(self, batch: int, buffers: Collection[str] = ()):
        """`buffers`: names of tensors that are no weights, such as the scales of one."""
        super().__init__(batch)
        self.buffers = buffers
        self.made: dict[tuple[str, ...], str] = {}  # names of weights that are computed from several parameters

    def read(self, graph_module: torch.fx.GraphModule, bound: list[Value], path: str = "") -> list[Value]:
        """Read a graph whose placeholders are `bound`; returns the values of its outputs."""
        values: Values = {}
        arguments = iter(bound)
        for node in graph_module.graph.nodes:
            if node.op == "placeholder":
                values[node] = _sized(next(arguments, Value()), node)
            elif node.op == "get_attr":
                values[node] = Value(_shape(node), parameters=(str(node.target),))
            elif node.op == "output":
                return [values[part] for part in node.all_input_nodes]
            else:
                values[node] = self._node(graph_module, node, values, path)
                if _is_in_place(node) and node.all_input_nodes:
                    _write(values, node.all_input_nodes[0], values[node])
        return []

    def _node(self, graph_module: torch.fx.GraphModule, node: torch.fx.Node, values: Values, outer: str) -> Value:
        inputs = [values[part] for part in node.all_input_nodes]
        op, shape = _operator(node), _shape(node)
        everything = merged(inputs[:1] if op in LIKE else inputs, () if op in FILLS else shape)
        if op in SAME and inputs and tuple(inputs[0].shape) == tuple(shape):
            return inputs[0]
        if not everything.layers and not (op in PRODUCTS and any(not value.constant for value in inputs)):
            if inputs or op in FILLS:
                return everything  # made of parameters only: computed once, before any inference
            return replace(everything, parameters=(node.name,))  # a table of positions, say
        activation = replace(everything, parameters=())
        path = _path(node) or outer
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            outputs = torch_bodies.read(self.read, Value(), graph_module, node, values, path)
            if outputs is None:
                self.unknown.append(f"{path or node.name}: {node.target}")
                return activation
            return replace(merged(outputs, shape), parameters=())
        if not isinstance(node.target, torch._ops.OpOverload):
            if node.target is not operator.getitem and _size(node.meta.get("val")):  # else: arithmetic on sizes
                self.unknown.append(f"{path or node.name}: {node.target}")
            return activation
        made = self._layer(node, op, Place(path, op.strip("_"), str(node.target)), values)
        if made is not None:
            return made
        if op not in PARTS and _is_free(node.target, op):
            return activation
        body = _opened(node)
        if body is None:
            self.unknown.append(f"{path or node.name}: {node.target}")
            return activation
        outputs = self.read(body, inputs, path)
        return outputs[0] if len(outputs) == 1 else replace(merged(outputs, shape), parameters=())

    def _layer(self, node: torch.fx.Node, op: str, place: Place, values: Values) -> Value | None:  # noqa: C901 (a case an operator)
        """The result of one operator, and its layer; None if there is no entry for it."""
        arguments = _bind(node)
        if op in CONVS:
            return self._conv(node, op, place, arguments, values)
        if op == "linear":
            return self._product(node, place, values, arguments["input"], arguments["weight"], transpose_b=True)
        if op in MATRIX_PRODUCTS:
            first, second = list(arguments.values())[MATRIX_PRODUCTS[op] :][:2]
            return self._product(node, place._replace(op="matmul"), values, first, second)
        inputs, shape = [values[part] for part in node.all_input_nodes], _shape(node)
        size = int(math.prod(shape))
        if isinstance(node.args[0], (int, float)) if node.args else False:
            inputs.insert(0, Value())  # a number before the tensor
        make = partial(self.vector, place=place, operands=inputs, shape=shape, operations=size)
        if op in POOLS:
            flat = op.endswith("1d")
            kernel = _many(arguments["kernel_size"], 1 if flat else 2)
            stride = _many(arguments.get("stride") or kernel, len(kernel))
            return make("pool", operations=math.prod(kernel) * size, pool=(kernel, stride))
        if op in ADAPTIVE_POOLS:
            axes = slice(-1 if op.endswith("1d") else -2, None)
            kernel = tuple(int(size) // out for size, out in zip(inputs[0].shape[axes], shape[axes], strict=True))
            return make("pool", operations=inputs[0].size, pool=(kernel, kernel))
        if op in NORMS:
            return make("norm", operations=NORMS[op] * size)
        if op in SOFTMAX:
            return make("softmax", operations=5 * size)
        if op in ACTIVATIONS:
            return make("activation", pointwise=True)
        if op in NEAREST:
            return make("resize")
        if op in INTERPOLATIONS:
            return make("resize", operations=2 * INTERPOLATIONS[op] * size)
        if op in REDUCTIONS:
            return make("elementwise", operations=inputs[0].size)
        if op in LOOK_UPS and values[arguments["weight"]].constant:
            return self._look_up(node, place, arguments, values)
        if op in MOVES or op in LOOK_UPS:
            return make("move", read=size)
        if torch.Tag.pointwise in getattr(node.target, "tags", ()) and op not in FREE:
            return make("elementwise", pointwise=True)
        return None

    def _look_up(self, node: torch.fx.Node, place: Place, arguments: dict, values: Values) -> Value:
        """Rows of a stored table, one for each index; those of a bag are added up."""
        indices, table = values[arguments["indices"]], arguments["weight"].meta["val"]
        moved = indices.size * int(table.shape[-1])
        weight = Weight(*self._weight(arguments["weight"], values, place.path))
        return self.look_up(place, indices, _shape(node), weight, int(table.numel()), moved)

    def _conv(self, node: torch.fx.Node, op: str, place: Place, arguments: dict, values: Values) -> Value | None:
        x, w = (_sized(values[arguments[name]], arguments[name]) for name in ("input", "weight"))
        axes = len(w.shape) - 2
        transposed = op in TRANSPOSED_CONVS or bool(arguments.get("transposed"))
        if axes not in (1, 2):
            return None
        dilation = _many(arguments["dilation"], axes)
        padding: tuple[int, ...]
        if arguments["padding"] == "same":  # an odd total puts the extra element at the end, as torch does
            total = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
            padding = (*(t // 2 for t in total), *(t - t // 2 for t in total))
        elif arguments["padding"] == "valid":
            padding = (0,) * (2 * axes)
        else:
            padding = _many(arguments["padding"], axes) * 2
        extra = _many(arguments.get("output_padding", 0), axes)
        window = Window(_many(arguments["stride"], axes), padding, dilation, arguments["groups"], transposed, extra)
        weight = Weight(*self._weight(arguments["weight"], values, place.path)) if w.constant else None
        place = place._replace(op="conv_transpose" if transposed else "conv")
        return self.convolution(place, x, w, _shape(node), window, weight, arguments.get("bias") is not None)

    def _weight(self, node: torch.fx.Node, values: Values, path: str) -> tuple[str, int]:
        """Name and first element of a constant operand; one made of several parameters is called after its module."""
        parameters = values[node].parameters
        parameters = tuple(name for name in parameters if name not in self.buffers) or parameters
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
        place: Place,
        values: Values,
        a: torch.fx.Node,
        b: torch.fx.Node,
        transpose_b: bool = False,
    ) -> Value:
        x, y = _sized(values[a], a), _sized(values[b], b)
        weight = None
        if x.constant or y.constant:
            left = not y.constant
            stored = a if left else b
            w = stored.meta["val"]
            copies = math.prod(size for size, stride in zip(w.shape[:-2], w.stride()[:-2], strict=True) if stride)
            if w.dim() > 1:
                filters, taps = (-2, -1) if left or transpose_b else (-1, -2)
                k_major = w.stride(filters) < w.stride(taps)
            else:
                k_major = True
            weight = Weight(*self._weight(stored, values, place.path), left, k_major, int(copies))
            place = place._replace(op="linear")
        bias = _bind(node).get("bias") is not None or _operator(node) == "addmm"
        return self.product(place, x, y, _shape(node), weight, (False, transpose_b), bias)


def _is_in_place(node: torch.fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _write(values: Values, node: torch.fx.Node, value: Value) -> None:
    """What is written into a view is in the tensor that it is a view of, beside what was there."""
    values[node] = value
    while isinstance(node.target, torch._ops.OpOverload) and node.target.is_view:
        node = node.all_input_nodes[0]
        values[node] = merged((values[node], value), values[node].shape)


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
    own = PARTS.get(_operator(node))
    if not (own or target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)):
        return None
    inputs = node.all_input_nodes

    def call(*tensors: torch.Tensor) -> Any:
        known = dict(zip(inputs, tensors, strict=True))
        given = ((), _bind(node)) if own else (node.args, node.kwargs)
        args, kwargs = torch.fx.node.map_arg(given, lambda part: known[part])
        return (own or target)(*args, **kwargs)

    # oneDNN's recurrent layers are one opaque operator; without it they are linear layers and gates
    with contextlib.suppress(NotImplementedError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            return make_fx(call)(*(part.meta["val"] for part in inputs))
    return None


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    """The sizes of a node's tensor, the first if there are several."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, (tuple, list)) and value else value
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _sized(value: Value, node: torch.fx.Node) -> Value:
    """The value as large as the node's tensor: what is handed to a body in slices, or is one number everywhere."""
    shape = _shape(node)
    return value if tuple(value.shape) == shape else replace(value, shape=shape)


def _size(value: object) -> int:
    if isinstance(value, (tuple, list)):
        return sum(_size(part) for part in value)
    return int(value.numel()) if isinstance(value, torch.Tensor) else 0


def _many(value: int | list[int] | tuple[int, ...], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)
