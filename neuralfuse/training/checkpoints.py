"""Trainings that are killed and go on: what is kept of a run, and whose it is."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass

import torch
from torch import Tensor, nn

from neuralfuse.quantized import checkpoint
from sram.errors import InputError

Progress = Callable[[int, int, dict[str, float]], None]  # (step, steps, named figures)


class Checkpoints:
    """A run's own file: written at most every `seconds`, read back only by a run with the same arguments.

    Another run, or one of another module, is refused; but where a caller keeps `settings`, and so the file, for itself,
    it starts afresh and writes over it: what was asked for has changed.
    """

    def __init__(self, path: str | os.PathLike | None, arguments: dict, seconds: float = 10.0):
        self.path, self.seconds = path, seconds
        self.arguments = json.loads(json.dumps(arguments))  # as it is read back: tuples are lists
        self.written = time.monotonic()

    def read(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, dict[str, Tensor]]:
        """Put module and optimiser where the last run was; return its record (empty at a start) and its best
        weights."""
        if self.path is None or not os.path.exists(self.path):
            return {}, {}
        tensors, record = checkpoint.load(self.path)
        if "arguments" not in record:  # somebody's network, not to be written over
            raise InputError(self.path, "checkpoint", "not of a training", "the file of a training that was stopped")
        state = _part(tensors, "module.")
        if record["arguments"] != self.arguments or _shapes(state) != _shapes(module.state_dict()):
            if self.arguments.get("settings") is None:
                allowed = f"a run of this module with {self.arguments}"
                raise InputError(self.path, "arguments", record["arguments"], allowed)
            return {}, {}
        module.load_state_dict(state)
        checkpoint.restore_optimizer(optimizer, tensors)
        return record, _part(tensors, "best.")

    def write(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, record: dict, best: dict[str, Tensor], last: bool
    ) -> None:
        """Keep the state, if the last one is old enough; at the `last` step whatever its age."""
        if self.path is None or not (last or time.monotonic() - self.written > self.seconds):
            return
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        tensors |= checkpoint.optimizer_tensors(optimizer) | {f"best.{name}": tensor for name, tensor in best.items()}
        checkpoint.save(self.path, tensors, {**record, "arguments": self.arguments})
        self.written = time.monotonic()


@dataclass(frozen=True)
class Run:
    """Where a training is kept until it is done (`path`), and who is told how far it is.

    A run that was killed goes on only under the same arguments and `settings`, a digest of what they do not tell (the
    images, the sources of faults, what is watched). Without a digest the file of another run is refused. Of a
    training in stages those before the last have files beside it, PATH.classes, PATH.patterns, PATH.paint.
    """

    path: str | os.PathLike | None = None
    settings: str | None = None
    progress: Progress | None = None

    def checkpoints(self, arguments: dict) -> Checkpoints:
        """Of a training with these arguments."""
        return Checkpoints(self.path, arguments | {"settings": self.settings})


def described(objective: object) -> str:
    """The same text in every process: what a dataclass holds, else a name."""
    if is_dataclass(objective):
        return repr(objective)
    named = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{named.__module__}.{named.__qualname__}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
