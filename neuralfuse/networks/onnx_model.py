"""ONNX models as torch modules: each node becomes a torch function, each initialiser a parameter called after it.

The functions are in `onnx_operators`. What they do not read is refused by name, and every node is checked, when a file
is read, against onnxruntime on random inputs.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse.networks import onnx_operators, onnx_quantized, onnx_recurrent
from neuralfuse.networks.model_file import ModelFile
from neuralfuse.networks.words import Words
from sram.errors import InputError

# Which inputs of an operator are weights, where they are constants.
WEIGHTS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(onnx_recurrent.GATES, (1, 2)),
    "Gather": (0,),
    **onnx_quantized.WORDS,
}
# What these make of a weight is the same numbers: it stays the stored one. What others make of one is a new constant.
VIEWS = (
    "DequantizeLinear",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Dropout",
)
SIZES = (32, 224, 28, 64, 16, 96, 8)  # of images, tried in turn where a file leaves them free
TOLERANCE = 1e-3  # of a node's largest output: float32 sums in another order


class Step:
    """A node: its function with attributes and opset bound, and the names of what it reads and makes. `others` are
    outputs that the function does not make."""

    def __init__(self, node: Any, opset: int, where: Path):
        if node.domain not in ("", "ai.onnx"):
            raise InputError(where, "operator", f"{node.domain}.{node.op_type}", "operators of ONNX itself")
        self.kind = node.op_type
        made = len(node.output) if node.op_type in onnx_operators.SEVERAL else 1
        self.inputs, self.outputs = list(node.input), list(node.output[:made])
        self.others = [name for name in node.output[made:] if name]
        self.call = onnx_operators.bound(node, opset, where)

    def run(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """What the node makes, by name."""
        made = self.call(inputs)
        return dict(zip(self.outputs, made if isinstance(made, tuple) else (made,), strict=False))

    def read(self, positions: dict[str, tuple[int, ...]]) -> list[str]:
        """Its inputs at the positions of its kind."""
        return [self.inputs[at] for at in positions.get(self.kind, ()) if at < len(self.inputs) and self.inputs[at]]


class OnnxModel(nn.Module):
    """Runs the nodes in their order (ONNX keeps them sorted)."""

    def __init__(self, model: Any, where: Path):
        super().__init__()
        graph = model.graph
        narrow = onnx_quantized.without_quant(graph, where)
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.input = self.output = ""
        self.steps: list[Step] = []
        self.stored: list[str] = []
        self.views: set[str] = set()  # of words, which are kept as floats
        if graph.sparse_initializer:
            raise InputError(where, "sparse initialisers", len(graph.sparse_initializer), "dense ones")
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        steps = [Step(node, opset, where) for node in graph.node]
        self.gates = {name for step in steps if step.kind in onnx_recurrent.GATES for name in step.inputs[1:3]}
        self.scales = {name for step in steps for name in step.read(onnx_quantized.SCALES)}
        self.words = {name for step in steps for name in step.read(onnx_quantized.WORDS)}
        self.unsigned: dict[str, int] = {}  # words that stand for numbers from 0 on -> 2^bits
        for tensor in graph.initializer:
            self.keep(tensor.name, *self._words_of(tensor, narrow.get(tensor.name, 8), where))
        derived: dict[str, str] = {}  # constant view -> the initialiser that it shows
        for step in steps:
            if all(name in self.places or name in derived for name in step.inputs if name):
                source = step.inputs[0] if step.inputs else ""
                if step.kind in VIEWS and self.is_weight(derived.get(source, source)):
                    derived[step.outputs[0]] = derived.get(source, source)
                else:  # made of constants alone: computed once, and stored so
                    known = {name: self.value(name, derived) for name in step.inputs if name}
                    made = step.run([known.get(name, torch.empty(0)) for name in step.inputs])
                    for name, value in made.items():
                        self.keep(name, value)
                    continue
            self.steps.append(step)
        made_by = {name for step in self.steps for name in step.outputs}
        read = {name for step in self.steps for name in step.inputs} | {value.name for value in graph.output[:1]}
        inputs = [value for value in graph.input if value.name not in self.places]
        if len(inputs) != 1 or not graph.output:
            raise InputError(where, "inputs", [value.name for value in inputs], "one, of images")
        self.input, self.output = inputs[0].name, graph.output[0].name
        for step in self.steps:
            for name in sorted(read & set(step.others)):
                raise InputError(where, f"output {name} of {step.kind}", "read", "the first output of each node")
        for name in sorted(read - made_by - self.places.keys() - {self.input, ""}):
            raise InputError(where, "tensor", name, "one that a node makes")
        weights = (derived.get(name, name) for step in self.steps for name in step.read(WEIGHTS))
        self.stored = list(dict.fromkeys(self.path(name) for name in weights if self.is_weight(name)))
        self.views = derived.keys() - {
            name for step in steps if step.kind == "DequantizeLinear" for name in step.outputs
        }

    def _words_of(self, tensor: Any, bits: int, where: Path) -> tuple[Tensor, int]:
        """The numbers of an initialiser, and of how many bits they are where they are words."""
        from onnx import numpy_helper

        array = np.array(numpy_helper.to_array(tensor))
        if tensor.data_type in (_type("INT4"), _type("UINT4")):
            bits, array = 4, array.astype(np.uint8 if tensor.data_type == _type("UINT4") else np.int8)
        if tensor.name in self.words and array.ndim > 1 and array.dtype.kind in "iu" and array.itemsize > 1:
            raise InputError(where, f"words of {tensor.name}", array.dtype.name, "of 8 or 4 bits")
        return torch.from_numpy(array), bits

    def is_weight(self, name: str) -> bool:
        """Whether it is a constant of numbers that a memory of weights would hold, not of biases or scales."""
        return name in self.places and isinstance(self.held(name), nn.Parameter) and self.held(name).dim() > 1

    def keep(self, name: str, value: Tensor, bits: int = 8) -> None:
        """Register a constant, called after `name`; a dot in it is a level of modules, as in torch. Integers that are
        a weight are kept as words of so many bits.

        Names are data: one that Python or torch has taken gets underscores.
        """
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for step in path:
            while not step or (step not in owner._modules and hasattr(owner, step)):
                step += "_"
            if step not in owner._modules:
                owner.add_module(step, nn.Module())
            owner = owner._modules[step]  # type: ignore[assignment]
        while not leaf or hasattr(owner, leaf):
            leaf += "_"
        if name in self.gates and value.dim() > 2:
            value = value.flatten(0, 1)  # directions behind each other: a row is a gate's of a unit, as in torch
        if name in self.words and value.dim() > 1 and value.dtype in (torch.int8, torch.uint8):
            if value.dtype == torch.uint8:
                self.unsigned[name] = 2**bits
                value = torch.where(value >= 2 ** (bits - 1), value.float() - 2**bits, value.float())
            owner.register_parameter(leaf, Words(value, bits))
        elif value.is_floating_point() and name not in self.scales:
            owner.register_parameter(leaf, nn.Parameter(value.contiguous(), requires_grad=False))
        else:
            owner.register_buffer(leaf, value)
        self.places[name] = owner, leaf

    def held(self, name: str) -> Tensor:
        """A constant as it is stored."""
        owner, leaf = self.places[name]
        return getattr(owner, leaf)

    def constant(self, name: str) -> Tensor:
        """A constant as nodes read it."""
        held = self.held(name)
        return torch.where(held < 0, held + self.unsigned[name], held) if name in self.unsigned else held

    def path(self, name: str) -> str:
        """Where a constant is registered."""
        kept = self.held(name)
        return next(path for path, tensor in self.named_parameters(remove_duplicate=False) if tensor is kept)

    def value(self, name: str, derived: dict[str, str]) -> Tensor:
        """A constant, or a view of one."""
        if name in self.places:
            return self.constant(name)
        step = next(step for step in self.steps if name in step.outputs)
        return step.run([self.value(part, derived) if part else torch.empty(0) for part in step.inputs])[name]

    def forward(self, x: Tensor) -> Tensor:
        values = {name: self.constant(name) for name in self.places} | {self.input: x}
        empty = torch.empty(0, device=x.device)
        for step in self.steps:
            values |= step.run([values[name] if name else empty for name in step.inputs])
        return values[self.output]


def read(path: Path) -> ModelFile:
    """An .onnx file; the weights of convolutions, products, recurrent layers and look-ups that are initialisers are
    the stored ones, those of a quantised model as the words that it has.

    InputError for an operator, attribute or opset that is not read, and for a node that computes another thing than in
    onnxruntime.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError(
            "network", "name", str(path), "ONNX files need the extra: pip install neuralfuse-sim[onnx]"
        ) from None
    try:
        loaded = onnx.load(path)
        loaded.graph  # noqa: B018
    except Exception as error:  # protobuf's own exception class depends on its backend
        raise InputError(path, "file", str(error)[:200], "an ONNX model") from None
    model = OnnxModel(loaded, path).eval()
    axes = next(value for value in loaded.graph.input if value.name == model.input).type.tensor_type.shape.dim
    batch = axes[0].dim_value if axes and axes[0].dim_value > 0 else None
    _compare(model, loaded, [axis.dim_value for axis in axes], path)
    return ModelFile(model, model.stored, batch)


