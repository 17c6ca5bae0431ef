"""Networks of wide filters trained in few epochs: Muon, and images that grow while it trains.

Filters follow Muon, whose step is the nearest orthogonal matrix to the gradient, so all directions of a layer learn at
one pace (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024), and each layer keeps its
norm, as batch normalisation after it makes that free. The rate falls linearly with the work that is left, not with the
steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RISE = 0.03  # share of the work over which the rate goes up
OTHER_RATE = 0.05  # the peak for all but filters


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """About the orthogonal factor of the polar decomposition, by a quintic iteration whose singular values end in
    0.7 to 1.2 (coefficients of Jordan et al.), which is near enough for a step."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum steps: orthogonal ones for groups with `iterations`, of layers that keep their norm; else Nesterov's."""

    def __init__(self, groups: list[dict]):
        super().__init__(groups, {"iterations": 0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                gradient = weight.grad + group["weight_decay"] * weight
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
                direction = gradient.add_(momentum, alpha=group["momentum"])
                if group["iterations"]:
                    weight.mul_(len(weight) ** 0.5 / weight.norm())  # filters of norm 1 on average
                    direction = orthogonal(direction.flatten(1), group["iterations"]).view_as(weight)
                weight.add_(direction, alpha=-group["lr"])


def muon(network: nn.Module, rate: float, weight_decay: float) -> Muon:
    """The optimiser of a network: `rate` is the peak of its filters, `weight_decay` that of all else."""
    filters = [weight for weight in network.parameters() if weight.ndim == 4]
    others = [weight for weight in network.parameters() if weight.ndim != 4]
    return Muon([
        {"params": filters, "lr": rate, "momentum": 0.85, "iterations": 3},
        {"params": others, "lr": OTHER_RATE, "momentum": 0.9, "weight_decay": weight_decay},
    ])  # fmt: skip


def by_work(sizes: Sequence[int]) -> list[float]:
    """Of every step its share of the peak rate, which falls with the work left; a step's work is size squared."""
    total, done, shares = sum(size * size for size in sizes), 0.0, []
    for size in sizes:
        share = (done + size * size / 2) / total
        shares.append(min(share / RISE, (1 - share) / (1 - RISE)))
        done += size * size
    return shares


class Convolution(nn.Conv2d):
    """As its base class; of a map up to 2 x 2, whose every pixel a 3 x 3 filter sees, as one matrix product
    without the padding, on which a filter spends 5 of 9 multiplications there, and 8 of 9 on a single pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """float[n, c, h, w] to float[n, filters, h, w]."""
        height, width = x.shape[2:]
        if max(height, width) > 2:
            return super().forward(x)
        rows = [self.weight[:, :, 1 - i : 1 - i + height, 1 - j : 1 - j + width]  # what output pixel (i, j) sees
                for i in range(height) for j in range(width)]  # fmt: skip
        y = F.linear(x.flatten(1), torch.cat(rows).flatten(1)).view(len(x), height, width, -1).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias[:, None, None]


@contextmanager
def for_small_images(network: nn.Module) -> Iterator[None]:
    """Inside the block a map of one pixel stays one at a pooling, as VGG's do in images under 32; larger ones of 2^n do
    not change. Convolutions of maps this small skip their padding."""
    pools = [layer for layer in network.modules() if isinstance(layer, nn.MaxPool2d)]
    before = [layer.ceil_mode for layer in pools]
    shape = ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    filters = [
        layer
        for layer in network.modules()
        if type(layer) is nn.Conv2d
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups) == shape
    ]
    try:
        for pool in pools:
            pool.ceil_mode = True
        for layer in filters:
            layer.__class__ = Convolution
        yield
    finally:
        for pool, mode in zip(pools, before, strict=True):
            pool.ceil_mode = mode
        for layer in filters:
            layer.__class__ = nn.Conv2d
