"""Counts of right answers: what the statistics over chips are made of."""

from collections.abc import Callable

import torch
from torch import Tensor

from neuralfuse.quantized.metric import Metric


@torch.inference_mode()
def logits(model: Callable[[Tensor], Tensor], x: Tensor, batch: int = 128) -> Tensor:
    """What a model answers to the images x[n, ...]: (n, classes)."""
    return torch.cat([model(x[i : i + batch]) for i in range(0, len(x), batch)])


@torch.inference_mode()
def right(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, batch: int = 128) -> Tensor:
    """Which of the images x[n, ...] have their largest logit at their label y[n]: bools (n,). The caller puts modules
    in eval mode.

    >>> right(lambda x: x, torch.eye(3), torch.tensor([0, 1, 0])).tolist()
    [True, True, False]
    """
    return logits(model, x, batch).argmax(1) == y


@torch.inference_mode()
def scores(metric: Metric, model: Callable[[Tensor], Tensor], x: Tensor, targets: Tensor, batch: int = 128) -> Tensor:
    """What a model's answers to each of the items x[n, ...] are worth: int64[n] or float64[n], more is better. A
    metric that compares items and has no reference compares these."""
    if metric.reference is not None:
        return metric(logits(model, x, batch), targets)
    parts = [metric(model(x[i : i + batch]), targets[i : i + batch]) for i in range(0, len(x), batch)]
    return torch.cat(parts)


def correct(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, batch: int = 128) -> int:
    """How many are right."""
    return int(right(model, x, y, batch).sum())


def transform(model: Callable[[Tensor], Tensor], x: Tensor, batch: int = 128) -> Tensor:
    """Apply an input transform (a generator in eval mode) to all images once: it is the same for every chip and
    voltage."""
    return logits(model, x, batch)
