"""Checkpoints: tensors in a safetensors file with a JSON record in its header. One file, written whole; nothing is
unpickled."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from sram.errors import InputError
from sram.files import write_atomic


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], record: Mapping) -> Path:
    """Write tensors and a JSON-able record.

    >>> import tempfile
    >>> path = save(tempfile.mkdtemp() + "/a.safetensors", {"w": torch.ones(2)}, {"step": 3})
    >>> tensors, record = load(path)
    >>> tensors["w"].tolist(), record
    ([1.0, 1.0], {'step': 3})
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return write_atomic(path, to_bytes(contiguous, {"record": json.dumps(record, sort_keys=True)}))


def load(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Read what `save` wrote; a missing or damaged file is an InputError."""
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, record
    except FileNotFoundError:
        raise InputError(path, "checkpoint", "missing", "an existing .safetensors file") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(path, "checkpoint", str(error), "a .safetensors file") from None


def load_into(module: nn.Module, path: str | os.PathLike) -> dict:
    """Put a checkpoint's tensors into a module of the same shape and return the record."""
    tensors, record = load(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            path, "checkpoint", str(error).splitlines()[-1].strip(), "tensors that fit the network"
        ) from None
    return record


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors (Adam and SGD keep nothing else)."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{i}.{key}": value
        for i, entry in state.items()
        for key, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`, on an optimiser made over the same parameters."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({**content, "state": state})
