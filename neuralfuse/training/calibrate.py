"""An input transform fitted to one known chip.

A generator by EOPM sees many chips and must suit them all. Once a chip is characterised its faults are known and do
not change from read to read, so a much smaller transform can be fitted to them alone, for each chip anew. The network
stays frozen: gradients pass through it, faults and all, to the transform.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset
from neuralfuse.quantized.integer import Faults, Frozen
from neuralfuse.quantized.quantize import fake_quantized, weight_parameters
from neuralfuse.training.checkpoints import Progress
from neuralfuse.training.fit import Calibrated, fit
from neuralfuse.training.loop import Figures, batch_indices, computing_in, random, seeded
from neuralfuse.training.queries import DEFAULTS, WAYS, spsa
from neuralfuse.training.settings import CalibrationSettings
from sram.errors import InputError


def storage_bytes(transform: nn.Module, bits: int = 8) -> int:
    """What a chip has to keep of its transform: stored words, as counted by the simulator (no biases, no scales).

    >>> from neuralfuse.transforms.pixelwise import Affine
    >>> storage_bytes(Affine(3, 32, 32))
    6144
    """
    return sum(p.numel() for p in weight_parameters(transform).values()) * bits // 8


def calibration_set(data: Dataset, images: int | None, seed: int) -> Dataset:
    """`images` of the training images, drawn by `seed`; the test images are left out, so that nothing can see them."""
    n = len(data.train_y)
    if images is not None and images > n:
        raise InputError("calibrate", "images", images, f"at most {n} training images")
    chosen = torch.randperm(n, generator=random(seed, -1))[:images]
    return replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen], test_x=data.test_x[:0],
                   test_y=data.test_y[:0])  # fmt: skip


def calibrate(
    faulty: Frozen,
    transform: nn.Module,
    data: Dataset,
    faults: Sequence[Faults],
    settings: CalibrationSettings = DEFAULTS,
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
    if settings.access != "gradient" and len(faults) > 1:
        raise InputError("calibrate", "faults", f"{len(faults)} voltages", f"one, with access = {settings.access}")
    transform.to(faulty.device)
    chosen = calibration_set(data, settings.images, seed)
    settings = replace(settings, batch=min(settings.batch, len(chosen.train_y)))
    faulty.restore()
    x = chosen.train_x.to(faulty.device)
    target = _target(faulty, x, chosen.train_y.to(faulty.device), settings, seed)
    loss_of = _loss(settings.supervision, target)

    def step(number: int) -> Figures:
        index = batch_indices(len(x), settings.batch, seed, number)
        faulty.set_faults(*faults[number % len(faults)])
        with seeded(seed, number, x.device), fake_quantized(transform, bits):
            with computing_in(settings.precision, x.device):
                logits = faulty(transform(x[index]))
            value = loss_of(logits.float(), index)
            value.backward()
        return {"loss": value.item()}

    try:
        if settings.access == "gradient":
            return Calibrated(settings.steps, len(x), 0, fit(transform.train(), settings, step, bits, progress))
        asked = replace(chosen, train_x=x, train_y=target.softmax(1) if target.dim() == 2 else target)
        faulty.set_faults(*faults[0])
        return WAYS.get(settings.access, spsa)(faulty, transform, asked, settings, bits, seed, progress)
    finally:
        faulty.restore()


def _target(faulty: Frozen, x: Tensor, y: Tensor, settings: CalibrationSettings, seed: int) -> Tensor:
    """What `_loss` draws the answers to: labels, or the clean network's logits for the images that a step will take."""
    if settings.supervision == "labels":
        return y
    steps = range(settings.steps)
    taken = torch.cat([batch_indices(len(x), settings.batch, seed, step) for step in steps]).unique()
    answers = torch.cat([_answers(faulty, x[part]) for part in taken.split(256)])
    if settings.supervision == "statistics":
        return answers  # of those images alone: of no use by image, and zeros for the others are no answers
    return answers.new_zeros(len(x), answers.shape[1]).index_copy_(0, taken.to(x.device), answers)


@torch.no_grad()
def _answers(faulty: Frozen, x: Tensor) -> Tensor:
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
