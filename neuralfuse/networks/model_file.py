"""Networks read from files."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ModelFile(nn.Module):
    """A network read from a file. `stored_weights` names the parameters that its layers read as weights."""

    def __init__(self, network: nn.Module, stored_weights: Sequence[str], batch: int | None):
        super().__init__()
        self.network = network
        self.stored_weights = tuple(f"network.{name}" for name in stored_weights)
        self.exported_batch = batch

    def train(self, mode: bool = True) -> "ModelFile":
        """Model files are frozen in the mode that they were exported in."""
        self.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.exported_batch is None or len(x) == self.exported_batch:
            return self.network(x)
        rest = (0, 0) * (x.dim() - 1)
        parts = [F.pad(part, (*rest, 0, self.exported_batch - len(part))) for part in x.split(self.exported_batch)]
        return torch.cat([self.network(part) for part in parts])[: len(x)]
