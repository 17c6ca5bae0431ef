"""Restricted access: only the outputs of the deployed network can be had, at its low voltage, one query an image.

Two ways, to be combined. Transfer: train the generator on a surrogate network of one's own
(`training.train_generator`, at a higher cell fault rate, 1.5% in the paper) and run it before the deployed one.
Queries: fit the transform by outputs of the chip alone. `spsa` estimates the gradient of the loss at the network's
input, for the gradients of the transform itself are known; `evolution` estimates that of the transform's numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.quantize import fake_quantized
from neuralfuse.training.checkpoints import Progress
from neuralfuse.training.fit import Calibrated, fit
from neuralfuse.training.loop import Figures, batch_indices, random
from neuralfuse.training.settings import CalibrationSettings

Outputs = Callable[[Tensor], Tensor]  # images -> logits, of a device or of a `FaultyNetwork` with faults set
DEFAULTS = CalibrationSettings()


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
        """The chip's outputs for images x, each of which counts."""
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


def spsa(
    outputs: Outputs,
    transform: nn.Module,
    data: Dataset,
    settings: CalibrationSettings = DEFAULTS,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a transform in place by simultaneous perturbation of the images that it gives (`estimate_gradient`).

    2 * directions queries an image and step. Labels of `data` are int64[n] or probabilities float[n, classes].
    Normalisation statistics of the transform are kept (eval mode): batches are small, and the transform comes from a
    surrogate as a rule.
    """
    deployed, draw = Counted(outputs), _batches(transform, data, settings, seed)
    asked = settings.directions, settings.distance or 0.1

    def step(number: int) -> Figures:
        x, y = draw(number)
        with fake_quantized(transform, bits):
            protected = transform(x)
            gradient, loss = estimate_gradient(deployed, protected.detach(), y, *asked, random(seed, number))
            protected.backward(gradient)
        return {"loss": loss, "queries": deployed.queries}

    loss = fit(transform.eval(), settings, step, bits, progress)
    return Calibrated(settings.steps, len(data.train_y), deployed.queries, loss)


def evolution(
    outputs: Outputs,
    transform: nn.Module,
    data: Dataset,
    settings: CalibrationSettings = DEFAULTS,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a transform in place by antithetic evolution strategies (Salimans et al., arXiv 1703.03864).

    Each step asks for the loss of one batch at pairs of opposite random steps of standard deviation `distance` away
    from the transform's numbers; the differences estimate the gradient, which Adam follows. The chip always sees the
    transform rounded to `bits`, as it is left. Otherwise as `spsa`.
    """
    deployed, draw = Counted(outputs), _batches(transform, data, settings, seed)
    pairs, width = settings.directions, settings.distance or 0.05
    parameters = list(transform.parameters())

    @torch.no_grad()
    def step(number: int) -> Figures:
        x, y = draw(number)
        centre = nn.utils.parameters_to_vector(parameters)
        noise = torch.randn(pairs, centre.numel(), generator=random(seed + 1, number)).to(centre)
        gradient, total = torch.zeros_like(centre), 0.0
        for one in noise:
            losses = []
            for sign in (1, -1):
                nn.utils.vector_to_parameters(centre + sign * width * one, parameters)
                with fake_quantized(transform, bits):
                    losses.append(float(F.cross_entropy(deployed(transform(x)), y)))
            gradient += (losses[0] - losses[1]) / (2 * width * pairs) * one
            total += sum(losses)
        nn.utils.vector_to_parameters(centre, parameters)
        for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        return {"loss": total / (2 * pairs), "queries": deployed.queries}

    loss = fit(transform.eval(), settings, step, bits, progress, betas=(0.9, 0.99))
    return Calibrated(settings.steps, len(data.train_y), deployed.queries, loss)


WAYS = {"spsa": spsa, "evolution": evolution}


def _batches(
    transform: nn.Module, data: Dataset, settings: CalibrationSettings, seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Images and labels of a step, where the transform is."""
    device, n = next(transform.parameters()).device, len(data.train_y)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        index = batch_indices(n, min(settings.batch, n), seed, number)
        return data.train_x[index].to(device), data.train_y[index].to(device)

    return draw
