"""Integers of a quantised ONNX model: what QuantizeLinear and its kind compute, and QONNX's `Quant` in ONNX's own
operators.

Products and sums are of whole numbers in float64, which is exact below 2^53. Scales are float32, and what is rounded is
rounded half to even, as ONNX and onnxruntime do.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sram.errors import InputError

# Where an operator reads the words of a weight, and where scales and zero points, which are no weights.
WORDS = {
    "DequantizeLinear": (0,), "QLinearConv": (3,), "QLinearMatMul": (0, 3), "ConvInteger": (1,), "MatMulInteger": (0, 1)
}  # fmt: skip
SCALES = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
}  # fmt: skip
QONNX = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")


def along(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale or zero point of a tensor, or one each along an axis, as it multiplies x."""
    return scale.reshape([-1 if k == axis % x.dim() else 1 for k in range(x.dim())]) if scale.numel() > 1 else scale


def quantize_linear(i: list[Tensor], *, axis: int = 1, saturate: int = 1) -> Tensor:
    """Words of the zero point's type, uint8 without one."""
    zero = i[2] if len(i) > 2 and i[2].numel() else torch.zeros((), dtype=torch.uint8, device=i[0].device)
    return _saturated((i[0] / along(i[1], i[0], axis)).round() + along(zero, i[0], axis), zero.dtype)


def dequantize_linear(i: list[Tensor], *, axis: int = 1) -> Tensor:
    """(word - zero point) times scale."""
    x = i[0].float()
    if len(i) > 2 and i[2].numel():
        x = x - along(i[2].float(), x, axis)
    return x * along(i[1], x, axis)


def requantized(total: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Sums of products as words of the zero point's type; `scale`: of the product over that of the answer."""
    return _saturated((total.float() * scale).round() + zero, zero.dtype)


def centred(x: Tensor, zero: Tensor | None, axis: int = 0) -> Tensor:
    """Words less their zero point, exactly."""
    return x.double() if zero is None or not zero.numel() else x.double() - along(zero.double(), x, axis)


def _saturated(x: Tensor, kind: torch.dtype) -> Tensor:
    limits = torch.iinfo(kind)
    return x.clamp(limits.min, limits.max).to(kind)


def without_quant(graph: Any, where: object) -> dict[str, int]:
    """Write QONNX's `Quant` nodes of a graph in ONNX's own operators: of a weight its words and DequantizeLinear.
    Returns how many bits such words have, by name. InputError for what this does not read."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: entry.t
        for node in graph.node
        if node.op_type == "Constant"
        for entry in node.attribute
        if entry.name == "value"
    }
    bits: dict[str, int] = {}
    nodes = []
    for node in graph.node:
        if node.domain not in QONNX or node.op_type != "Quant":
            nodes.append(node)
            continue
        given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        mode = given.get("rounding_mode", b"ROUND").decode().upper()
        missing = [name for name in node.input[1:] if name not in constants]
        if missing or mode != "ROUND":
            raise InputError(where, f"Quant that makes {node.output[0]}", missing or mode, "constants, and ROUND")
        scale, zero, width = (numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input[1:])
        wide, signed, narrow = float(width.ravel()[0]), bool(given.get("signed", 1)), bool(given.get("narrow", 0))
        if width.size != 1 or wide not in range(2, 9) or (zero % 1).any():
            allowed = "one whole number from 2 to 8, and whole zero points"
            raise InputError(where, f"Quant that makes {node.output[0]}", ["bitwidth", width.tolist()], allowed)
        low = -(2 ** (wide - 1)) + narrow if signed else 0
        high = 2 ** (wide - 1) - 1 if signed else 2**wide - 1 - narrow

        def part(name: str, array: np.ndarray, output: str = node.output[0]) -> str:
            graph.initializer.append(numpy_helper.from_array(array, f"{output}.{name}"))
            return f"{output}.{name}"

        if node.input[0] in constants:
            weight = numpy_helper.to_array(constants[node.input[0]])
            words = np.clip(np.round(weight / scale + zero), low, high).astype(np.int8 if signed else np.uint8)
            axis = int(np.argmax(scale.shape)) + weight.ndim - scale.ndim if scale.size > 1 else 0
            if scale.size != max(scale.shape, default=1) or zero.size not in (1, scale.size):
                raise InputError(where, f"Quant that makes {node.output[0]}", list(scale.shape), "scales of one axis")
            name = part("words", words)
            bits[name] = int(wide)
            zeros = np.broadcast_to(zero.reshape(-1), scale.size).astype(words.dtype)
            flat = (scale.ravel(), zeros) if scale.size > 1 else (scale.reshape(()), zeros.reshape(()))
            inputs = [name, part("scale", flat[0]), part("zero", flat[1])]
            nodes.append(helper.make_node("DequantizeLinear", inputs, node.output, axis=axis))
            continue
        s, z = part("scale", scale), part("zero", zero)
        ends = [part(key, np.array(end, np.float32)) for key, end in (("low", low), ("high", high))]
        chain = [("Div", s), ("Add", z), ("Round", ""), ("Clip", ""), ("Sub", z), ("Mul", s)]
        last = node.input[0]
        for step, (kind, other) in enumerate(chain):
            output = node.output[0] if kind == "Mul" else f"{node.output[0]}.{step}"
            nodes.append(
                helper.make_node(kind, [last, *(ends if kind == "Clip" else [other] if other else [])], [output])
            )
            last = output
    del graph.node[:]
    graph.node.extend(nodes)
    return bits
