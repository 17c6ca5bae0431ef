"""Layers of any torch module: torch.export makes the graph, or a recorded run in torch.fx where export cannot."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import replace

import torch

from simulator.readers.torch_graph import Reader, Value
from simulator.readers.torch_record import Recorder
from simulator.workload import Workload
from sram.errors import InputError


def trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str) -> Workload:
    """The workload of `module` on example `inputs`, whose first axis is the batch; traced in evaluation mode."""
    training = {part: part.training for part in module.modules()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operators would hide the products of attention
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _trace(module, inputs, name)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for part, mode in training.items():
            part.training = mode


def _trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str) -> Workload:
    quiet = contextlib.redirect_stderr(io.StringIO())  # what export cannot do, it says at length
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with quiet:
            program = torch.export.export(module, inputs, strict=False)
    except Exception as export_error:  # export raises many types: whatever stops it, plain tracing may still do
        return _trace_fx(module, inputs, name, export_error)
    finally:
        logging.disable(level)
    # A parameter with two names is one parameter: the first name in the module tree stands for both.
    first: dict[int, str] = {}
    for key, tensor in [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]:
        first.setdefault(id(tensor), key)
    state = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return read_program(program, name, {key: first[id(tensor)] for key, tensor in state.items()})


def read_program(program: torch.export.ExportedProgram, name: str, canonical: dict[str, str] | None = None) -> Workload:
    """The workload of an exported program; `canonical` maps the names of shared parameters to one of them."""
    canonical = canonical or {}
    bound: list[Value] = []
    batch, free = 1, False
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT:
            tensor = node.meta.get("val")
            if not any(value.layers for value in bound) and isinstance(tensor, torch.Tensor) and tensor.dim():
                batch, free = int(tensor.shape[0]), isinstance(tensor.shape[0], torch.SymInt)
            bound.append(Value(layers=(-1,)))
        else:
            bound.append(Value(parameters=(canonical.get(spec.target, spec.target),)))
    reader = Reader(batch)
    workload = reader.workload(name, reader.read(program.graph_module, bound))
    if free and all(layer.batch == batch for layer in workload.layers):  # traced with some batch, meant for any
        return replace(workload, layers=tuple(replace(layer, batch=1) for layer in workload.layers), batch=1)
    return workload


def _trace_fx(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str, export_error: Exception
) -> Workload:
    """Run the module once on its inputs and record: branches on values are taken as they fall."""
    recorder = None
    try:
        recorder = Recorder(module, inputs)
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), recorder:
            result = module(*inputs)
    except Exception as error:  # whatever the user's module raises
        cause = " ".join(f"torch.export: {export_error}; a run: {error}".split())[:400]
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise InputError(name, "input", shapes, f"inputs the network runs on ({cause})") from None
    finally:
        if recorder is not None:
            recorder.remove()
    reader = Reader(int(inputs[0].shape[0]))
    return reader.workload(name, reader.read(recorder.graph_module(result), recorder.bound))
