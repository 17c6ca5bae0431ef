"""Training loops: the base network with quantisation-aware training, and a generator by EOPM on a frozen one.

Both are functions of their arguments alone: batch order, augmentation, fault maps and what modules draw themselves
(dropout) depend on (seed, step), never on what ran before. A run that is killed goes on from its last checkpoint and
ends with the same numbers.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralfuse.quantized import checkpoint
from sram.errors import InputError

Progress = Callable[[int, int, dict[str, float]], None]  # (step, steps, named figures)


@contextmanager
def deterministic() -> Iterator[None]:
    """Only deterministic kernels inside the block.

    New tensors are not filled first, as torch does by default in this mode: it takes time, and no kernel here reads
    what it has not written.
    """
    mode: Any = torch.utils.deterministic
    chosen, filled = torch.are_deterministic_algorithms_enabled(), mode.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(chosen)
        mode.fill_uninitialized_memory = filled


def layout(module: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last suits tensor cores; and a CPU where every convolution is wide (ResNet18 trains 1.7 times as fast,
    VGG19 1.2). Not elsewhere on a CPU: torch 2.13's convolutions of 4 channels corrupt the heap there."""
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    wide = bool(widths) and all(width % 64 == 0 for width in widths)
    return torch.channels_last if wide or device.type == "cuda" else torch.contiguous_format


def random(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step or epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Inside the block what modules draw from torch's own stream (dropout) depends on (seed, step) alone; after it that
    stream is where it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # not the numbers of `random` again, which are the augmentation's
        torch.manual_seed(int(torch.randint(2**32, (), generator=random(seed, step))))
        yield


def batch_indices(n: int, batch: int, seed: int, step: int) -> Tensor:
    """Images of one step: a new permutation every epoch, whose incomplete last batch is dropped."""
    epoch, position = divmod(step, max(1, n // batch))
    order = torch.randperm(n, generator=random(seed, epoch))
    return order[position * batch : (position + 1) * batch]


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Convolutions and matrix products in `precision`. No cache, which would keep the rounded weights of the first step
    and those of the first chip of `read_words`."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32", cache_enabled=False)


def described(objective: object) -> str:
    """The same text in every process: what a dataclass holds, else a name."""
    if objective is None or is_dataclass(objective):
        return repr(objective)
    named = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{named.__module__}.{named.__qualname__}"


class Checkpoints:
    """A run's own file: written at most every `seconds`, read back only by a run with the same arguments.

    Another run, or one of another module, is refused; but where a caller keeps `settings`, and so the file, for itself,
    it starts afresh and writes over it: what was asked for has changed.
    """

    def __init__(self, path: str | os.PathLike | None, arguments: dict, seconds: float = 10.0):
        self.path, self.arguments, self.seconds = path, arguments, seconds
        self.written = time.monotonic()

    def read(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, dict[str, Tensor]]:
        """Put module and optimiser where the last run was; return its record (empty at a start) and its best
        weights."""
        if self.path is None or not os.path.exists(self.path):
            return {}, {}
        tensors, record = checkpoint.load(self.path)
        if "arguments" not in record:  # somebody's network, not to be written over
            raise InputError(self.path, "checkpoint", "not of a training", "the file of a training that was stopped")
        state = part(tensors, "module.")
        if record["arguments"] != self.arguments or shapes(state) != shapes(module.state_dict()):
            if self.arguments.get("settings") is None:
                allowed = f"a run of this module with {self.arguments}"
                raise InputError(self.path, "arguments", record["arguments"], allowed)
            return {}, {}
        module.load_state_dict(state)
        checkpoint.restore_optimizer(optimizer, tensors)
        return record, part(tensors, "best.")

    def write(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, record: dict, best: dict[str, Tensor], last: bool
    ) -> None:
        if self.path is None or not (last or time.monotonic() - self.written > self.seconds):
            return
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        tensors |= checkpoint.optimizer_tensors(optimizer) | {f"best.{name}": tensor for name, tensor in best.items()}
        checkpoint.save(self.path, tensors, {**record, "arguments": self.arguments})
        self.written = time.monotonic()


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
