"""The base network, trained with its weights rounded to words."""

import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.data import Dataset, augment
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place, weight_parameters
from neuralfuse.training.loop import (
    Checkpoints,
    Progress,
    batch_indices,
    computing_in,
    described,
    deterministic,
    layout,
    random,
    seeded,
)
from neuralfuse.training.settings import check_precision

Objective = Callable[[nn.Module, Tensor, Tensor, int], float]  # (network, images, labels, step) -> loss, backward done


def one_cycle(step: int, steps: int, rise: float = 0.2) -> float:
    """Share of the peak learning rate: up linearly over the first fifth, then down to zero along a cosine."""
    if step < rise * steps:
        return (step + 1) / (rise * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise * steps) / ((1 - rise) * steps)))


def cross_entropy(network: nn.Module, x: Tensor, y: Tensor, step: int) -> float:
    """The plain objective: adds its gradient to the network's parameters and returns the loss."""
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    return loss.item()


def train_network(
    network: nn.Module,
    data: Dataset,
    epochs: int = 20,
    batch: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    bits: int | None = 8,
    shift: int = 4,
    flip: bool = True,
    seed: int = 0,
    objective: Objective | None = None,
    clip: float | None = None,
    per_channel: bool = False,
    precision: str = "float32",
    settings: str | None = None,
    checkpoint_path: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> float:
    """Train a network in place by SGD (Nesterov momentum 0.9, one cycle) and leave it rounded to `bits`, in eval mode.

    Every step computes with rounded weights and updates the unrounded ones (quantisation-aware training,
    straight-through), one scale a tensor or `per_channel`; `bits=None` trains in float. `shift` and `flip` are the
    augmentation's. `objective` is cross-entropy or one of `baselines`; after each step weights are cut to
    [-clip, clip]. `precision` is of the products while training (`train_generator` says where it pays). A run that was
    killed goes on only under the same arguments and `settings`, a digest of what they do not tell (the images, say).
    Returns the accuracy on the dataset's test images, which training does not see.
    """
    check_precision(precision)
    steps = epochs * max(1, len(data.train_y) // batch)
    arguments = dict(
        epochs=epochs, batch=batch, learning_rate=learning_rate, weight_decay=weight_decay, bits=bits, shift=shift,
        flip=flip, seed=seed, data=data.name, objective=described(objective), clip=clip, per_channel=per_channel,
        precision=precision, settings=settings,
    )  # fmt: skip
    backward = objective or cross_entropy
    optimizer = torch.optim.SGD(network.parameters(), learning_rate, 0.9, weight_decay=weight_decay, nesterov=True)
    checkpoints = Checkpoints(checkpoint_path, arguments)
    record, _ = checkpoints.read(network, optimizer)
    device = next(network.parameters()).device
    memory_format = layout(network, device)
    network.train().to(memory_format=memory_format)  # type: ignore[call-overload]
    with deterministic():
        for step in range(record.get("step", 0), steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * one_cycle(step, steps)
            index = batch_indices(len(data.train_y), batch, seed, step)
            x = augment(data.train_x[index], random(seed, step), shift, flip)
            x, y = x.to(device, memory_format=memory_format), data.train_y[index].to(device)
            optimizer.zero_grad()
            with (
                seeded(seed, step, device),
                fake_quantized(network, bits, per_channel),
                computing_in(precision, device),
            ):
                loss = backward(network, x, y, step)
            optimizer.step()
            if clip is not None:
                for weight in weight_parameters(network).values():
                    weight.data.clamp_(-clip, clip)
            checkpoints.write(network, optimizer, {"step": step + 1}, {}, last=step + 1 == steps)
            if progress:
                progress(step + 1, steps, {"loss": loss})
        if bits is not None:
            quantize_in_place(network, bits, per_channel)
        network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return correct(network, data.test_x.to(device), data.test_y.to(device)) / len(data.test_y)