@torch.no_grad()
def _compare(model: OnnxModel, loaded: Any, axes: list[int], path: Path) -> None:
    """Give every node what it gets in onnxruntime, and compare what it makes: the first that differs is refused."""
    x, reference = _reference(model, loaded, axes, path)
    values = {name: model.constant(name) for name in model.places} | {model.input: torch.from_numpy(x)}
    for step in model.steps:
        inputs = [values[name] if name else torch.empty(0) for name in step.inputs]
        label = f"{step.kind} that makes {step.outputs[0]}"
        try:
            made = step.run(inputs)
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise InputError(path, label, " ".join(str(error).split())[:200], "what torch computes") from None
        for name in filter(None, step.outputs):
            want, got = reference[name], made[name].numpy()
            values[name] = torch.from_numpy(want)
            if name in model.views:  # of words: the same numbers, kept as floats
                got = got.astype(want.dtype)
            scale = np.abs(want[np.isfinite(want)]).max(initial=1e-6) if want.dtype.kind == "f" else 1
            same = got.shape == want.shape and np.allclose(got, want, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
            if not same or got.dtype != want.dtype:
                raise InputError(path, label, _shown(got), f"what onnxruntime computes, to 0.1%: {_shown(want)}")


def _type(name: str) -> int:
    from onnx import TensorProto

    return getattr(TensorProto, name)


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)} of {array.ravel()[:3].tolist()} ..."


def _reference(model: OnnxModel, loaded: Any, axes: list[int], path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random input, and what onnxruntime makes of it in every node."""
    import onnx
    import onnxruntime

    tensor = next(value for value in loaded.graph.input if value.name == model.input).type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    names = [name for step in model.steps for name in step.outputs if name]
    wanted = onnx.ModelProto()
    wanted.CopyFrom(loaded)
    del wanted.graph.output[:]
    wanted.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    cause = ""
    random = np.random.default_rng(0)
    try:
        session = onnxruntime.InferenceSession(wanted.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common public class
        raise InputError(path, "content", " ".join(str(error).split())[:200], "a model for onnxruntime") from None
    for size, channels in product(SIZES, (3, 1)):
        free = (2, channels, *[size] * len(axes))
        shape = [size if size > 0 else guess for size, guess in zip(axes, free, strict=False)]
        x = (
            random.standard_normal(shape).astype(kind)
            if kind.kind == "f"
            else random.integers(0, 2, shape).astype(kind)
        )
        try:
            return x, dict(zip(names, session.run(None, {model.input: x}), strict=True))
        except Exception as error:
            cause = cause or " ".join(str(error).split())[:200]
    raise InputError(path, "content", cause, "a model that onnxruntime runs on images")
