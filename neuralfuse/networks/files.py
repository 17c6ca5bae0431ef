"""A user's own network: a Python import path, a torch.export program (.pt2), or an ONNX model.

Model files run frozen: with the batch they were exported with, and normalisation as it was exported.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulator.torch_file import load_program
from sram.errors import InputError


def imported(path: str, what: str) -> Callable[..., nn.Module]:
    """`package.module:callable`, the callable returns a module.

    >>> imported("torch.nn:Identity", "network")
    <class 'torch.nn.modules.linear.Identity'>
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(what, "name", path, f"an importable package.module:callable ({error})") from None


class ModelFile(nn.Module):
    """A network read from a file. `stored_weights` names the parameters that convolutions and linear layers read."""

    def __init__(self, network: nn.Module, stored_weights: Sequence[str], batch: int | None):
        super().__init__()
        self.network = network
        self.stored_weights = tuple(f"network.{name}" for name in stored_weights)
        self.batch = batch

    def train(self, mode: bool = True) -> "ModelFile":
        """Model files are frozen in the mode that they were exported in."""
        self.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.batch is None or len(x) == self.batch:
            return self.network(x)
        parts = [F.pad(part, (0, 0) * 3 + (0, self.batch - len(part))) for part in x.split(self.batch)]
        return torch.cat([self.network(part) for part in parts])[: len(x)]


# operator name: position of the weight among its arguments
WEIGHT_ARGUMENT = {"conv1d": 1, "conv2d": 1, "conv3d": 1, "convolution": 1, "conv_transpose1d": 1, "conv_transpose2d":
1,
                   "conv_transpose3d": 1, "linear": 1, "addmm": 2, "mm": 1, "matmul": 1, "bmm": 1}  # fmt: skip
VIEWS = {"t", "permute", "transpose", "numpy_T", "alias", "detach", "view", "reshape", "expand", "unsqueeze", "clone"}


def read_export(path: Path) -> ModelFile:
    """A program that `torch.export.save` wrote."""
    program = load_program(path)  # torch.export.load would unpickle what a file asks it to
    parameters = program.graph_signature.inputs_to_parameters
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        position = WEIGHT_ARGUMENT.get(operator_name(node))
        if position is None:
            continue
        source = node.args[position]
        while isinstance(source, torch.fx.Node) and operator_name(source) in VIEWS:
            source = source.args[0]
        if isinstance(source, torch.fx.Node) and source.name in parameters:
            found[parameters[source.name]] = None
    images = next(node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    batch = images.meta["val"].shape[0]
    return ModelFile(program.module(), list(found), batch if isinstance(batch, int) else None)


def operator_name(node: torch.fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]


def read(path: str) -> ModelFile:
    """A network from a .pt2 or .onnx file."""
    if not Path(path).is_file():
        raise InputError("network", "name", path, "an existing .pt2 or .onnx file")
    if path.endswith(".onnx"):
        from neuralfuse.networks import onnx_model

        return onnx_model.read(Path(path))
    return read_export(Path(path))
