"""A generator trained before frozen networks, by EOPM or towards one's own objective."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from neuralfuse.chips.sources import Source
from neuralfuse.data import Dataset
from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.quantized.integer import Faults, Frozen
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place
from neuralfuse.training.checkpoints import Run, described
from neuralfuse.training.eopm import eopm_backward
from neuralfuse.training.loop import Figures, Watch, batch_of, computing_in, layout, seeded, threads, train
from neuralfuse.training.objectives import imported_objective
from neuralfuse.training.own_words import Both, read_words
from neuralfuse.training.painting import paint_first
from neuralfuse.training.settings import DECAYS, GeneratorSettings, HeldOutSettings, own_objective
from neuralfuse.transforms.generators import NeuralFuse
from neuralfuse.transforms.per_voltage import turn
from sram.errors import InputError

# (network, transform, images, labels, maps, N, lambda) -> clean and mean faulty loss, backward done
GeneratorObjective = Callable[[Frozen, nn.Module, Tensor, Tensor, Iterable[Faults], int, float], tuple[float, float]]
ALONE = Run()


@dataclass(frozen=True)
class HeldOut:
    """What a training is watched on: images apart from training and test, and chips apart from both (`faults`).

    Every `every` steps the accuracy over these chips is taken; the best generator is kept, and after `patience` times
    without a better one the training stops.
    """

    x: Tensor
    y: Tensor
    faults: Sequence[Faults]
    every: int = HeldOutSettings.every
    patience: int = HeldOutSettings.patience


@dataclass(frozen=True)
class Trained:
    """How a generator's training ended. Accuracies are None without held-out images."""

    steps: int
    best_step: int
    clean_loss: float
    faulty_loss: float
    held_out_accuracy: float | None = None


def objective(spec: object = None) -> GeneratorObjective:
    """EOPM for nothing; else an objective itself, or its `package.module:callable`, which with settings below it is
    called to make the objective."""
    if spec is None or callable(spec):
        return spec or eopm_backward
    if own_objective(spec) is None:
        raise InputError("training", "objective", spec, "package.module:callable, with its settings below")
    return imported_objective(spec)


def held_out_accuracy(faulty: Frozen, protected: Tensor, y: Tensor, faults: Sequence[Faults]) -> float:
    """Mean accuracy over fault maps on images that have passed the generator."""
    total = 0
    try:
        for one in faults:
            faulty.set_faults(*one)
            total += correct(faulty, protected, y)
    finally:
        faulty.restore()
    return total / (len(y) * len(faults))


def watched_accuracy(faulty: Frozen, neuralfuse: nn.Module, held_out: HeldOut, bits: int | None) -> float:
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
    networks: Sequence[tuple[Frozen, Source]],
    neuralfuse: NeuralFuse,
    data: Dataset,
    settings: GeneratorSettings,
    bits: int | None = 8,
    seed: int = 0,
    held_out: HeldOut | None = None,
    run: Run = ALONE,
) -> Trained:
    """Train an input transform (`generators.NeuralFuse`) in place before frozen networks; leave it rounded to `bits`.

    Each network has a source: `source(draw)` gives the fault map of a draw, and the network's step s uses draws
    s * maps to (s + 1) * maps - 1. Several networks (surrogates of one that cannot be had) are taken in turn, each
    counting its own steps, so that it meets all that its source draws in turn; held-out images are watched on the
    first. The generator computes with weights of `bits` bits from the first step on and runs at nominal voltage, free
    of errors. Settings may ask for stages before EOPM (`painting`); only EOPM is watched.
    """
    device = networks[0][0].device
    memory_format = layout(neuralfuse, device)
    neuralfuse.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    backward = objective(settings.objective)
    arguments = asdict(settings) | {"objective": described(backward), "data": data.name, "bits": bits, "seed": seed,
                                    "words": [network.words.size for network, _ in networks]}  # fmt: skip
    paint_first(networks, neuralfuse, data, settings, bits, seed, run, arguments)
    optimizer = torch.optim.Adam(neuralfuse.parameters(), settings.learning_rate, (0.5, 0.999))

    def step(number: int) -> Figures:
        neuralfuse.train()
        x, y = batch_of(data, settings, seed, number)
        x, y = x.to(device, memory_format=memory_format), y.to(device)
        own, which = divmod(number, len(networks))
        faulty, source = networks[which]
        maps = (source(own * settings.maps + i) for i in range(settings.maps))
        learner = turn(neuralfuse, own)
        rounded = fake_quantized(learner, bits)
        with seeded(seed, number, device), rounded, computing_in(settings.precision, device):
            clean, hit = backward(faulty, learner, x, y, maps, settings.maps, settings.weight)
        return {"clean_loss": clean, "faulty_loss": hit}

    watch = None
    if held_out is not None:
        measure = partial(watched_accuracy, networks[0][0], neuralfuse, held_out, bits)
        watch = Watch(measure, held_out.every, held_out.patience)
    with threads(settings.threads):
        steps, figures = train(
            neuralfuse, optimizer, lambda number: DECAYS[settings.decay](number, settings.steps), settings.steps, step,
            run.checkpoints(arguments), watch, run.progress,
        )  # fmt: skip
    if watch and watch.weights:
        neuralfuse.load_state_dict(watch.weights)
    if bits is not None:
        quantize_in_place(neuralfuse, bits)
    neuralfuse.eval()
    losses = figures.get("clean_loss", math.nan), figures.get("faulty_loss", math.nan)
    return Trained(steps, watch.best_step if watch else 0, *losses, watch.best if watch else None)
