"""Generators for several voltages in one: a whole one for each, or shared convolutions between channels that are scaled
and shifted for each (FiLM, Perez et al., AAAI 2018).

A supply is told as the level log10(cell fault rate): the rate is what the network feels, equal steps in its logarithm
count about alike, and a generator made on one failure curve can be used on another, whatever its unit of voltage.
Each trained level has BatchNorms of its own. Their statistics, scales and shifts are the function of the supply: linear
in the level between trained ones, constant outside. At any supply what computes is therefore an ordinary generator, its
normalisation two constants a channel that are loaded when the supply is set: its cycles and energy are those of an
unconditioned one.
"""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuralfuse.transforms.generators import NeuralFuse
from sram.errors import InputError
from sram.failure import FailureCurve

KINDS = ("each", "film")


def level(curve: FailureCurve, voltage: float) -> float:
    """log10 of the cell fault rate at a voltage of the curve; -20 where it is lower.

    >>> from sram.failure import curve
    >>> round(level(curve("ibm14"), 0.8333), 1)
    -2.0
    """
    return math.log10(max(float(curve.probability(voltage)), 1e-20))


class PerVoltage(nn.Module):
    """Generators that are trained together, `members[i]` for levels[i]; it computes nothing before one is chosen.

    "each": they share nothing. "film": they share all but BatchNorm.

    >>> from neuralfuse.transforms.generators import build
    >>> both = [PerVoltage(lambda: build("ConvS", width=4), (-3, -2), kind) for kind in KINDS]
    >>> [sum(p.numel() for p in one.parameters()) for one in both]
    [4278, 2215]
    """

    def __init__(self, make: Callable[[], nn.Module], levels: Sequence[float], kind: str = "film"):
        """`make` gives a freshly initialised generator, always the same."""
        super().__init__()
        if kind not in KINDS:
            raise InputError("per voltage", "kind", kind, " or ".join(KINDS))
        if len(set(levels)) < max(2, len(levels)):
            raise InputError("per voltage", "levels", list(levels), "at least 2, all different")
        self.levels, self.kind = tuple(float(one) for one in levels), kind
        self.members = nn.ModuleList(make() for _ in levels)
        if kind == "film":
            first = self.members[0]
            if not any(isinstance(part, _BatchNorm) for part in first.modules()):
                raise InputError("per voltage", "generator", type(first).__name__, "one with BatchNorm, for film")
            for other in self.members[1:]:
                _share(first, other)

    def at(self, level: float) -> nn.Module:
        """The generator to use at a level: that of the nearest trained one, or ("film") with normalisation in
        between."""
        order = sorted(range(len(self.levels)), key=self.levels.__getitem__)
        if self.kind == "each":
            return self.members[min(order, key=lambda i: abs(self.levels[i] - level))]
        level = min(max(level, self.levels[order[0]]), self.levels[order[-1]])
        low, high = next(pair for pair in pairwise(order) if level <= self.levels[pair[1]])
        share = (level - self.levels[low]) / (self.levels[high] - self.levels[low])
        found = copy.deepcopy(self.members[low])
        for norm, other in zip(norms(found), norms(self.members[high]), strict=True):
            for name, tensor in norm.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(other.state_dict()[name], share)
        return found


def _share(first: nn.Module, other: nn.Module) -> None:
    """Give `other` the parameters of `first`, an equal module, but for BatchNorm."""
    for one, its in zip(first.modules(), other.modules(), strict=True):
        if not isinstance(one, _BatchNorm):
            for name, parameter in one.named_parameters(recurse=False):
                setattr(its, name, parameter)


def norms(generator: nn.Module) -> list[_BatchNorm]:
    """Its BatchNorms, in order."""
    return [part for part in generator.modules() if isinstance(part, _BatchNorm)]


def constants(generator: nn.Module) -> int:
    """Numbers of normalisation that are loaded when a supply is set: a scale and a shift a channel.

    >>> from neuralfuse.transforms.generators import build
    >>> constants(build("ConvS", width=4))
    76
    """
    return sum(2 * norm.num_features for norm in norms(generator))


def turn(transform: nn.Module, step: int) -> nn.Module:
    """What a training step works on: of a PerVoltage behind `NeuralFuse` one member after the other, else all."""
    generator = getattr(transform, "generator", None)
    if not isinstance(generator, PerVoltage):
        return transform
    return type(transform)(generator.members[step % len(generator.members)])


@torch.no_grad()
def at(transform: NeuralFuse, level: float) -> NeuralFuse:
    """The transform to use at a supply, in eval mode: of a PerVoltage what belongs there, any other as it is."""
    if not isinstance(transform.generator, PerVoltage):
        return transform
    return type(transform)(transform.generator.at(level)).eval()
