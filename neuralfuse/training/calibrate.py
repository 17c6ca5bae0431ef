"""An input transform fitted to one known chip.

A generator by EOPM sees many chips and must suit them all. Once a chip is characterised its faults are known and do
not change from read to read, so a much smaller transform can be fitted to them alone, for each chip anew. The network
stays frozen: gradients pass through it, faults and all, to the transform.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.quantized.quantize import WEIGHT_LAYERS, fake_quantized, quantize_in_place, weight_parameters
from neuralfuse.training.loop import (
    Progress,
    batch_indices,
    computing_in,
    deterministic,
    random,
    seeded,
)
from neuralfuse.training.queries import Counted, tune_by_queries
from neuralfuse.training.settings import Settings, cosine
from sram.errors import InputError

DEFAULTS = Settings()


@dataclass(frozen=True)
class Calibrated:
    """What a calibration took: `images` different ones, and as many `queries` of the chip (0 with the gradient)."""

    steps: int
    images: int
    queries: int
    loss: float


def storage_bytes(transform: nn.Module, bits: int = 8) -> int:
    """What a chip has to keep of its transform: stored words, as counted by the simulator (no biases, no scales).

    >>> from neuralfuse.transforms.pixelwise import Affine
    >>> storage_bytes(Affine(3, 32, 32))
    6144
    """
    return sum(p.numel() for p in weight_parameters(transform).values()) * bits // 8


def learning_rate(transform: nn.Module, settings: Settings) -> float:
    """The one asked for, or what suits this transform."""
    layers = any(isinstance(module, WEIGHT_LAYERS) for module in transform.modules())
    return settings.learning_rate or (0.005 if layers else 0.05)


def calibration_set(data: Dataset, images: int | None, seed: int) -> Dataset:
    """`images` of the training images, drawn by `seed`; the test images are left out, so that nothing can see them."""
    n = len(data.train_y)
    if images is not None and images > n:
        raise InputError("calibrate", "images", images, f"at most {n} training images")
    chosen = torch.randperm(n, generator=random(seed, -1))[:images]
    return replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen], test_x=data.test_x[:0],
                   test_y=data.test_y[:0])  # fmt: skip


def calibrate(
    faulty: FaultyNetwork,
    transform: nn.Module,
    data: Dataset,
    faults: Sequence[FaultyBits],
    settings: Settings = DEFAULTS,
    bits: int | None = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit `transform` (`generators.NeuralFuse`) in place to a chip whose faults are known; leave it rounded to `bits`.

    Several `faults` are taken in turn, step by step: those of one chip at several voltages give one transform for all
    of them. Only training images are seen. The same arguments give the same numbers. However the fit ends, the network
    is left without faults and the transform in eval mode.
    """
    if not faults:
        raise InputError("calibrate", "faults", "none", "those of at least one voltage")
    device = faulty.device
    transform.to(device)
    chosen = calibration_set(data, settings.images, seed)
    batch = min(settings.batch, len(chosen.train_y))
    rate = learning_rate(transform, settings)
    faulty.restore()
    x, target = chosen.train_x.to(device), chosen.train_y.to(device)
    if settings.supervision != "labels":  # the clean network's answers, to the images that a step will take
        taken = torch.cat([batch_indices(len(x), batch, seed, step) for step in range(settings.steps)]).unique()
        answers = torch.cat([_answers(faulty, x[part]) for part in taken.split(256)])
        if settings.supervision == "statistics":
            target = answers  # of those images alone: of no use by image, and zeros for the others are no answers
        else:
            target = answers.new_zeros(len(x), answers.shape[1]).index_copy_(0, taken.to(device), answers)
    if settings.access == "queries":
        if len(faults) > 1:
            raise InputError("calibrate", "faults", f"{len(faults)} voltages", "one, with access = queries")
        asked = replace(chosen, train_x=x, train_y=target.softmax(1) if target.dim() == 2 else target)
        faulty.set_faults(*faults[0])
        try:
            queries = tune_by_queries(
                transform, Counted(faulty), asked, settings.steps, batch, learning_rate=rate, bits=bits, seed=seed,
                progress=progress,
            )  # fmt: skip
        finally:
            faulty.restore()
        return Calibrated(settings.steps, len(x), queries, math.nan)
    loss_of = _loss(settings.supervision, target)
    optimizer, loss = torch.optim.Adam(transform.parameters(), rate), math.nan
    transform.train()
    try:
        with deterministic():
            for step in range(settings.steps):
                for group in optimizer.param_groups:
                    group["lr"] = rate * cosine(step, settings.steps)
                index = batch_indices(len(x), batch, seed, step)
                faulty.set_faults(*faults[step % len(faults)])
                optimizer.zero_grad()
                with seeded(seed, step, device), fake_quantized(transform, bits):
                    with computing_in(settings.precision, device):
                        logits = faulty(transform(x[index]))
                    value = loss_of(logits.float(), index)
                    value.backward()
                optimizer.step()
                loss = value.item()
                if progress:
                    progress(step + 1, settings.steps, {"loss": loss})
    finally:
        faulty.restore()
        transform.eval()
    if bits is not None:
        quantize_in_place(transform, bits)
    return Calibrated(settings.steps, len(x), 0, loss)


@torch.no_grad()
def _answers(faulty: FaultyNetwork, x: Tensor) -> Tensor:
    return faulty(x)


def _loss(supervision: str, target: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """(logits, indices of the batch) -> loss. `target` holds labels or the clean network's logits by image; for
    `statistics`, its logits for the images whose moments count."""
    if supervision == "labels":
        return lambda logits, index: F.cross_entropy(logits, target[index])
    if supervision == "outputs":
        clean = F.log_softmax(target, 1)
        return lambda logits, index: F.kl_div(F.log_softmax(logits, 1), clean[index], reduction="batchmean",
                                              log_target=True)  # fmt: skip
    mean, covariance = moments(target)
    size = covariance.diagonal().sum(), covariance.square().sum()

    def distance(logits: Tensor, index: Tensor) -> Tensor:
        m, c = moments(logits)
        return (m - mean).square().sum() / size[0] + (c - covariance).square().sum() / size[1]

    return distance


def moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean float[c] and covariance float[c, c] over a batch float[n, c] (divided by n).

    >>> moments(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))[1].tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    mean = logits.mean(0)
    centred = logits - mean
    return mean, centred.T @ centred / len(logits)
