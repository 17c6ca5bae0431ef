"""What a network is trained towards: cross-entropy, one's own, or what NeuralFuse is compared with.

The two ways to retrain the network itself need access to the weights, which NeuralFuse does without: references from
above, not rivals. (The universal input perturbation is a generator, `pixelwise.Offset`.)
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.chips.sources import IndependentCells
from neuralfuse.quantized.metric import Metric, cross_entropy
from neuralfuse.quantized.quantize import dequantize, quantize, weight_parameters
from neuralfuse.training.settings import named, own_objective
from sram import inject
from sram.errors import InputError
from sram.plugins import imported

Objective = Callable[[nn.Module, Tensor, Tensor, int], float]  # (network, images, labels, step) -> loss, backward done


@dataclass(frozen=True)
class CrossEntropy:
    """The plain objective: adds its gradient to the network's parameters and returns the loss. `smoothing` is of the
    labels."""

    smoothing: float = 0.0

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor, step: int) -> float:
        loss = cross_entropy(network(x), y, self.smoothing)
        loss.backward()
        return loss.item()


@dataclass(frozen=True)
class Towards:
    """The loss of a metric."""

    metric: Metric

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor, step: int) -> float:
        loss = self.metric.trained(network(x), y)
        loss.backward()
        return loss.item()

    def __repr__(self) -> str:
        return f"Towards({self.metric.name})"  # the same in every process: it stands in checkpoints


@dataclass(frozen=True)
class RandomBitErrors:
    """RandBET (Stutz et al., MLSys 2021): clean loss plus the loss under random bit flips of the stored words.

    Each step flips every stored bit with probability `flip_rate`, anew; errors start once the clean loss is below
    `start_loss` (1.75 for ten classes in the paper). Use with `clip` (0.1 there): words then have redundant high bits.
    """

    flip_rate: float
    bits: int = 8
    start_loss: float = 1.75
    seed: int = 0
    per_channel: bool = False  # how words are scaled, as in `training.train_network`

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor, step: int) -> float:
        clean = cross_entropy(network(x), y)
        clean.backward()
        if clean.item() > self.start_loss:
            return clean.item()
        weights = list(weight_parameters(network).values())
        stored = [quantize(weight, self.bits, self.per_channel) for weight in weights]
        words = torch.cat([q.flatten() for q, _ in stored]).cpu()
        rates = (self.flip_rate,)
        inject.apply(words.numpy(), *IndependentCells(len(words), rates, self.bits, self.seed, mode="flip")(step))
        # a word of b bits sits in the low bits of its byte: move its sign bit to the top and back
        words = (words << (8 - self.bits)) >> (8 - self.bits)
        before = [weight.data for weight in weights]
        parts = words.to(x.device).split([weight.numel() for weight in weights])
        for weight, part, (_, scale) in zip(weights, parts, stored, strict=True):
            weight.data = torch.empty_like(weight.data).copy_(dequantize(part.view(weight.shape), scale))  # its layout
        training = network.training
        try:  # normalised by the clean network's statistics, as a faulty chip is
            cross_entropy(network.eval()(x), y).backward()
        finally:
            network.train(training)
            for weight, value in zip(weights, before, strict=True):
                weight.data = value
        return clean.item()


@dataclass(frozen=True)
class Adversarial:
    """Adversarial training (Madry et al., ICLR 2018): cross-entropy on images moved within `epsilon` by projected
    gradients.

    `epsilon` and `step_size` are in the units of images in [-1, 1]: 8/255 of the grey scale is 16/255 here.
    """

    epsilon: float = 16 / 255
    step_size: float = 4 / 255
    steps: int = 7
    seed: int = 0

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor, step: int) -> float:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        moved = x + self.epsilon * (2 * torch.rand(x.shape, generator=random).to(x.device) - 1)
        for _ in range(self.steps):
            moved = moved.detach().clamp(-1, 1).requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(network(moved), y), moved)
            moved = x + (moved + self.step_size * slope.sign() - x).clamp(-self.epsilon, self.epsilon)
        loss = F.cross_entropy(network(moved.detach().clamp(-1, 1)), y)
        loss.backward()
        return loss.item()


OBJECTIVES = {"cross_entropy": CrossEntropy, "random_bit_errors": RandomBitErrors, "adversarial": Adversarial}


def objective(spec: object = None, bits: int = 8, per_channel: bool = False, seed: int = 0) -> Objective:
    """An objective as a study names it, for a network of such words trained from `seed`: nothing, a name, or a name
    with its settings; or one itself, or its `package.module:callable`. With settings that callable is called to make
    the objective.

    >>> objective({"random_bit_errors": {"flip_rate": 0.01}}, bits=6, seed=3)
    RandomBitErrors(flip_rate=0.01, bits=6, start_loss=1.75, seed=3, per_channel=False)
    >>> objective("adversarial").steps
    7
    """
    if spec is None or callable(spec):
        return spec or CrossEntropy()
    if own_objective(spec):
        return imported_objective(spec)
    name, settings = named(spec)
    if not isinstance(name, str) or name not in OBJECTIVES:
        allowed = f"one of {', '.join(OBJECTIVES)}, or package.module:callable, with its settings below"
        raise InputError("training", "objective", spec, allowed)
    given = {"bits": bits, "per_channel": per_channel, "seed": seed}
    own = {key: given[key] for key in given if key in {field.name for field in fields(OBJECTIVES[name])}}
    return _made(OBJECTIVES[name], name, own | (settings or {}))


def imported_objective(spec: object) -> Any:
    """Of `package.module:callable` the callable, and of {it: settings} what it makes of them."""
    name, settings = named(spec)
    found = imported(str(name), "training.objective")
    return found if settings is None else _made(found, str(name), settings)


def _made(kind: Callable[..., Any], name: str, settings: dict) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        raise InputError("training", f"objective.{name}", settings, str(error).split("__init__() ")[-1]) from None
