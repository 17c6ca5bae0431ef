"""Networks read from files, and names that Python imports."""

import importlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
