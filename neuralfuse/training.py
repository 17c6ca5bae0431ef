"""Training loops: the base network with quantisation-aware training, and a generator by EOPM on a frozen one.

Both are functions of their arguments alone: batch order, augmentation, fault maps and what modules draw themselves
(dropout) depend on (seed, step), never on what ran before. A run that is killed goes on from its last checkpoint and
ends with the same numbers.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse import checkpoint
from neuralfuse.data import Dataset, augment
from neuralfuse.evaluate import correct, transform
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.objective import eopm_backward
from neuralfuse.ownfaults import Both, read_words
from neuralfuse.pervoltage import turn
from neuralfuse.quantize import fake_quantized, quantize_in_place, weight_parameters
from neuralfuse.sources import Faults, Source
from sram.errors import InputError

PAPER_MAPS = 10  # fault maps of a step
Progress = Callable[[int, int, dict[str, float]], None]  # (step, steps, named figures)


Objective = Callable[[nn.Module, Tensor, Tensor, int], float]  # (network, images, labels, step) -> loss, backward done
# (network, transform, images, labels, maps, N, lambda) -> clean and mean faulty loss, backward done
GeneratorObjective = Callable[
    [FaultyNetwork, nn.Module, Tensor, Tensor, Iterable[Faults], int, float], tuple[float, float]
]


@contextmanager
def deterministic() -> Iterator[None]:
    """Only deterministic kernels inside the block.

    New tensors are not filled first, as torch does by default in this mode: it takes time, and no kernel here reads
    what it has not written.
    """
    mode: Any = torch.utils.deterministic
    chosen, filled = torch.are_deterministic_algorithms_enabled(), mode.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(chosen)
        mode.fill_uninitialized_memory = filled


def layout(module: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last suits tensor cores; and a CPU where every convolution is wide (ResNet18 trains 1.7 times as fast,
    VGG19 1.2). Not elsewhere on a CPU: torch 2.13's convolutions of 4 channels corrupt the heap there."""
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    wide = bool(widths) and all(width % 64 == 0 for width in widths)
    return torch.channels_last if wide or device.type == "cuda" else torch.contiguous_format


def random(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step or epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Inside the block what modules draw from torch's own stream (dropout) depends on (seed, step) alone; after it that
    stream is where it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # not the numbers of `random` again, which are the augmentation's
        torch.manual_seed(int(torch.randint(2**32, (), generator=random(seed, step))))
        yield


def batch_indices(n: int, batch: int, seed: int, step: int) -> Tensor:
    """Images of one step: a new permutation every epoch, whose incomplete last batch is dropped."""
    epoch, position = divmod(step, max(1, n // batch))
    order = torch.randperm(n, generator=random(seed, epoch))
    return order[position * batch : (position + 1) * batch]


def one_cycle(step: int, steps: int, rise: float = 0.2) -> float:
    """Share of the peak learning rate: up linearly over the first fifth, then down to zero along a cosine."""
    if step < rise * steps:
        return (step + 1) / (rise * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise * steps) / ((1 - rise) * steps)))


def cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def paper_decay(step: int, steps: int) -> float:
    """StepLR(500, 0.96) of Sun et al."""
    return 0.96 ** (step // 500)


DECAYS = {"cosine": cosine, "paper": paper_decay}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise InputError("training", "precision", precision, "one of " + ", ".join(PRECISIONS))


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Convolutions and matrix products in `precision`. No cache, which would keep the rounded weights of the first step
    and those of the first chip of `read_words`."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32", cache_enabled=False)


def described(objective: object) -> str:
    """The same text in every process: what a dataclass holds, else a name."""
    if objective is None or is_dataclass(objective):
        return repr(objective)
    named = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{named.__module__}.{named.__qualname__}"


class Checkpoints:
    """A run's own file: written at most every `seconds`, read back only by a run with the same arguments.

    Another run, or one of another module, is refused; but where a caller keeps `settings`, and so the file, for itself,
    it starts afresh and writes over it: what was asked for has changed.
    """

    def __init__(self, path: str | os.PathLike | None, arguments: dict, seconds: float = 10.0):
        self.path, self.arguments, self.seconds = path, arguments, seconds
        self.written = time.monotonic()

    def read(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, dict[str, Tensor]]:
        """Put module and optimiser where the last run was; return its record (empty at a start) and its best
        weights."""
        if self.path is None or not os.path.exists(self.path):
            return {}, {}
        tensors, record = checkpoint.load(self.path)
        if "arguments" not in record:  # somebody's network, not to be written over
            raise InputError(self.path, "checkpoint", "not of a training", "the file of a training that was stopped")
        state = part(tensors, "module.")
        if record["arguments"] != self.arguments or shapes(state) != shapes(module.state_dict()):
            if self.arguments.get("settings") is None:
                allowed = f"a run of this module with {self.arguments}"
                raise InputError(self.path, "arguments", record["arguments"], allowed)
            return {}, {}
        module.load_state_dict(state)
        checkpoint.restore_optimizer(optimizer, tensors)
        return record, part(tensors, "best.")

    def write(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, record: dict, best: dict[str, Tensor], last: bool
    ) -> None:
        if self.path is None or not (last or time.monotonic() - self.written > self.seconds):
            return
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        tensors |= checkpoint.optimizer_tensors(optimizer) | {f"best.{name}": tensor for name, tensor in best.items()}
        checkpoint.save(self.path, tensors, {**record, "arguments": self.arguments})
        self.written = time.monotonic()


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


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


@dataclass(frozen=True)
class HeldOut:
    """What a training is watched on: images apart from training and test, and chips apart from both (`faults`).

    Every `every` steps the accuracy over these chips is taken; the best generator is kept, and after `patience` times
    without a better one the training stops.
    """

    x: Tensor
    y: Tensor
    faults: Sequence[Faults]
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


def held_out_accuracy(faulty: FaultyNetwork, protected: Tensor, y: Tensor, faults: Sequence[Faults]) -> float:
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
