"""A network as a device runs it: 8-bit weights in its memory, 8-bit activations, 32-bit sums. Standard library and
NumPy only.

A Program says what to do with which bytes of the weight memory; it holds no weights. Everything but the matrix product
(scales, offsets, ReLU, pooling) is done here, next to the array, in the same float operations for every backend. So two
devices whose memories read the same and whose arrays multiply exactly give the same outputs to the last bit.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sram.errors import InputError

MOST_STEPS = 4096
MOST_ELEMENTS = 1 << 26  # of one tensor of a batch, patches of a convolution included: bounds a run's memory
MOST_MACS = 1 << 36  # of one run: bounds its time
MOST_TAPS = (1 << 31) // (128 * 128) - 1  # products of two int8 that a 32-bit sum always holds
Shape = tuple[int, int, int]
Pair = tuple[int, int]  # of rows, of columns


@dataclass(frozen=True)
class Conv:
    """A convolution (a linear layer is one of 1x1) on the array, then scale, offset and ReLU per filter.

    `source` and every other tensor is named by its place: 0 the batch, i the output of step i. Weights int8, row-major
    [filters, channels / groups, kernel_h, kernel_w] at byte `address`. Activations are rounded to int8 in units of
    `input_scale`; output = scale[f] * sum + offset[f].
    """

    source: int
    address: int
    filters: int
    channels: int
    kernel_h: int
    kernel_w: int
    stride: Pair
    padding: Pair  # before and behind
    groups: int
    input_scale: float
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    relu: bool

    @property
    def taps(self) -> int:
        """Weights of one filter."""
        return self.channels // self.groups * self.kernel_h * self.kernel_w

    @property
    def weights(self) -> int:
        """Weights of all filters."""
        return self.filters * self.taps


@dataclass(frozen=True)
class Add:
    """Sum of two tensors, then ReLU if asked."""

    source: int
    other: int
    relu: bool


@dataclass(frozen=True)
class Pool:
    """Mean or max over size x size without overlap; size 0 is the whole plane."""

    source: int
    kind: str
    size: int


@dataclass(frozen=True)
class Flatten:
    """[c, h, w] to [c * h * w, 1, 1]."""

    source: int


Step = Conv | Add | Pool | Flatten
STEPS: dict[str, type] = {"conv": Conv, "add": Add, "pool": Pool, "flatten": Flatten}


@dataclass(frozen=True)
class Program:
    """Steps in order; the last one's output, flattened, is the network's. InputError where shapes do not fit.

    `units`: of each tensor, what a word of it stands for in the activation memory; None where it is not stored. Without
    units all tensors are kept as they are, as if no memory were between the layers.

    >>> linear = Conv(0, address=0, filters=2, channels=3, kernel_h=1, kernel_w=1, stride=(1, 1), padding=(0, 0),
    ...               groups=1, input_scale=0.5, scale=(1.0, 1.0), offset=(0.0, 0.5), relu=False)
    >>> program = Program((3, 1, 1), (linear,))
    >>> program.shapes, program.weight_bytes
    (((3, 1, 1), (2, 1, 1)), 6)
    >>> Program.from_json(program.to_json()) == program
    True
    """

    input_shape: Shape
    steps: tuple[Step, ...]
    units: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise InputError("program", "steps", len(self.steps), f"1 to {MOST_STEPS}")
        if len(self.input_shape) != 3 or not all(1 <= size <= MOST_ELEMENTS for size in self.input_shape):
            raise InputError("program", "input_shape", self.input_shape, "three positive sizes: c, h, w")
        _ = self.shapes
        stored = [unit is not None for unit in self.units]
        if self.units and stored != [tensor in self.stored for tensor in range(len(self.steps) + 1)]:
            raise InputError("program", "units", stored, f"one of each stored tensor: {self.stored}")

    @cached_property
    def stored(self) -> tuple[int, ...]:
        """Tensors that lie in the activation memory: all that the next step, off the array, does not take as they leave
        the step before and nobody else reads (`simulator.array.memory`). One that is flattened there lies there once.
        """
        readers: list[list[int]] = [[] for _ in range(len(self.steps) + 1)]
        for place, step in enumerate(self.steps, start=1):
            for tensor in {step.source, getattr(step, "other", step.source)}:
                readers[tensor].append(place)
        stored, there = [0], {0}
        for tensor, step in enumerate(self.steps, start=1):
            if isinstance(step, Flatten) and step.source in there:
                there.add(tensor)
            elif readers[tensor] != [tensor + 1] or isinstance(self.steps[tensor], Conv):
                stored.append(tensor)
                there.add(tensor)
        return tuple(stored)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of the batch's images and of each step's output."""
        shapes = [self.input_shape]
        for place, step in enumerate(self.steps):
            shapes.append(_output_shape(place, step, shapes))
        return tuple(shapes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weight memory from address 0 that the program reads."""
        return max((s.address + s.weights for s in self.steps if isinstance(s, Conv)), default=0)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        names = {kind: name for name, kind in STEPS.items()}
        steps = [{"do": names[type(step)], **asdict(step)} for step in self.steps]
        steps = [{k: list(v) if isinstance(v, tuple) else v for k, v in step.items()} for step in steps]
        units = {"units": list(self.units)} if self.units else {}
        return {"input_shape": list(self.input_shape), "steps": steps, **units}

    @staticmethod
    def from_json(record: Any) -> "Program":
        """Program of what `to_json` gave. InputError for anything else, however hostile."""
        if not isinstance(record, dict) or set(record) - {"units"} != {"input_shape", "steps"}:
            raise InputError("program", "keys", _short(record), "input_shape, steps, and units or not")
        shape, steps = record["input_shape"], record["steps"]
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise InputError("program", "input_shape", _short(shape), "three positive sizes: c, h, w")
        if not isinstance(steps, list) or len(steps) > MOST_STEPS:
            raise InputError("program", "steps", _short(steps), f"a list of 1 to {MOST_STEPS}")
        units = record.get("units", [])
        if not isinstance(units, list) or not all(unit is None or (type(unit) is float and unit > 0) for unit in units):
            raise InputError("program", "units", _short(units), "a positive number for each tensor, or null")
        made = (_step(place, step) for place, step in enumerate(steps))
        return Program(tuple(shape), tuple(made), tuple(units))  # type: ignore[arg-type]


def _short(value: Any) -> str:
    return repr(value)[:60] if not isinstance(value, dict | list) else f"{type(value).__name__} of {len(value)}"


def _step(place: int, record: Any) -> Step:
    where = f"program step {place + 1}"
    if not isinstance(record, dict) or not isinstance(record.get("do"), str) or record["do"] not in STEPS:
        raise InputError(where, "do", _short(record), ", ".join(STEPS))
    kind = STEPS[record["do"]]
    names = {field.name for field in fields(kind)}
    if set(record) != names | {"do"}:
        raise InputError(where, "keys", sorted(str(k)[:20] for k in record)[:20], ", ".join(sorted(names)))
    return kind(**{field.name: _value(where, field.name, field.type, record[field.name]) for field in fields(kind)})


def _value(where: str, key: str, kind: Any, value: Any) -> Any:
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:  # NaN, infinity and huge integers fail
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    if kind == Pair and isinstance(value, list) and len(value) == 2:
        return tuple(_value(where, f"{key}[{i}]", int, v) for i, v in enumerate(value))
    if kind == tuple[float, ...] and isinstance(value, list):
        return tuple(_value(where, f"{key}[{i}]", float, v) for i, v in enumerate(value))
    raise InputError(where, key, _short(value), getattr(kind, "__name__", str(kind)))


def _output_shape(place: int, step: Step, shapes: list[Shape]) -> Shape:
    where = f"program step {place + 1}"
    for key in ("source", "other"):
        tensor = getattr(step, key, 0)
        if not 0 <= tensor < len(shapes):
            raise InputError(where, key, tensor, f"0 to {place}, a tensor that is there by then")
    c, h, w = shapes[step.source]
    shape: Shape
    if isinstance(step, Conv):
        shape = _conv_shape(where, step, c, h, w)
    elif isinstance(step, Add):
        if shapes[step.other] != (c, h, w):
            raise InputError(where, "other", shapes[step.other], f"the shape of source, {(c, h, w)}")
        shape = (c, h, w)
    elif isinstance(step, Pool):
        if step.kind not in ("mean", "max"):
            raise InputError(where, "kind", step.kind[:20], "mean, max")
        if not 0 <= step.size <= min(h, w):
            raise InputError(where, "size", step.size, f"0 to {min(h, w)}")
        shape = (c, h // step.size, w // step.size) if step.size else (c, 1, 1)
    else:
        shape = (c * h * w, 1, 1)
    if math.prod(shape) > MOST_ELEMENTS:
        raise InputError(where, "shape", shape, f"at most {MOST_ELEMENTS} elements")
    return shape


def _conv_shape(where: str, step: Conv, c: int, h: int, w: int) -> Shape:
    for key in ("filters", "channels", "kernel_h", "kernel_w", "groups"):
        if not 1 <= getattr(step, key) <= 1 << 20:
            raise InputError(where, key, getattr(step, key), "1 to 2**20")
    if not all(1 <= each <= 1 << 20 for each in step.stride):
        raise InputError(where, "stride", step.stride, "1 to 2**20, of rows and of columns")
    if step.channels != c:
        raise InputError(where, "channels", step.channels, f"{c}, those of its source")
    if step.channels % step.groups or step.filters % step.groups:
        raise InputError(where, "groups", step.groups, "a divisor of channels and filters")
    if not all(0 <= each < 1 << 16 for each in step.padding) or not 0 <= step.address < 1 << 40:
        raise InputError(where, "padding, address", (step.padding, step.address), "not negative")
    if len(step.scale) != step.filters or len(step.offset) != step.filters or not step.input_scale > 0:
        raise InputError(where, "scale", len(step.scale), f"{step.filters} scales and offsets, input_scale above 0")
    padded = (h + 2 * step.padding[0], w + 2 * step.padding[1])
    high, wide = padded[0] - step.kernel_h, padded[1] - step.kernel_w
    if high < 0 or wide < 0:
        raise InputError(where, "kernel", (step.kernel_h, step.kernel_w), f"inside the padded plane of {h}x{w}")
    if step.taps > MOST_TAPS:
        raise InputError(where, "taps", step.taps, f"at most {MOST_TAPS}, so that 32-bit sums never overflow")
    out = (high // step.stride[0] + 1, wide // step.stride[1] + 1)
    if max(math.prod(out) * step.taps * step.groups, math.prod(padded) * c) > MOST_ELEMENTS:
        raise InputError(where, "shape", (*out, step.taps), f"patches of at most {MOST_ELEMENTS} elements")
    return (step.filters, *out)


# Sums int32[m, n] of activations int8[m, k] with the n x k weights at a byte address, and what that cost.
MatMul = Callable[[NDArray[np.int8], int, int], NDArray[np.int32]]
# What the words int8[b, elements] of a stored tensor become, in place, when they are read back.
ReadBack = Callable[[int, NDArray[np.int8]], object]
# What becomes, in place, of sums int32[b, pixels, filters] that the array made tensor `place` of, from words
# int8[b, h, w, channels].
InArray = Callable[[int, NDArray[np.int8], NDArray[np.int32]], object]


def execute(
    program: Program,
    batch: NDArray[np.float32],
    matmul: MatMul,
    read_back: ReadBack = lambda tensor, words: None,
    in_array: InArray = lambda place, words, sums: None,
) -> NDArray[np.float32]:
    """Outputs float32[b, classes] of batch float32[b, c, h, w], or [b, c]. `matmul(activations, address, n)` is the
    array, `read_back(tensor, words)` the activation memory of a program with units, and `in_array(place, words, sums)`
    what goes wrong in the array that `matmul` does not know of.

    InputError for a batch of another shape, with values that are not finite, or too large for one run.
    """
    batch = batch[(..., *(None,) * (4 - batch.ndim))]
    if batch.shape[1:] != program.input_shape or not len(batch):
        raise InputError("run", "batch", batch.shape, f"(b, {', '.join(map(str, program.input_shape))})")
    widest = max(
        [math.prod(s) for s in program.shapes] + [_patch_elements(program, i) for i in range(len(program.steps))]
    )
    if len(batch) * widest > MOST_ELEMENTS:
        raise InputError("run", "batch", len(batch), f"at most {max(1, MOST_ELEMENTS // widest)} images a run")
    if (macs := len(batch) * sum(_macs(program, i) for i in range(len(program.steps)))) > MOST_MACS:
        raise InputError("run", "batch", len(batch), f"at most {MOST_MACS} multiplications a run, not {macs}")
    if not np.isfinite(batch).all():
        raise InputError("run", "batch", "NaN or infinity", "finite values")
    last_use = {t: i for i, s in enumerate(program.steps) for t in (s.source, getattr(s, "other", s.source))}
    lowest = -128 if program.units else -127  # no activation is written as -128, but a faulty cell may make one of it
    tensors: list[Any] = [_kept(program, 0, batch, read_back)]
    for place, step in enumerate(program.steps):
        made = _do(step, tensors, matmul, functools.partial(in_array, place + 1), lowest)
        tensors.append(_kept(program, place + 1, made, read_back))
        for tensor in {step.source, getattr(step, "other", step.source)}:
            if last_use[tensor] == place:
                tensors[tensor] = None  # frees memory: only what is still to be read is kept
    return tensors[-1].reshape(len(batch), -1)


def _kept(program: Program, tensor: int, x: NDArray[np.float32], read_back: ReadBack) -> NDArray[np.float32]:
    """A tensor as later steps read it."""
    unit = program.units[tensor] if program.units else None
    if unit is None:
        return x
    words = _words(x, unit)
    read_back(tensor, words.reshape(len(words), -1))
    return words * np.float32(unit)


def _words(x: NDArray[np.float32], unit: float, lowest: int = -127) -> NDArray[np.int8]:
    return np.clip(np.rint(x / np.float32(unit)), lowest, 127).astype(np.int8)


def _patch_elements(program: Program, place: int) -> int:
    step, shape = program.steps[place], program.shapes[place + 1]
    return shape[1] * shape[2] * step.taps * step.groups if isinstance(step, Conv) else 0


def _macs(program: Program, place: int) -> int:
    step, (_, high, wide) = program.steps[place], program.shapes[place + 1]
    return high * wide * step.weights if isinstance(step, Conv) else 0


def _do(
    step: Step, tensors: list[Any], matmul: MatMul, in_array: Callable[..., object], lowest: int
) -> NDArray[np.float32]:
    x = tensors[step.source]
    if isinstance(step, Conv):
        y = _conv(step, x, matmul, in_array, lowest)
    elif isinstance(step, Add):
        y = x + tensors[step.other]
    elif isinstance(step, Pool):
        b, c, h, w = x.shape
        s, t = (step.size, step.size) if step.size else (h, w)
        tiles = x[:, :, : h // s * s, : w // t * t].reshape(b, c, h // s, s, w // t, t)
        mean = step.kind == "mean"  # in float64, where the order of the sum does not show
        y = tiles.mean(axis=(3, 5), dtype=np.float64).astype(np.float32) if mean else tiles.max(axis=(3, 5))
    else:
        y = x.reshape(len(x), -1, 1, 1)
    return np.maximum(y, np.float32(0)) if getattr(step, "relu", False) else y


def _conv(
    step: Conv, x: NDArray[np.float32], matmul: MatMul, in_array: Callable[..., object], lowest: int
) -> NDArray[np.float32]:
    words = _words(x, step.input_scale, lowest)
    q = np.pad(words, ((0, 0), (0, 0), *((p, p) for p in step.padding)))
    windows = np.lib.stride_tricks.sliding_window_view(q, (step.kernel_h, step.kernel_w), axis=(2, 3))
    windows = windows[:, :, :: step.stride[0], :: step.stride[1]]  # [b, c, oh, ow, kh, kw]
    b, _, oh, ow, _, _ = windows.shape
    per, each = step.channels // step.groups, step.filters // step.groups
    sums = np.empty((step.groups, b * oh * ow, each), np.int32)
    for group in range(step.groups):
        patches = (
            windows[:, group * per : (group + 1) * per].transpose(0, 2, 3, 1, 4, 5).reshape(b * oh * ow, step.taps)
        )
        sums[group] = matmul(np.ascontiguousarray(patches), step.address + group * each * step.taps, each)
    ordered = np.ascontiguousarray(sums.transpose(1, 0, 2)).reshape(b, oh * ow, step.filters)
    in_array(words.transpose(0, 2, 3, 1), ordered)
    y = ordered.reshape(b, oh, ow, step.filters).astype(np.float64)
    y = y * np.array(step.scale) + np.array(step.offset)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2), dtype=np.float32)
