"""Layers of any torch module: torch.export makes the graph, or a recorded run in torch.fx where export cannot."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from simulator.readers.collector import Value
from simulator.readers.torch_graph import Reader
from simulator.readers.torch_record import Recorder
from simulator.workload import Workload
from sram.errors import InputError

VMAP = "torch._functorch.predispatch"


def trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str, batch: int | None = None) -> Workload:
    """The workload of `module` on example `inputs`, whose first axis is the batch; traced in evaluation mode.

    `batch`: the samples in them, if their first axis is not the batch."""
    training = {part: part.training for part in module.modules()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operators would hide the products of attention
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _trace(module, inputs, name, batch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for part, mode in training.items():
            part.training = mode


def _trace(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str, batch: int | None) -> Workload:
    quiet = contextlib.redirect_stderr(io.StringIO())  # what export cannot do, it says at length
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with quiet:
            program = torch.export.export(module, inputs, strict=False)
    except Exception as export_error:  # export raises many types: whatever stops it, plain tracing may still do
        return _trace_fx(module, inputs, name, batch, export_error)
    finally:
        logging.disable(level)
    # A parameter with two names is one parameter: the first name in the module tree stands for both.
    state = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    for key, tensor in state.items():
        first.setdefault(id(tensor), key)
    return read_program(program, name, {key: first[id(tensor)] for key, tensor in state.items()}, batch)


def read_file(program: torch.export.ExportedProgram, path: Path, shapes: Sequence[Sequence[int]] = ()) -> Workload:
    """The workload of a program from a file; `shapes`, of one sample of each input, for axes that the file leaves free.

    InputError for a size that the file contradicts or does not leave open, and for an axis that stays free.
    """
    inputs = [node.meta["val"] for node in _user_inputs(program) if isinstance(node.meta.get("val"), torch.Tensor)]
    free = any(isinstance(size, torch.SymInt) for tensor in inputs for size in tensor.shape[1:])
    if not free and not shapes:
        return read_program(program, path.stem)
    if len(shapes) > len(inputs):
        raise InputError(path, "input shape", list(shapes), f"at most {len(inputs)} shapes, one for each input")
    named: dict[str, int] = {}
    for tensor, shape in zip(inputs, shapes, strict=False):
        in_file = [str(size) for size in tensor.shape[1:]]
        fits = len(shape) == len(in_file) and all(
            (named.setdefault(str(size), given) if isinstance(size, torch.SymInt) else size) == given
            for size, given in zip(tensor.shape[1:], shape, strict=True)
        )
        if not fits:
            raise InputError(path, "input shape", tuple(shape), f"that of the file: {in_file}")
    for number, tensor in enumerate(inputs):
        for size in tensor.shape[1:]:
            if isinstance(size, torch.SymInt) and str(size) not in named:
                label = f"axis {str(size)!r} of input {number}"
                raise InputError(path, label, "free", "a number; give the input shape of one sample")
    if not free:
        return read_program(program, path.stem)
    filled = []
    for tensor in inputs:
        axes = [*(int(size) for size in tensor.shape[:1]), *(named.get(str(size), size) for size in tensor.shape[1:])]
        filled.append(torch.zeros(axes, dtype=tensor.dtype))
    workload = _trace(program.module(), tuple(filled), path.stem, None)
    return one_sample(workload) if isinstance(inputs[0].shape[0], torch.SymInt) else workload


def read_program(
    program: torch.export.ExportedProgram,
    name: str,
    canonical: dict[str, str] | None = None,
    samples: int | None = None,
) -> Workload:
    """The workload of an exported program; `canonical` maps the names of shared parameters to one of them.

    `samples`: how many there are in the input, if its first axis does not say so."""
    if any(getattr(node.target, "__module__", "") == VMAP for node in program.graph.nodes):
        program = program.run_decompositions({})  # vmap, written down as calls into itself, becomes batched operators
    program.graph.eliminate_dead_code()  # the mean weights of attention, say, that nobody asked for
    canonical = canonical or {}
    bound: list[Value] = []
    batch, free = 1, False
    inputs = set(_user_inputs(program))
    kind = torch.export.graph_signature.InputKind
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        tensor = node.meta.get("val")
        shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else ()
        if node in inputs:
            if not any(value.layers for value in bound) and isinstance(tensor, torch.Tensor) and tensor.dim():
                batch, free = int(tensor.shape[0]), isinstance(tensor.shape[0], torch.SymInt)
            bound.append(Value(shape, (-1,)))
        else:
            target = specs[node.name].target
            bound.append(Value(shape, parameters=(canonical.get(target, target),)))
    reader = Reader(samples or batch, {spec.target for spec in specs.values() if spec.kind != kind.PARAMETER})
    workload = reader.workload(name, reader.read(program.graph_module, bound))
    return one_sample(workload) if free else workload


def _user_inputs(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    kind = torch.export.graph_signature.InputKind.USER_INPUT
    names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == kind}
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def one_sample(workload: Workload) -> Workload:
    """What was traced with some batch, but is meant for any: with a batch of 1, if every layer has that batch."""
    if any(layer.batch != workload.batch for layer in workload.layers):
        return workload
    return replace(workload, layers=tuple(replace(layer, batch=1) for layer in workload.layers), batch=1)


def _trace_fx(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str, batch: int | None, export_error: Exception
) -> Workload:
    """Run the module once on its inputs and record: branches on values are taken as they fall."""
    recorder = None
    try:
        recorder = Recorder(module, inputs)
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), recorder:
            result = module(*inputs)
    except InputError:  # of a module that says itself what is wrong
        raise
    except Exception as error:  # whatever the user's module raises
        cause = " ".join(f"torch.export: {export_error}; a run: {error}".split())[:400]
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise InputError(name, "input", shapes, f"inputs the network runs on ({cause})") from None
    finally:
        if recorder is not None:
            recorder.remove()
    reader = Reader(batch or int(inputs[0].shape[0]), {name for name, _ in module.named_buffers()})
    return reader.workload(name, reader.read(recorder.graph_module(result), recorder.bound))
