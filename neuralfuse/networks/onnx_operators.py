"""What ONNX operators compute, as torch functions: inputs by position, attributes by name.

An attribute that a function does not name is refused. Defaults are those of the operator's schema at the model's opset.
Covers what classifiers of images, recurrent and attention networks are exported to, and what quantised ones are.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralfuse.networks.onnx_quantized import along, centred, dequantize_linear, quantize_linear, requantized
from neuralfuse.networks.onnx_recurrent import recurrent
from sram.errors import InputError

Operator = Callable[..., Any]  # a tensor, or a tuple of them
Ints = list[int] | None


def bound(node: Any, opset: int, where: Path) -> Callable[[list[Tensor]], Any]:
    """The function of a node, with its attributes. InputError names an operator, or an attribute, that is not read."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        raise InputError(where, "operator", node.op_type, ", ".join(OPERATORS)) from None
    before, legacy = LEGACY.get(node.op_type, (0, None))
    run = legacy if opset < before else OPERATORS.get(node.op_type)
    if run is None:
        raise InputError(where, "operator", node.op_type, ", ".join(OPERATORS))
    value = onnx.helper.get_attribute_value
    plain = {name: value(entry.default_value) for name, entry in schema.attributes.items() if entry.default_value.name}
    given = {entry.name: value(entry) for entry in node.attribute}
    read = inspect.signature(run).parameters.keys() - {"kind"}  # which is bound
    for name in sorted(given.keys() - read):
        if name not in plain or given[name] != plain[name]:
            raise InputError(where, f"{node.op_type} of opset {opset}", name, "attributes that the reader knows")
    values = {name: entry for name, entry in (plain | given).items() if name in read}
    values = {name: entry.decode() if isinstance(entry, bytes) else entry for name, entry in values.items()}
    if "outputs" in read:
        values["outputs"] = len(node.output)

    def call(inputs: list[Tensor]) -> Any:
        try:
            return run(inputs, **values)
        except InputError as error:
            raise InputError(where, error.key, error.value, error.allowed) from None

    return call


def _refuse(operator: str, attribute: str, value: object, allowed: str) -> None:
    raise InputError("ONNX", f"{operator}: {attribute}", value, allowed)


def padded(x: Tensor, pads: Sequence[int], auto_pad: str, value: float) -> Tensor:
    """ONNX pads [begin of every axis, end of every axis]; torch wants pairs from the last axis on."""
    if auto_pad not in ("NOTSET", "VALID"):
        _refuse("padding", "auto_pad", auto_pad, "explicit pads")
    half = len(pads) // 2
    pairs = [pads[axis + side * half] for axis in reversed(range(half)) for side in (0, 1)]
    return F.pad(x, pairs, value=value) if any(pairs) and auto_pad == "NOTSET" else x


def optional(i: list[Tensor], at: int) -> Tensor | None:
    """An input that may be left out; an empty name gives an empty tensor."""
    return i[at] if len(i) > at and i[at].numel() else None


def _conv(
    i: list[Tensor],
    *,
    strides: Ints = None,
    dilations: Ints = None,
    group: int = 1,
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    kernel_shape: Ints = None,
) -> Tensor:
    run = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[i[1].dim()]
    ones = [1] * (i[1].dim() - 2)
    x = padded(i[0], pads, auto_pad, 0.0)
    return run(x, i[1], optional(i, 2), strides or ones, 0, dilations or ones, group)


def _conv_transpose(  # noqa: PLR0913  (an operator has the attributes that it has)
    i: list[Tensor],
    *,
    strides: Ints = None,
    dilations: Ints = None,
    group: int = 1,
    pads: Ints = None,
    output_padding: Ints = None,
    output_shape: Ints = None,
    auto_pad: str = "NOTSET",
    kernel_shape: Ints = None,
) -> Tensor:
    """The whole result, of which the padding is cut off."""
    axes = i[1].dim() - 2
    run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[axes]
    strides, dilations, extra = strides or [1] * axes, dilations or [1] * axes, output_padding or [0] * axes
    pads = list(pads or [0] * 2 * axes) if auto_pad == "NOTSET" else [0] * 2 * axes
    size = list(i[0].shape[2:])
    if output_shape or auto_pad.startswith("SAME"):
        asked = output_shape[-axes:] if output_shape else [n * s for n, s in zip(size, strides, strict=True)]
        for axis in range(axes):
            span = (i[1].shape[2 + axis] - 1) * dilations[axis] + 1
            total = max(0, strides[axis] * (size[axis] - 1) + extra[axis] + span - asked[axis])
            small = total // 2
            pads[axis], pads[axis + axes] = (
                (small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small)
            )
    if pads[:axes] == pads[axes:] and not output_shape:
        return run(i[0], i[1], optional(i, 2), strides, pads[:axes], extra, group, dilations)
    whole = run(i[0], i[1], optional(i, 2), strides, 0, extra, group, dilations)
    for axis in range(axes):
        whole = whole.narrow(axis + 2, pads[axis], whole.shape[axis + 2] - pads[axis] - pads[axis + axes])
    return whole


