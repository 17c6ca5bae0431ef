"""Restricted access: only the outputs of the deployed network can be had, at its low voltage, one query an image.

Two ways, to be combined. Transfer: train the generator on a surrogate network of one's own
(`training.train_generator`, at a higher cell fault rate, 1.5% in the paper) and run it before the deployed one.
Queries: estimate the gradient of the loss at the deployed network's input from outputs alone, and train the generator
with it: its own gradients are known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place
from neuralfuse.training.loop import Progress, batch_indices, deterministic, random
from neuralfuse.training.settings import cosine

Outputs = Callable[[Tensor], Tensor]  # images -> logits, of a device or of a `FaultyNetwork` with faults set


@dataclass
class Counted:
    """A deployed network that gives outputs only, and counts the images it was asked about.

    >>> deployed = Counted(lambda x: x.flatten(1))
    >>> _ = deployed(torch.zeros(5, 1, 2, 2))
    >>> deployed.queries
    5
    """

    outputs: Outputs
    queries: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        with torch.no_grad():
            return self.outputs(x)


def estimate_gradient(
    outputs: Outputs, at: Tensor, y: Tensor, directions: int, distance: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Gradient of the mean cross-entropy with respect to images `at`, from 2 * directions queries an image; and the
    loss.

    Simultaneous perturbation (Spall, 1992): each image is moved by +-distance in a random direction of signs; the loss
    difference along it, times the direction, has the gradient as its mean (to second order in the distance). The loss
    is the mean over all queries. `y` holds labels int64[n] or probabilities float[n, classes].
    """
    total, loss = torch.zeros_like(at), 0.0
    for _ in range(directions):
        sign = torch.randint(0, 2, at.shape, generator=generator).to(at) * 2 - 1
        plus = F.cross_entropy(outputs(at + distance * sign), y, reduction="none")
        minus = F.cross_entropy(outputs(at - distance * sign), y, reduction="none")
        total += ((plus - minus) / (2 * distance)).view(-1, *(1,) * (at.dim() - 1)) * sign
        loss += (plus.mean().item() + minus.mean().item()) / 2
    return total / (directions * len(y)), loss / directions


def tune_by_queries(
    transform: nn.Module,
    deployed: Counted,
    data: Dataset,
    steps: int,
    batch: int = 64,
    directions: int = 4,
    distance: float = 0.1,
    learning_rate: float = 1e-3,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Fine-tune an input transform in place with outputs of the deployed network alone; return the number of queries.

    Costs 2 * directions * batch queries a step. Normalisation statistics of the transform are kept (eval mode):
    batches are small, and the transform comes from a surrogate as a rule.
    """
    optimizer = torch.optim.Adam(transform.parameters(), learning_rate)
    transform.eval()
    before = deployed.queries
    with deterministic():
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * cosine(step, steps)
            index = batch_indices(len(data.train_y), batch, seed, step)
            optimizer.zero_grad()
            with fake_quantized(transform, bits):
                protected = transform(data.train_x[index])
                gradient, loss = estimate_gradient(
                    deployed, protected.detach(), data.train_y[index], directions, distance, random(seed, step)
                )
                protected.backward(gradient)
            optimizer.step()
            if progress:
                progress(step + 1, steps, {"loss": loss, "queries": deployed.queries - before})
    if bits is not None:
        quantize_in_place(transform, bits)
    return deployed.queries - before
