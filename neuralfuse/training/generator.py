"""A generator trained by EOPM before frozen networks."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from neuralfuse.chips.sources import Source
from neuralfuse.data import Dataset, augment
from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place
from neuralfuse.training.eopm import eopm_backward
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
from neuralfuse.training.own_words import Both, read_words
from neuralfuse.training.settings import DECAYS, PAPER_MAPS, check_precision
from neuralfuse.transforms.per_voltage import turn
from sram.errors import InputError

# (network, transform, images, labels, maps, N, lambda) -> clean and mean faulty loss, backward done
GeneratorObjective = Callable[
    [FaultyNetwork, nn.Module, Tensor, Tensor, Iterable[FaultyBits], int, float], tuple[float, float]
]


@dataclass(frozen=True)
class HeldOut:
    """What a training is watched on: images apart from training and test, and chips apart from both (`faults`).

    Every `every` steps the accuracy over these chips is taken; the best generator is kept, and after `patience` times
    without a better one the training stops.
    """

    x: Tensor
    y: Tensor
    faults: Sequence[FaultyBits]
    every: int = 50
    patience: int = 10


@dataclass(frozen=True)
class Trained:
    """How a generator's training ended. Accuracies are None without held-out images."""

    steps: int
    best_step: int
    clean_loss: float
    faulty_loss: float
    held_out_accuracy: float | None = None


def held_out_accuracy(faulty: FaultyNetwork, protected: Tensor, y: Tensor, faults: Sequence[FaultyBits]) -> float:
    """Mean accuracy over fault maps on images that have passed the generator."""
    total = 0
    try:
        for one in faults:
            faulty.set_faults(*one)
            total += correct(faulty, protected, y)
    finally:
        faulty.restore()
    return total / (len(y) * len(faults))


def watched_accuracy(faulty: FaultyNetwork, neuralfuse: nn.Module, held_out: HeldOut, bits: int | None) -> float:
    """Mean accuracy over the held-out chips, the i-th behind the transform of step i, with its own faults if it has
    any."""
    x, y, total = held_out.x.to(faulty.device), held_out.y.to(faulty.device), 0.0
    for i, faults in enumerate(held_out.faults):
        learner, of_network = turn(neuralfuse, i), faults
        if isinstance(faults, Both) and bits is not None:
            of_network = faults.network
            with read_words(learner, bits) as read:
                read(faults.generator)
                protected = transform(learner, x)
        else:
            with fake_quantized(learner, bits):
                protected = transform(learner, x)
        total += held_out_accuracy(faulty, protected, y, [of_network])
    return total / len(held_out.faults)


def train_generator(
    faulty: FaultyNetwork | Sequence[FaultyNetwork],
    neuralfuse: nn.Module,
    data: Dataset,
    source: Source | Sequence[Source],
    steps: int,
    batch: int = 256,
    maps: int = PAPER_MAPS,
    weight: float = 5.0,
    learning_rate: float = 1e-3,
    decay: str = "paper",
    bits: int | None = 8,
    shift: int = 4,
    flip: bool = True,
    seed: int = 0,
    objective: GeneratorObjective = eopm_backward,
    precision: str = "float32",
    held_out: HeldOut | None = None,
    settings: str | None = None,
    checkpoint_path: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train an input transform (`generators.NeuralFuse`) in place by EOPM before a frozen network; leave it rounded.

    `source(draw)` gives the fault map of a draw; step s uses draws s * maps to (s + 1) * maps - 1. With several
    networks, each with a source of its own, the steps take them in turn (surrogates of one that cannot be had; held-out
    images are watched on the first). Each then counts its own steps, so that it meets all that its source draws in
    turn. `weight` is the paper's lambda, `maps` its N. The generator computes with weights of `bits` bits from the
    first step on and runs at nominal voltage, free of errors. `precision="bfloat16"` is for GPUs and for CPUs with
    instructions for it; weights and their steps stay float32. Defaults are the paper's settings.

    A run that was killed goes on only under the same arguments and `settings`, a digest of what they do not tell (the
    sources, say, and what is watched).
    """
    if decay not in DECAYS:
        raise InputError("training", "decay", decay, "one of " + ", ".join(DECAYS))
    check_precision(precision)
    if maps < 1 or steps < 1 or weight < 0:
        raise InputError(
            "training", "maps, steps, weight", (maps, steps, weight), "maps and steps from 1, weight from 0"
        )
    networks = [faulty] if isinstance(faulty, FaultyNetwork) else list(faulty)
    sources = list(source) if isinstance(source, Sequence) else [source]
    if len(sources) != len(networks):
        raise InputError("training", "source", len(sources), f"one for each network: {len(networks)}")
    device = networks[0].device
    memory_format = layout(neuralfuse, device)
    neuralfuse.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    arguments = dict(
        steps=steps, batch=batch, maps=maps, weight=weight, learning_rate=learning_rate, decay=decay, bits=bits,
        shift=shift, flip=flip, seed=seed, objective=described(objective), precision=precision,
        data=data.name, words=[network.words.size for network in networks], settings=settings,
    )  # fmt: skip
    optimizer = torch.optim.Adam(neuralfuse.parameters(), learning_rate, (0.5, 0.999))
    checkpoints = Checkpoints(checkpoint_path, arguments)
    record, best = checkpoints.read(neuralfuse, optimizer)
    trained = Trained(**record["trained"]) if record else Trained(0, 0, math.nan, math.nan)
    stale = record.get("stale", 0)
    with deterministic():
        for step in range(trained.steps, steps):
            if held_out and stale >= held_out.patience:
                break
            neuralfuse.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * DECAYS[decay](step, steps)
            index = batch_indices(len(data.train_y), batch, seed, step)
            x = augment(data.train_x[index], random(seed, step), shift, flip).to(device, memory_format=memory_format)
            own, which = divmod(step, len(networks))
            faulty, draws = networks[which], sources[which]
            faults = (draws(own * maps + i) for i in range(maps))
            learner = turn(neuralfuse, own)
            optimizer.zero_grad()
            with seeded(seed, step, device), fake_quantized(learner, bits), computing_in(precision, device):
                losses = objective(faulty, learner, x, data.train_y[index].to(device), faults, maps, weight)
            optimizer.step()
            trained = Trained(step + 1, trained.best_step, *losses, trained.held_out_accuracy)
            if held_out and ((step + 1) % held_out.every == 0 or step + 1 == steps):
                neuralfuse.eval()
                accuracy = watched_accuracy(networks[0], neuralfuse, held_out, bits)
                better = trained.held_out_accuracy is None or accuracy > trained.held_out_accuracy
                stale = 0 if better else stale + 1
                if better:
                    best = {name: tensor.detach().clone() for name, tensor in neuralfuse.state_dict().items()}
                    trained = Trained(step + 1, step + 1, *losses, accuracy)
            state = {"trained": asdict(trained), "stale": stale}
            checkpoints.write(neuralfuse, optimizer, state, best, last=step + 1 == steps)
            if progress:
                figures = {"clean_loss": losses[0], "faulty_loss": losses[1]}
                if trained.held_out_accuracy is not None:
                    figures["held_out_accuracy"] = trained.held_out_accuracy
                progress(step + 1, steps, figures)
    if best:
        neuralfuse.load_state_dict(best)
    if bits is not None:
        quantize_in_place(neuralfuse, bits)
    neuralfuse.eval()
    return trained