def _gemm(i: list[Tensor], *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Tensor:
    product = alpha * ((i[0].T if transA else i[0]) @ (i[1].T if transB else i[1]))
    return product + beta * i[2] if len(i) > 2 else product


def _pool_stride(kernel_shape: list[int], strides: Ints, ceil_mode: int) -> list[int]:
    if ceil_mode or len(kernel_shape) != 2:
        _refuse("pooling", "kernel_shape and ceil_mode", [list(kernel_shape), ceil_mode], "two axes, ceil_mode 0")
    return strides or [1, 1]


def _max_pool(
    i: list[Tensor],
    *,
    kernel_shape: list[int],
    strides: Ints = None,
    dilations: Ints = None,
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Tensor:
    stride = _pool_stride(kernel_shape, strides, ceil_mode)
    x = padded(i[0].float(), pads, auto_pad, -torch.inf)  # of words, too
    return F.max_pool2d(x, kernel_shape, stride, dilation=dilations or [1, 1]).to(i[0].dtype)


def _average_pool(
    i: list[Tensor],
    *,
    kernel_shape: list[int],
    strides: Ints = None,
    dilations: Ints = None,
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    stride = _pool_stride(kernel_shape, strides, ceil_mode)
    if any(step != 1 for step in dilations or ()):
        _refuse("AveragePool", "dilations", dilations, "1 of every axis")
    total = F.avg_pool2d(padded(i[0], pads, auto_pad, 0.0), kernel_shape, stride)
    if count_include_pad or not any(pads):
        return total
    return total / F.avg_pool2d(padded(torch.ones_like(i[0]), pads, auto_pad, 0.0), kernel_shape, stride)


def _reshape(i: list[Tensor], *, allowzero: int = 0) -> Tensor:
    return i[0].reshape(
        [i[0].shape[k] if size == 0 and not allowzero else size for k, size in enumerate(i[1].tolist())]
    )


def _flatten(i: list[Tensor], *, axis: int = 1) -> Tensor:
    if axis == 1:
        return i[0].flatten(1)
    return i[0].reshape(int(np.prod(i[0].shape[: axis if axis >= 0 else axis + i[0].dim()])), -1)


def _clip(i: list[Tensor], *, min: float | None = None, max: float | None = None) -> Tensor:
    low, high = (x if (given := optional(i, at)) is None else given.item() for at, x in ((1, min), (2, max)))
    return i[0] if low is None and high is None else i[0].clamp(low, high)


def axes_of(i: list[Tensor], axes: Sequence[int] | None) -> list[int] | None:
    """An attribute before opset 13 (18 for reductions), an input since."""
    given = optional(i, 1)
    return axes if given is None else given.tolist()  # type: ignore[return-value]


def _squeeze(i: list[Tensor], *, axes: Ints = None) -> Tensor:
    where = axes_of(i, axes)
    return i[0].squeeze() if where is None else i[0].squeeze(list(where))


def _unsqueeze(i: list[Tensor], *, axes: Ints = None) -> Tensor:
    where = axes_of(i, axes) or []
    x = i[0]
    for axis in sorted(axis % (x.dim() + len(where)) for axis in where):
        x = x.unsqueeze(axis)
    return x


def _reduce_mean(i: list[Tensor], *, axes: Ints = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    where = axes_of(i, axes)
    if where is None and noop_with_empty_axes:
        return i[0]
    return i[0].mean(list(where) if where else list(range(i[0].dim())), keepdim=bool(keepdims))


def _sliced(i: list[Tensor]) -> Tensor:
    starts, ends = i[1].tolist(), i[2].tolist()
    axes, steps = optional(i, 3), optional(i, 4)
    where = list(range(len(starts))) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    x = i[0]
    for start, end, axis, step in zip(starts, ends, where, strides, strict=True):
        before = (slice(None),) * (axis % x.dim())
        if step > 0:
            x = x[(*before, slice(start, end, step))]
        else:
            kept = torch.tensor(list(range(*slice(start, end, step).indices(x.shape[axis]))), dtype=torch.int64)
            x = x.index_select(axis, kept.to(x.device))
    return x


def _sliced_before_10(i: list[Tensor], *, starts: Sequence[int], ends: Sequence[int], axes: Ints = None) -> Tensor:
    numbers = (starts, ends, axes or range(len(starts)))
    return _sliced([i[0], *(torch.tensor(list(part), dtype=torch.int64) for part in numbers)])


def _gather(i: list[Tensor], *, axis: int = 0) -> Tensor:
    axis %= i[0].dim()
    index = i[1].long()
    index = torch.where(index < 0, index + i[0].shape[axis], index)
    if axis == 0 and i[0].dim() == 2 and i[0].is_floating_point():
        return F.embedding(index, i[0])
    picked = torch.index_select(i[0], axis, index.flatten())
    return picked.reshape(i[0].shape[:axis] + index.shape + i[0].shape[axis + 1 :])


def _batch_norm(
    i: list[Tensor], *, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, spatial: int = 1
) -> Tensor:
    if training_mode or not spatial:
        _refuse("BatchNormalization", "training_mode", training_mode, "0, and spatial")
    return F.batch_norm(i[0], i[3], i[4], i[1], i[2], False, 0.0, epsilon)


def _layer_norm(i: list[Tensor], *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    return F.layer_norm(i[0], i[0].shape[axis % i[0].dim() :], i[1], optional(i, 2), epsilon)


def _cast(i: list[Tensor], *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    import onnx

    return i[0].to(torch.from_numpy(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(to))).dtype)


def _shape(i: list[Tensor], *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(i[0].shape)[start:end], dtype=torch.int64)


def _softmax_before_13(i: list[Tensor], *, axis: int = 1) -> Tensor:
    """Over all axes from `axis` on together."""
    axis %= i[0].dim()
    return F.softmax(i[0].flatten(axis), -1).reshape(i[0].shape)


def _constant_value(i: list[Tensor], *, value: Any) -> Tensor:
    from onnx import numpy_helper

    return torch.from_numpy(np.array(numpy_helper.to_array(value)))


def _split(i: list[Tensor], *, outputs: int, axis: int = 0, split: Ints = None, num_outputs: int = 0) -> Any:
    """Sizes are an attribute before opset 13, an input since; without them parts are alike, a last one may be less."""
    sizes = axes_of(i, split)
    return i[0].split(-(-i[0].shape[axis] // outputs) if sizes is None else list(sizes), axis)


def _constant_of_shape(i: list[Tensor], *, value: Any = None) -> Tensor:
    filled = torch.zeros(()) if value is None else _constant_value([], value=value).reshape(())
    return filled.to(i[0].device).expand(i[0].tolist())


def _expand(i: list[Tensor]) -> Tensor:
    return i[0].expand(torch.broadcast_shapes(i[0].shape, tuple(i[1].tolist())))


def _trilu(i: list[Tensor], *, upper: int = 1) -> Tensor:
    diagonal = 0 if (k := optional(i, 1)) is None else int(k)
    return i[0].triu(diagonal) if upper else i[0].tril(diagonal)


def _modulo(i: list[Tensor], *, fmod: int = 0) -> Tensor:
    return torch.fmod(i[0], i[1]) if fmod else torch.remainder(i[0], i[1])


def _reduce_sum(i: list[Tensor], *, axes: Ints = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    where = axes_of(i, axes)
    if where is None and noop_with_empty_axes:
        return i[0]
    return i[0].sum(list(where) if where else list(range(i[0].dim())), keepdim=bool(keepdims))


@wraps(_conv)
def _conv_integer(i: list[Tensor], **attributes: Any) -> Tensor:
    given = [centred(i[0], optional(i, 2)), centred(i[1], optional(i, 3))]
    return _conv(given, **attributes).to(torch.int32)


@wraps(_conv)
def _qlinear_conv(i: list[Tensor], **attributes: Any) -> Tensor:
    total = _conv([centred(i[0], i[2]), centred(i[3], i[5])], **attributes)
    if (bias := optional(i, 8)) is not None:
        total = total + along(bias.double(), total, 1)
    return requantized(total, along(i[1] * i[4] / i[6], total, 1), i[7])


def _matmul_integer(i: list[Tensor]) -> Tensor:
    a, b = centred(i[0], optional(i, 2), -2), centred(i[1], optional(i, 3), -1)
    return (a @ b).to(torch.int32)


def _qlinear_matmul(i: list[Tensor]) -> Tensor:
    total = centred(i[0], i[2], -2) @ centred(i[3], i[5], -1)
    return requantized(total, along(i[1], total, -2) * along(i[4], total, -1) / i[6], i[7])


def _divide(i: list[Tensor]) -> Tensor:
    return i[0] / i[1] if i[0].is_floating_point() else torch.div(i[0], i[1], rounding_mode="trunc")


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda i: i[0] @ i[1],
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda i: i[0].mean(tuple(range(2, i[0].dim())), keepdim=True),
    "ReduceMean": _reduce_mean,
    "Relu": lambda i: F.relu(i[0]),
    "LeakyRelu": lambda i, alpha=0.01: F.leaky_relu(i[0], alpha),
    "Sigmoid": lambda i: torch.sigmoid(i[0]),
    "HardSigmoid": lambda i, alpha=0.2, beta=0.5: (alpha * i[0] + beta).clamp(0, 1),
    "HardSwish": lambda i: F.hardswish(i[0]),
    "Tanh": lambda i: torch.tanh(i[0]),
    "Erf": lambda i: torch.erf(i[0]),
    "Gelu": lambda i, approximate="none": F.gelu(i[0], approximate=approximate),
    "Softmax": lambda i, axis=-1: F.softmax(i[0], axis),
    "Clip": _clip,
    "Add": lambda i: i[0] + i[1],
    "Sub": lambda i: i[0] - i[1],
    "Mul": lambda i: i[0] * i[1],
    "Div": _divide,
    "Pow": lambda i: i[0] ** i[1],
    "Sqrt": lambda i: torch.sqrt(i[0]),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda i, perm=None: i[0].permute(perm or list(reversed(range(i[0].dim())))),
    "Concat": lambda i, axis: torch.cat([torch.atleast_1d(x) for x in i], axis),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _sliced,
    "Gather": _gather,
    "Shape": _shape,
    "Identity": lambda i: i[0],
    "Dropout": lambda i, ratio=0.5, seed=0, is_test=1: i[0],
    "Cast": _cast,
    "Constant": _constant_value,
    "ConstantOfShape": _constant_of_shape,
    "Split": _split,
    "Expand": _expand,
    "Where": lambda i: torch.where(i[0], i[1], i[2]),
    "Equal": lambda i: i[0] == i[1],
    "Greater": lambda i: i[0] > i[1],
    "Less": lambda i: i[0] < i[1],
    "And": lambda i: i[0] & i[1],
    "Or": lambda i: i[0] | i[1],
    "Not": lambda i: ~i[0],
    "IsNaN": lambda i: torch.isnan(i[0]),
    "Neg": lambda i: -i[0],
    "Exp": lambda i: torch.exp(i[0]),
    "Round": lambda i: torch.round(i[0]),
    "Mod": _modulo,
    "Range": lambda i: torch.arange(i[0].item(), i[1].item(), i[2].item(), dtype=i[0].dtype),
    "Trilu": _trilu,
    "ReduceSum": _reduce_sum,
    **{kind: partial(recurrent, kind=kind) for kind in ("LSTM", "GRU", "RNN")},
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
}
SEVERAL = ("LSTM", "GRU", "RNN", "Split")  # tensors that they make
# operator: (the first opset of its present meaning, what it computed before)
LEGACY: dict[str, tuple[int, Operator]] = {"Softmax": (13, _softmax_before_13), "Slice": (10, _sliced_before_10)}
