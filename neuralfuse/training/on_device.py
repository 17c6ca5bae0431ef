"""A device in the loop: a network evaluated on it, and an input transform tuned to it.

Two ways to tune. `tune` runs the forward pass on the device and the backward pass through the characterised model of
the same chip (straight-through): logits = model(x) + (device(x) - model(x)), with no gradient through the bracket.
`tune_by_queries` needs no model: it only looks at the device's outputs (antithetic evolution strategies: Salimans et
al., arXiv 1703.03864).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.on_device import DeviceNetwork, Drifted, set_model
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place
from neuralfuse.training.loop import batch_indices, random
from neuralfuse.training.settings import cosine
from sram.errors import InputError
from sram.weakcells import FaultMap

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Tuned:
    """What a tuning took. `runs` are batches run on the device, `images` the images in them."""

    steps: int
    runs: int
    images: int
    loss: float
    drift_checks: int = 0


def tune(
    on_device: DeviceNetwork,
    fault_map: FaultMap,
    neuralfuse: nn.Module,
    data: Dataset,
    steps: int,
    batch: int = 64,
    learning_rate: float = 3e-3,
    bits: int | None = 8,
    seed: int = 0,
    check_every: int = 50,
    most_drift: float = 0.25,
    progress: Progress | None = None,
) -> Tuned:
    """Train or fine-tune an input transform in place for the chip behind `on_device`, at its present voltage.

    Every `check_every` steps canaries are re-read (0: never): Drifted where more than `most_drift` of them changed.
    The transform is left rounded to `bits`; it in eval mode and the model without faults however the tuning ends.
    """
    _check(steps, batch, len(data.train_y))
    faulty, optimizer = on_device.faulty, torch.optim.Adam(neuralfuse.parameters(), learning_rate)
    before, checks, loss = (on_device.runs, on_device.images), 0, math.nan
    try:
        for step in range(steps):
            if check_every and step % check_every == 0:
                found, checks = on_device.check(fault_map), checks + 1
                if found.changed > most_drift:
                    raise Drifted(f"{found.changed:.0%} of the canaries changed; shift {found.shift:+.4f}")
            index = batch_indices(len(data.train_y), batch, seed, step)
            x, y = data.train_x[index].to(faulty.device), data.train_y[index].to(faulty.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * cosine(step, steps)
            optimizer.zero_grad()
            set_model(faulty, fault_map, on_device.voltage)
            neuralfuse.train()
            with fake_quantized(neuralfuse, bits):
                protected = neuralfuse(x)
                model = faulty(protected)
                logits = model + (on_device(protected) - model).detach()
                value = F.cross_entropy(logits, y)
                value.backward()
            optimizer.step()
            loss = value.item()
            if progress:
                progress(step + 1, steps, {"loss": loss})
    finally:
        faulty.restore()
        neuralfuse.eval()
    if bits is not None:
        quantize_in_place(neuralfuse, bits)
    return Tuned(steps, on_device.runs - before[0], on_device.images - before[1], loss, checks)


@torch.no_grad()
def tune_by_queries(
    on_device: DeviceNetwork,
    transform_: nn.Module,
    data: Dataset,
    steps: int,
    batch: int = 64,
    pairs: int = 4,
    width: float = 0.05,
    learning_rate: float = 0.03,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Tune an input transform in place by the device's outputs alone: no map, no gradient.

    Each step asks for the loss of one batch at `pairs` pairs of opposite random steps of standard deviation `width`
    away from the parameters; the differences estimate the gradient, which Adam follows. The device always sees the
    transform rounded to `bits`, as it is left.
    """
    _check(steps, batch, len(data.train_y))
    if pairs < 1 or not width > 0:
        raise InputError("queries", "pairs, width", (pairs, width), "pairs from 1, width above 0")
    parameters = list(transform_.parameters())
    optimizer = torch.optim.Adam(parameters, learning_rate, (0.9, 0.99))
    centre = nn.utils.parameters_to_vector(parameters)
    before, loss = (on_device.runs, on_device.images), math.nan
    transform_.eval()
    for step in range(steps):
        index = batch_indices(len(data.train_y), batch, seed, step)
        x, y = data.train_x[index].to(centre.device), data.train_y[index].to(centre.device)
        noise = torch.randn(pairs, centre.numel(), generator=random(seed + 1, step)).to(centre)
        gradient, total = torch.zeros_like(centre), 0.0
        for one in noise:
            losses = []
            for sign in (1, -1):
                nn.utils.vector_to_parameters(centre + sign * width * one, parameters)
                with fake_quantized(transform_, bits):
                    losses.append(float(F.cross_entropy(on_device(transform_(x)), y)))
            gradient += (losses[0] - losses[1]) / (2 * width * pairs) * one
            total += sum(losses)
        nn.utils.vector_to_parameters(centre, parameters)
        at = 0
        for parameter in parameters:
            parameter.grad = gradient[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * cosine(step, steps)
        optimizer.step()
        centre, loss = nn.utils.parameters_to_vector(parameters), total / (2 * pairs)
        if progress:
            progress(step + 1, steps, {"loss": loss})
    if bits is not None:
        quantize_in_place(transform_, bits)
    return Tuned(steps, on_device.runs - before[0], on_device.images - before[1], loss)


def _check(steps: int, batch: int, images: int) -> None:
    if steps < 1 or not 1 <= batch <= images:
        raise InputError("tuning", "steps, batch", (steps, batch), f"steps from 1, batch from 1 to {images}")
