"""A user's own network: a Python import path, a torch.export program (.pt2), or an ONNX model.

Model files run frozen: with the batch they were exported with, and normalisation as it was exported.
"""

from pathlib import Path

import torch

from neuralfuse.networks.model_file import ModelFile
from simulator.readers.torch_file import load_program
from sram.errors import InputError

# operator name: position of the weight among its arguments
WEIGHT_ARGUMENT = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear", "mm", "matmul", "bmm"), 1),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    "addmm": 2,
}
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
    """Name of the operator that a node calls, without its overload."""
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]


def read(path: str) -> ModelFile:
    """A network from a .pt2 or .onnx file."""
    if not Path(path).is_file():
        raise InputError("network", "name", path, "an existing .pt2 or .onnx file")
    if path.endswith(".onnx"):
        from neuralfuse.networks import onnx_model

        return onnx_model.read(Path(path))
    return read_export(Path(path))
