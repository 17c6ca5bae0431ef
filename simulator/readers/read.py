"""A network from whichever framework or file it comes: traced from torch, read from .pt2, ONNX or a topology."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.workload import Workload
from sram.errors import InputError

if TYPE_CHECKING:
    import torch


class Integers(tuple[int, ...]):
    """The shape of one sample of an input of whole numbers: tokens, positions."""


def trace(
    module: torch.nn.Module,
    input_shape: Sequence[Any],
    batch: int = 1,
    name: str = "",
) -> Workload:
    """The workload of any torch module, without running it.

    `input_shape`: the shape of one sample without the batch axis, such as (3, 32, 32); or one such shape for each
    input, `Integers` where it takes tokens; or the input tensors themselves, whose first axis is the batch.
    `batch`: samples that run together. A module that takes no other number of samples says so in its `exported_batch`;
    a layer counts what one of them costs. Raises InputError if the module does not take the input.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    >>> net = trace(module, (3, 4, 4))
    >>> [(layer.name, layer.kind, layer.macs, layer.weight_name) for layer in net.layers]
    [('0', 'conv', 3456, '0.weight'), ('1', 'activation', 0, None), ('3', 'linear', 1280, '3.weight')]
    """
    import torch

    from simulator.readers import torch_trace

    if isinstance(input_shape[0], torch.Tensor):
        inputs: tuple[torch.Tensor, ...] = tuple(input_shape)
    else:
        samples = getattr(module, "exported_batch", None) or 1
        device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        inputs = tuple(
            torch.zeros(samples, *shape, device=device, dtype=torch.int64 if isinstance(shape, Integers) else None)
            for shape in _shapes(input_shape)
        )
    found = torch_trace.trace(module, inputs, name or type(module).__name__)
    if not isinstance(input_shape[0], torch.Tensor):
        found = torch_trace.one_sample(found)
    return found.with_batch(batch)


def load(path: str | Path, input_shape: Sequence[Any] | None = None, batch: int = 1) -> Workload:
    """The workload in a file: .onnx (needs the extra `onnx`), .pt2 (torch.export.save) or .csv (SCALE-Sim topology).

    `input_shape`, of one sample, or one such shape for each input, gives the sizes that the file leaves free; one that
    the file contradicts, or does not need, is an InputError.
    """
    path = Path(path)
    shapes = _shapes(input_shape or ())
    if path.suffix == ".csv":
        from simulator.readers import topology

        if shapes:
            raise InputError(path, "input shape", shapes, "none: a topology gives the size of every layer")
        return topology.read(path).with_batch(batch)
    if path.suffix == ".pt2":
        from simulator.readers import torch_file, torch_trace

        return torch_trace.read_file(torch_file.load_program(path), path, shapes).with_batch(batch)
    if path.suffix == ".onnx":
        try:
            from simulator.readers import onnx_graph
        except ImportError:
            raise InputError(path, "package", "onnx is not installed", "pip install 'neuralfuse-sim[onnx]'") from None
        return onnx_graph.read(path, shapes).with_batch(batch)
    raise InputError(path, "suffix", path.suffix, ".onnx, .pt2, .csv")


def _shapes(given: Sequence[Any]) -> list[tuple[int, ...]]:
    """One shape, or one for each input, as a list of them."""
    shapes = [given] if given and isinstance(given[0], int) else given
    return [shape if isinstance(shape, tuple) else tuple(shape) for shape in shapes]
