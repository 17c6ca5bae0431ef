"""Weights that are words already: a quantised model's own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Words(nn.Parameter):
    """Whole numbers in float32 that are stored as they are, in two's complement of so many bits: their scale is 1, and
    what they stand for is the network's to compute.

    >>> import torch
    >>> weight = Words(torch.tensor([3, -8]), bits=4)
    >>> weight.bits, weight.tolist()
    (4, [3.0, -8.0])
    """

    bits: int

    def __new__(cls, data: Tensor, bits: int = 8) -> Words:
        """Of whole numbers of any type."""
        made = super().__new__(cls, data.float().contiguous(), requires_grad=False)
        made.bits = bits
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Words:
        if id(self) not in memo:
            memo[id(self)] = Words(self.data.clone(), self.bits)
        return memo[id(self)]
