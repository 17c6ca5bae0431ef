"""Checkpoints: tensors in a safetensors file with a JSON record in its header. One file, written whole; nothing is
unpickled. The record has the hash of all of it: a file with a flipped bit is not read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from neuralfuse.quantized.quantize import dequantize, quantize, weight_parameters
from sram.errors import InputError
from sram.files import write_atomic

PICKLES = {".pth", ".pt", ".ckpt", ".bin", ".pkl", ".tar"}  # as PyTorch's users name them


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], record: Mapping) -> Path:
    """Write tensors and a JSON-able record.

    >>> import tempfile
    >>> path = save(tempfile.mkdtemp() + "/a.safetensors", {"w": torch.ones(2)}, {"step": 3})
    >>> tensors, record = load(path)
    >>> tensors["w"].tolist(), record
    ([1.0, 1.0], {'step': 3})
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    hashed = {**record, "content": _content(contiguous, record)}
    return write_atomic(path, to_bytes(contiguous, {"record": json.dumps(hashed, sort_keys=True)}))


def _content(tensors: Mapping[str, Tensor], record: Mapping) -> str:
    """Hash of the tensors and the record."""
    total = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Read what `save` wrote; a missing or damaged file, a folder or a pickle is an InputError."""
    if (path := Path(path)).suffix in PICKLES:
        allowed = (
            "a .safetensors file, which runs nothing; of a file that you trust: safetensors.torch.save_file("
            f"torch.load({path.name!r}, weights_only=True), '{path.stem}.safetensors')"
        )
        raise InputError(path, "checkpoint", path.suffix, allowed)
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        content = record.pop("content", None)  # None: written by others, or by a release that wrote no hash
        if content not in (None, _content(tensors, record)):
            raise InputError(path, "content", "damaged", "tensors and record as they were written; delete the file")
        return tensors, record
    except FileNotFoundError:
        raise InputError(path, "checkpoint", "missing", "an existing .safetensors file") from None
    except (OSError, SafetensorError, ValueError, RecursionError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, "checkpoint", str(error), "a .safetensors file that can be read") from None


def save_network(
    path: str | os.PathLike, network: nn.Module, record: Mapping, bits: int = 8, per_channel: bool = False
) -> Path:
    """Write a network with its weights as words (one byte each, and their scales): what the accelerator stores.

    The network should be rounded already (`training` leaves it so); a network that is not is rounded here.
    """
    tensors = dict(network.state_dict())
    for name, weight in weight_parameters(network).items():
        tensors[name], tensors[f"{name}.scale"] = quantize(weight, bits, per_channel)
    return save(path, tensors, {**record, "bits": bits})


def load_network(network: nn.Module, path: str | os.PathLike) -> dict:
    """Put what `save_network` wrote into a network of the same shape, in eval mode, and return the record."""
    tensors, record = load(path)
    try:
        for name in [name for name in tensors if f"{name}.scale" in tensors]:
            tensors[name] = dequantize(tensors[name], tensors.pop(f"{name}.scale"))
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise InputError(path, f"tensor {name}", "NaN or infinity", "finite numbers")
        network.load_state_dict(tensors)
    except RuntimeError as error:
        message = str(error).splitlines()[-1].strip()
        raise InputError(path, "checkpoint", message, "tensors that fit the network") from None
    network.eval()
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
