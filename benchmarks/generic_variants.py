"""What is tried to make a generator for all chips better: recipes, objectives and small generators."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.faulty import FaultyNetwork
from neuralfuse.objective import eopm_backward
from neuralfuse.sources import Faults
from neuralfuse.training import GeneratorObjective

FORWARD = 0.4  # what a forward pass costs, as a share of one forward and backward (measured, resnet14 on one core)


@dataclass(frozen=True)
class Distilled:
    """EOPM towards the clean network's outputs on the untransformed images, mixed with the labels: `share` of them."""

    share: float

    def __call__(
        self,
        faulty: FaultyNetwork,
        transform: nn.Module,
        x: Tensor,
        y: Tensor,
        maps: Iterable[Faults],
        n: int,
        weight: float,
    ) -> tuple[float, float]:
        with torch.no_grad():
            outputs = faulty(x).softmax(1)
        target = self.share * outputs + (1 - self.share) * F.one_hot(y, outputs.shape[1])
        return eopm_backward(faulty, transform, x, target, maps, n, weight)


@dataclass(frozen=True)
class Worst:
    """EOPM with the maps weighed by their loss: softmax(loss / temperature), the gradient of a soft maximum; or the
    mean of the `k` worst alone. The gradients at F(x) are kept for each map until all losses are known."""

    temperature: float | None = None
    k: int | None = None

    def shares(self, losses: Tensor) -> Tensor:
        if self.temperature is not None:
            return (losses / self.temperature).softmax(0)
        assert self.k is not None
        shares = torch.zeros_like(losses)
        shares[losses.topk(self.k).indices] = 1 / self.k
        return shares

    def __call__(
        self,
        faulty: FaultyNetwork,
        transform: nn.Module,
        x: Tensor,
        y: Tensor,
        maps: Iterable[Faults],
        n: int,
        weight: float,
    ) -> tuple[float, float]:
        protected = transform(x)
        at = protected.detach().requires_grad_()
        clean = F.cross_entropy(faulty(at), y)
        (gradient,) = torch.autograd.grad(clean, at)
        losses, gradients = [], []
        for faults in maps:
            faulty.set_faults(*faults)
            losses.append(F.cross_entropy(faulty(at), y))
            gradients.append(torch.autograd.grad(losses[-1], at)[0])
        faulty.restore()
        each = torch.stack(losses).detach()
        for share, one in zip(self.shares(each), gradients, strict=True):
            gradient = gradient + weight * share * one
        protected.backward(gradient)
        return clean.item(), each.mean().item()


@dataclass
class Averaged:
    """EOPM that also keeps an exponential moving average of the generator: of its words and BatchNorm statistics.

    After n steps the decay is at most n / (n + 9): the first steps, far from the end, are forgotten sooner.
    """

    decay: float
    mean: nn.Module | None = None
    steps: int = 0

    @torch.no_grad()
    def take(self, transform: nn.Module) -> nn.Module:
        """The mean with this state in it."""
        if self.mean is None:
            self.mean = copy.deepcopy(transform)
            return self.mean
        self.steps += 1
        kept = 1 - min(self.decay, self.steps / (self.steps + 9))
        for mean, new in zip(self.mean.state_dict().values(), transform.state_dict().values(), strict=True):
            if mean.is_floating_point():  # not a count of batches
                mean.lerp_(new, kept)
        return self.mean

    def __call__(
        self,
        faulty: FaultyNetwork,
        transform: nn.Module,
        x: Tensor,
        y: Tensor,
        maps: Iterable[Faults],
        n: int,
        weight: float,
    ) -> tuple[float, float]:
        self.take(transform)
        return eopm_backward(faulty, transform, x, y, maps, n, weight)


def low_resolution(in_channels: int, width: int = 16, by: int = 2) -> nn.Module:
    """Three 3x3 convolutions on the image averaged over squares of `by` pixels."""
    first, last = nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, in_channels, 3, padding=1)
    middle = nn.Conv2d(width, width, 3, padding=1)
    up = nn.Upsample(scale_factor=by, mode="nearest")
    return nn.Sequential(nn.AvgPool2d(by), first, nn.ReLU(), middle, nn.ReLU(), last, up)


