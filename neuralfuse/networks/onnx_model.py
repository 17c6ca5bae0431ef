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

from neuralfuse.networks import onnx_operators
from neuralfuse.networks.model_file import ModelFile
from sram.errors import InputError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What these make of a weight is the same numbers: it stays the stored one. What others make of one is a new constant.
VIEWS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout")
SIZES = (32, 224, 28, 64, 16, 96, 8)  # of images, tried in turn where a file leaves them free
TOLERANCE = 1e-3  # of a node's largest output: float32 sums in another order


class Step:
    """A node: its function with attributes and opset bound, and the names of what it reads and makes."""

    def __init__(self, node: Any, opset: int, where: Path):
        if node.domain not in ("", "ai.onnx"):
            raise InputError(where, "operator", f"{node.domain}.{node.op_type}", "operators of ONNX itself")
        self.kind = node.op_type
        self.inputs, self.output, self.others = (
            list(node.input),
            node.output[0],
            [name for name in node.output[1:] if name],
        )
        self.run = onnx_operators.bound(node, opset, where)


class OnnxModel(nn.Module):
    """Runs the nodes in their order (ONNX keeps them sorted)."""

    def __init__(self, model: Any, where: Path):
        from onnx import numpy_helper

        super().__init__()
        graph = model.graph
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.steps: list[Step] = []
        self.input = self.output = ""
        self.stored: list[str] = []
        for tensor in graph.initializer:
            self.keep(tensor.name, torch.from_numpy(np.array(numpy_helper.to_array(tensor))))
        if graph.sparse_initializer:
            raise InputError(where, "sparse initialisers", len(graph.sparse_initializer), "dense ones")
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        derived: dict[str, str] = {}  # constant view -> the initialiser that it shows
        for node in graph.node:
            step = Step(node, opset, where)
            if all(name in self.places or name in derived for name in step.inputs if name):
                source = step.inputs[0] if step.inputs else ""
                if step.kind in VIEWS and self.is_weight(derived.get(source, source)):
                    derived[step.output] = derived.get(source, source)
                else:  # made of constants alone: computed once, and stored so
                    known = {name: self.value(name, derived) for name in step.inputs if name}
                    self.keep(step.output, step.run([known.get(name, torch.empty(0)) for name in step.inputs]))
                    continue
            self.steps.append(step)
        made = {step.output for step in self.steps}
        read = {name for step in self.steps for name in step.inputs} | {value.name for value in graph.output[:1]}
        inputs = [value for value in graph.input if value.name not in self.places]
        if len(inputs) != 1 or not graph.output:
            raise InputError(where, "inputs", [value.name for value in inputs], "one, of images")
        self.input, self.output = inputs[0].name, graph.output[0].name
        for step in self.steps:
            for name in sorted(read & set(step.others)):
                raise InputError(where, f"output {name} of {step.kind}", "read", "the first output of each node")
        for name in sorted(read - made - self.places.keys() - {self.input, ""}):
            raise InputError(where, "tensor", name, "one that a node makes")
        weights = (derived.get(name, name) for step in self.steps if step.kind in WEIGHTED for name in step.inputs[:2])
        self.stored = list(dict.fromkeys(self.path(name) for name in weights if self.is_weight(name)))

    def is_weight(self, name: str) -> bool:
        return name in self.places and self.constant(name).is_floating_point()

    def keep(self, name: str, value: Tensor) -> None:
        """Register a constant, called after `name`; a dot in it is a level of modules, as in torch.

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
        if value.is_floating_point():
            owner.register_parameter(leaf, nn.Parameter(value.contiguous(), requires_grad=False))
        else:
            owner.register_buffer(leaf, value)
        self.places[name] = owner, leaf

    def constant(self, name: str) -> Tensor:
        owner, leaf = self.places[name]
        return getattr(owner, leaf)

    def path(self, name: str) -> str:
        """Where a constant is registered."""
        kept = self.constant(name)
        return next(path for path, tensor in self.named_parameters(remove_duplicate=False) if tensor is kept)

    def value(self, name: str, derived: dict[str, str]) -> Tensor:
        """A constant, or a view of one."""
        if name in self.places:
            return self.constant(name)
        step = next(step for step in self.steps if step.output == name)
        return step.run([self.value(part, derived) if part else torch.empty(0) for part in step.inputs])

    def forward(self, x: Tensor) -> Tensor:
        values = {name: self.constant(name) for name in self.places} | {self.input: x}
        empty = x.new_empty(0)
        for step in self.steps:
            values[step.output] = step.run([values[name] if name else empty for name in step.inputs])
        return values[self.output]


def read(path: Path) -> ModelFile:
    """An .onnx file; the weights of Conv, ConvTranspose, Gemm and MatMul that are initialisers are the stored ones.

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
        want = reference[step.output]
        values[step.output] = torch.from_numpy(want)
        label = f"{step.kind} that makes {step.output}"
        try:
            got = step.run(inputs).numpy()
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise InputError(path, label, " ".join(str(error).split())[:200], "what torch computes") from None
        scale = np.abs(want[np.isfinite(want)]).max(initial=1e-6) if want.dtype.kind == "f" else 1
        same = got.shape == want.shape and np.allclose(got, want, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
        if not same or got.dtype != want.dtype:
            raise InputError(path, label, _shown(got), f"what onnxruntime computes, to 0.1%: {_shown(want)}")


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)} of {array.ravel()[:3].tolist()} ..."


def _reference(model: OnnxModel, loaded: Any, axes: list[int], path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random input, and what onnxruntime makes of it in every node."""
    import onnx
    import onnxruntime

    names = [step.output for step in model.steps]
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
        x = random.standard_normal([size if size > 0 else guess for size, guess in zip(axes, free, strict=False)])
        x = x.astype(np.float32)
        try:
            return x, dict(zip(names, session.run(None, {model.input: x}), strict=True))
        except Exception as error:
            cause = cause or " ".join(str(error).split())[:200]
    raise InputError(path, "content", cause, "a model that onnxruntime runs on images")
