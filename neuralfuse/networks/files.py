"""A user's own network: a Python import path, a torch.export program (.pt2), or an ONNX model.

Model files run frozen: with the batch they were exported with, and normalisation as it was exported.
"""

from pathlib import Path

from neuralfuse.networks.model_file import ModelFile
from simulator.readers.torch_file import load_program
from simulator.readers.torch_trace import read_program
from sram.errors import InputError


def read_export(path: Path) -> ModelFile:
    """A program that `torch.export.save` wrote; its stored weights are those that the simulator counts as such."""
    program = load_program(path)  # torch.export.load would unpickle what a file asks it to
    workload = read_program(program, path.stem)
    for entry in workload.unknown:
        if "conv" in entry:  # its weights would be left out
            raise InputError(path, "operator", entry, "convolutions of one or two axes")
    parameters = set(program.graph_signature.inputs_to_parameters.values())
    stored = dict.fromkeys(name for name, _, _ in workload.tensors() if name in parameters)
    images = next(node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    batch = images.meta["val"].shape[0]
    return ModelFile(program.module(), list(stored), batch if isinstance(batch, int) else None)


def read(path: str) -> ModelFile:
    """A network from a .pt2 or .onnx file."""
    if not Path(path).is_file():
        raise InputError("network", "name", path, "an existing .pt2 or .onnx file")
    if path.endswith(".onnx"):
        from neuralfuse.networks import onnx_model

        return onnx_model.read(Path(path))
    return read_export(Path(path))
