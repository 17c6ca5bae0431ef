"""What all ways to fit a transform to one chip share: Adam along a cosine, and what is left in the end."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from neuralfuse.quantized.quantize import WEIGHT_LAYERS, quantize_in_place
from neuralfuse.training.checkpoints import Progress
from neuralfuse.training.loop import Figures, train
from neuralfuse.training.settings import CalibrationSettings, cosine


@dataclass(frozen=True)
class Calibrated:
    """What a calibration took: `images` different ones, and as many `queries` of the chip (0 with the gradient)."""

    steps: int
    images: int
    queries: int
    loss: float


def learning_rate(transform: nn.Module, settings: CalibrationSettings) -> float:
    """The one asked for, or what suits this transform."""
    layers = any(isinstance(module, WEIGHT_LAYERS) for module in transform.modules())
    return settings.learning_rate or (0.005 if layers else 0.05)


def fit(
    transform: nn.Module,
    settings: CalibrationSettings,
    step: Callable[[int], Figures],
    bits: int | None,
    progress: Progress | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
) -> float:
    """Run `settings.steps` steps (`loop.train`); leave the transform in eval mode however that ends, and rounded to
    `bits` if it does end. Returns the loss of the last step."""
    optimizer = torch.optim.Adam(transform.parameters(), learning_rate(transform, settings), betas)
    try:
        _, figures = train(
            transform, optimizer, lambda number: cosine(number, settings.steps), settings.steps, step, progress=progress
        )
    finally:
        transform.eval()
    if bits is not None:
        quantize_in_place(transform, bits)
    return figures["loss"]
