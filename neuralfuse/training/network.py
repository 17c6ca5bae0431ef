"""The base network, trained with its weights rounded to words."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset, augment
from neuralfuse.quantized.evaluate import scores
from neuralfuse.quantized.formats import WordFormat, words_of
from neuralfuse.quantized.metric import METRICS, Metric, counted, cross_entropy
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place, weight_parameters
from neuralfuse.training.checkpoints import Run, described
from neuralfuse.training.loop import (
    Figures,
    batch_indices,
    computing_in,
    deterministic,
    layout,
    random,
    seeded,
    threads,
    train,
)
from neuralfuse.training.muon import by_work, for_small_images, muon
from neuralfuse.training.objectives import Towards, objective
from neuralfuse.training.settings import NetworkSettings

ALONE, DEFAULTS = Run(), NetworkSettings()


def one_cycle(step: int, steps: int, rise: float = 0.2) -> float:
    """Share of the peak learning rate: up linearly over the first fifth, then down to zero along a cosine."""
    if step < rise * steps:
        return (step + 1) / (rise * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise * steps) / ((1 - rise) * steps)))


def train_network(
    network: nn.Module,
    data: Dataset,
    settings: NetworkSettings = DEFAULTS,
    bits: int | WordFormat | None = 8,
    per_channel: bool = False,
    seed: int = 0,
    run: Run = ALONE,
    metric: Metric = METRICS["accuracy"],
) -> float:
    """Train a network in place and leave it rounded to `bits`, in eval mode.

    Every step computes with rounded weights and updates the unrounded ones (quantisation-aware training,
    straight-through), one scale a tensor or `per_channel`, or as a WordFormat says; `bits=None` trains in float.
    Without an objective of its own it is trained towards the metric. Returns the mean score, such as the accuracy, on
    the dataset's test images, which training does not see. What is no image is neither shifted nor mirrored.
    """
    device = next(network.parameters()).device
    own = Towards(metric) if settings.objective is None and metric.loss is not cross_entropy else settings.objective
    form = None if bits is None else words_of(bits, per_channel)
    backward = objective(own, *((form.bits, form.per_channel) if form else (8, per_channel)), seed)
    sizes = _sizes(settings, len(data.train_y), data.input_shape[-1])
    shares = _shares(settings, sizes)
    optimizer = _optimizer(network, settings)
    memory_format = layout(network, device)
    network.train().to(memory_format=memory_format)  # type: ignore[call-overload]
    images = {data.input_shape[-1]: data.train_x}

    def step(number: int) -> Figures:
        index, size = batch_indices(len(data.train_y), settings.batch, seed, number), sizes[number]
        x = _resized(data.train_x, size, images)[index]
        if data.are_images:
            x = augment(x, random(seed, number), settings.shift * size // data.input_shape[-1], settings.flip)
        x, y = x.to(device, memory_format=memory_format), data.train_y[index].to(device)
        rounded = fake_quantized(network, form)
        with seeded(seed, number, device), rounded, computing_in(settings.precision, device):
            return {"loss": backward(network, x, y, number)}

    arguments = asdict(settings) | {"objective": described(backward), "data": data.name, "bits": form and form.bits,
                                    "per_channel": form.per_channel if form else per_channel, "seed": seed}  # fmt: skip
    arguments |= {"group": form.group, "format": form.name} if form and (form.group or form.name != "int") else {}
    with threads(settings.threads), for_small_images(network) if settings.phases else nullcontext():
        train(network, optimizer, shares.__getitem__, len(sizes), step, run.checkpoints(arguments),
              progress=run.progress)  # fmt: skip
    if form is not None:
        quantize_in_place(network, form)
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with deterministic():
        found = scores(metric, network, data.test_x.to(device), data.test_y.to(device))
        return found.sum().item() / int(counted(data.test_y).sum())


def _sizes(settings: NetworkSettings, images: int, full: int) -> list[int]:
    """Of every step the size of its images."""
    if not settings.phases:
        return [full] * (settings.epochs * max(1, images // settings.batch))
    return [size for size, epochs in settings.phases for _ in range(round(epochs * images / settings.batch))]


def _shares(settings: NetworkSettings, sizes: Sequence[int]) -> list[float]:
    """Of every step its share of the peak rate."""
    return by_work(sizes) if settings.optimizer == "muon" else [one_cycle(i, len(sizes)) for i in range(len(sizes))]


def _optimizer(network: nn.Module, settings: NetworkSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "muon":
        optimizer = muon(network, rate, decay)
    elif settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(network.parameters(), rate, 0.9, weight_decay=decay, nesterov=True)
    if (clip := settings.clip) is not None:

        def cut(*_: object) -> None:
            for weight in weight_parameters(network).values():
                weight.data.clamp_(-clip, clip)

        optimizer.register_step_post_hook(cut)
    return optimizer


def _resized(x: Tensor, size: int, kept: dict[int, Tensor]) -> Tensor:
    """All images at this size; only the last such set is kept."""
    if size not in kept:
        kept.clear()
        kept[size] = F.interpolate(x, (size, size), mode="area")
    return kept[size]
