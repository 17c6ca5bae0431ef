"""The sizes of every tensor of an ONNX model. What a file says of them is a claim: here it is inferred anew.

Exporters compute sizes and paddings by small graphs of their own (Shape, Gather, Mod, Where, Expand, ...). onnx's shape
inference sees through some of them; the rest is computed by onnx's reference evaluator, and inferred again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from sram.errors import InputError

SMALL = 4096  # elements; what is larger is no size, and no index of one
# The size of their result is in no schema: it hangs on values. It is no larger than what they are given.
SHRINKING = frozenset(("NonZero", "Compress", "Unique"))
RANDOM = frozenset("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli".split())


def sizes(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The size of every axis of a tensor, each 1 or more; None if one of them is not known, or empty.

    >>> of = lambda shape: onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    >>> [sizes(of(shape)) for shape in ([1, 3], [], None, [-1, 3], ["n", 3], [0, 3])]
    [(1, 3), (), None, None, None, None]
    """
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    found = tuple(axis.dim_value for axis in tensor.shape.dim)  # 0 where the axis is free
    return found if all(size > 0 for size in found) else None


def network_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no initialisers: before IR version 4 every initialiser had to be an input, too."""
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def bind_inputs(model: onnx.ModelProto, path: Path, shapes: Sequence[Sequence[int]]) -> bool:
    """Give every free axis of every input a size; True if there was one.

    `shapes`: of one sample of the first inputs. Axes of one name have one size; what is free of the first axes, the
    batch, is 1. InputError for a size that the file contradicts, and for an axis that stays free.
    """
    inputs = network_inputs(model.graph)
    if len(shapes) > len(inputs):
        raise InputError(path, "input shape", list(shapes), f"at most {len(inputs)} shapes, one for each input")
    named: dict[str, int] = {}
    filled = False
    for value, shape in zip(inputs, shapes, strict=False):
        filled |= _bind(value, shape, path, named)
    for value in inputs:
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            if _is_fixed(axis):
                continue
            size = named.setdefault(axis.dim_param, 1) if axis.dim_param and not position else named.get(axis.dim_param)
            if size is None and position:
                label = f"input {value.name}, axis {position}"
                raise InputError(path, label, axis.dim_param or "free", "a number; give the input shape of one sample")
            axis.dim_value = size or 1
            filled = True
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise InputError(path, f"input {value.name}", "no shape", "one in the file, or the input shape of a sample")
    return filled


def _bind(value: onnx.ValueInfoProto, shape: Sequence[int], path: Path, named: dict[str, int]) -> bool:
    tensor, filled = value.type.tensor_type, False
    if not tensor.HasField("shape"):
        tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in (None, *shape))
    axes = tensor.shape.dim
    in_file = [axis.dim_value if _is_fixed(axis) else axis.dim_param or "?" for axis in axes]
    if len(axes) != len(shape) + 1:
        raise InputError(path, "input shape", tuple(shape), f"{len(axes) - 1} numbers, for the axes {in_file[1:]}")
    for axis, size in zip(axes[1:], shape, strict=True):
        fixed = (
            axis.dim_value if _is_fixed(axis) else named.setdefault(axis.dim_param, size) if axis.dim_param else size
        )
        if fixed != size:
            raise InputError(path, "input shape", tuple(shape), f"that of the file: {in_file[1:]}")
        filled |= not _is_fixed(axis)
        axis.dim_value = size
    return filled


def _is_fixed(axis: onnx.TensorShapeProto.Dimension) -> bool:
    """-1 is how some exporters write a free axis; 0 is an empty one."""
    return axis.HasField("dim_value") and axis.dim_value >= 0


def infer(model: onnx.ModelProto, trust: bool) -> dict[str, tuple[int, ...]]:
    """Tensor -> its sizes, all positive; a tensor without is not known, or empty. Takes the model over.

    `trust` the file where nothing can be inferred (behind an operator of nobody's): only if all its sizes are its own.
    """
    graph = model.graph
    _lighten(graph)
    claims = {value.name: sizes(value) for value in (*graph.value_info, *graph.output)} if trust else {}
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    inputs = network_inputs(graph)
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # from where on initialisers need not be inputs
    model = shape_inference.infer_shapes(model, data_prop=True)
    while _fold(model):
        model = shape_inference.infer_shapes(model, data_prop=True)
    return {name: shape for name, shape in (claims | _shapes(model.graph)).items() if shape is not None}


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    found = {value.name: sizes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    found |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found |= {tensor.values.name: tuple(tensor.dims) for tensor in graph.sparse_initializer}
    return {name: shape for name, shape in found.items() if shape is not None and all(size > 0 for size in shape)}


def _lighten(graph: onnx.GraphProto) -> None:
    """Take the numbers out of weights: only their shapes are needed, and inference copies what it is given."""
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > SMALL:
            light = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(light)


def _fold(model: onnx.ModelProto) -> bool:
    """Replace operators on small known tensors by their results; whether there were any."""
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    shapes = _shapes(graph)
    values = {}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= SMALL and not tensor.external_data:
            values[tensor.name] = numpy_helper.to_array(tensor)
    kept: list[onnx.NodeProto] = []
    folded: dict[str, np.ndarray] = {}
    for node in graph.node:
        results = _computed(node, values, shapes, opsets)
        if results is None:
            kept.append(node)
        else:
            folded |= results
            values |= results
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in folded.items())
    return bool(folded)


def _computed(
    node: onnx.NodeProto, values: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], opsets: dict[str, int]
) -> dict[str, np.ndarray] | None:
    """The outputs of a node whose inputs are known (or of Shape and Size, whose input's sizes are); None if not."""
    operands = {name: values[name] for name in node.input if name in values}
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        operands = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}  # takes no memory
    known = len(operands) == len(set(node.input) - {""})
    bodies = any(attribute.HasField("g") for attribute in node.attribute)
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM or bodies or not known:
        return None
    small = (name in shapes and math.prod(shapes[name]) <= SMALL for name in node.output if name)
    if not (node.op_type in SHRINKING or all(small)):
        return None
    given, made = ([onnx.ValueInfoProto(name=name) for name in part if name] for part in (operands, node.output))
    graph = onnx.helper.make_graph([node], "sizes", given, made)  # a node alone would be taken as of the newest opset
    try:
        results = ReferenceEvaluator(graph, opsets=opsets).run(None, operands)
    except Exception:  # an odd node stays as it is: its readers say that they have no shape
        return None
    if not all(isinstance(result, (np.ndarray, np.generic)) for result in results):
        return None
    return {name: np.asarray(result) for name, result in zip(filter(None, node.output), results, strict=True)}