def separable(in_channels: int, width: int = 16, by: int = 1) -> nn.Module:
    """A convolution, two depthwise-separable ones, and a 1x1; at full resolution or `by` times less."""
    deep: list[nn.Module] = []
    for _ in range(2):
        deep += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU()]
    first = [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()]
    down, up = ([nn.AvgPool2d(by)], [nn.Upsample(scale_factor=by, mode="nearest")]) if by > 1 else ([], [])
    return nn.Sequential(*down, *first, *deep, nn.Conv2d(width, in_channels, 1), *up)


@dataclass(frozen=True)
class Variant:
    """A generator and how it is trained; the defaults are the paper's."""

    name: str
    generator: str = "ConvS"
    options: dict = field(default_factory=dict)
    maps: int = 10
    learning_rate: float = 0.001
    decay: str = "paper"
    average: float | None = None
    objective: GeneratorObjective = eopm_backward

    def steps(self, budget: int, batch: int) -> int:
        """Steps that pass `budget` images forward and backward through the network."""
        extra = FORWARD if isinstance(self.objective, Distilled) else 0
        return max(1, round(budget / (batch * (self.maps + 1 + extra))))


HERE = "benchmarks.generic_variants"
LOW, DEPTHWISE = f"{HERE}:low_resolution", f"{HERE}:separable"
PAPER = Variant("paper: ConvS, N 10")
SMALL = replace(PAPER, name="ConvS/4, N 10", options={"width": 8})
COSINE = replace(SMALL, name="ConvS/4, N 10, cosine", learning_rate=0.005, decay="cosine")
FEW = replace(COSINE, name="ConvS/4, N 1, cosine", maps=1)


def start(name: str, generator: str = "ConvS", width: int | None = None, **changes) -> Variant:
    """One map a step, a learning rate that falls along a cosine, and F = identity at first."""
    options = {"identity": True} | ({} if width is None else {"width": width}) | changes.pop("options", {})
    return replace(FEW, name=name, generator=generator, options=options, **changes)


VARIANTS = {
    "digits": [
        PAPER, SMALL, COSINE, replace(COSINE, name="ConvS/4, N 3, cosine", maps=3), FEW,
        start("N 1, from the identity", width=8),
        start("N 1, averaged", width=8, average=0.99),
        start("N 1, averaged, no cosine", width=8, average=0.99, decay="paper"),
        start("N 1, distilled", width=8, objective=Distilled(1.0)),
        start("N 1, half distilled", width=8, objective=Distilled(0.5)),
        start("N 4", width=8, maps=4),
        start("N 4, soft worst", width=8, maps=4, objective=Worst(temperature=0.5)),
        start("N 4, worst of 4", width=8, maps=4, objective=Worst(k=1)),
        start("N 4, 2 worst of 4", width=8, maps=4, objective=Worst(k=2)),
        start("tiny", "tiny"),
        start("half resolution", LOW, 16),
        start("quarter resolution", LOW, 32, options={"by": 4}),
        start("depthwise", DEPTHWISE, 16),
        start("depthwise, half resolution", DEPTHWISE, 32, options={"by": 2}),
        start("UNetS/4", "UNetS", 2),
        start("ConvS/8", width=4),
    ],
    "cifar10": [
        PAPER,
        start("ConvS, N 1, from the identity"),
        start("ConvS/4, N 1, from the identity", width=8),
        start("UNetS/2, N 1, from the identity", "UNetS", 4),
        start("N 1, averaged", width=8, average=0.99),
        start("N 1, distilled", width=8, objective=Distilled(1.0)),
        start("N 4", width=8, maps=4),
        start("N 4, worst of 4", width=8, maps=4, objective=Worst(k=1)),
        start("tiny", "tiny"),
        start("half resolution", LOW, 16),
        start("quarter resolution", LOW, 32, options={"by": 4}),
        start("depthwise", DEPTHWISE, 16),
    ],
}  # fmt: skip
