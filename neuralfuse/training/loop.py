"""The one training loop: of networks, of generators for all chips, of transforms of one.

A training is a function of its arguments alone, the number of threads among them (`threads`): batch order,
augmentation, fault maps and what modules draw themselves (dropout) depend on (seed, step), never on what ran before. A
run that is killed goes on from its last checkpoint and ends with the same numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from neuralfuse.data import Dataset, augment
from neuralfuse.training.checkpoints import Checkpoints, Progress
from neuralfuse.training.settings import GeneratorSettings

Figures = dict[str, float]


class Watch:
    """Looks at a training every `every` steps and after the last: keeps the weights with which `measure` (of the module
    in eval mode, higher is better) was best, and ends the training after `patience` looks that found nothing better."""

    def __init__(self, measure: Callable[[], float], every: int, patience: int):
        self.measure, self.every, self.patience = measure, every, patience
        self.best: float | None = None
        self.best_step = self.stale = 0
        self.weights: dict[str, Tensor] = {}

    def look(self, module: nn.Module, step: int, last: bool) -> None:
        """Measure after a step, if it is one to measure at, and keep the weights where they are the best yet."""
        if step % self.every and not last:
            return
        module.eval()
        found, self.stale = self.measure(), self.stale + 1
        if self.best is None or found > self.best:
            self.best, self.best_step, self.stale = found, step, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @property
    def over(self) -> bool:
        """Whether `patience` measurements in a row were no better."""
        return self.stale >= self.patience

    def record(self) -> dict:
        """Its state, for a checkpoint; the best weights apart."""
        return {"best": self.best, "best_step": self.best_step, "stale": self.stale}

    def restore(self, record: dict, weights: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_step, self.stale = record["best"], record["best_step"], record["stale"]
        self.weights = weights


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    share: Callable[[int], float],
    steps: int,
    step: Callable[[int], Figures],
    checkpoints: Checkpoints | None = None,
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> tuple[int, Figures]:
    """Run `step(number)`, which leaves its gradients in the parameters and returns its figures, up to number `steps`
    less one, each followed by a step of the optimiser; return the number of steps and the last figures.

    Begins where the checkpoint of a run that was killed ends. `share(number)` is of the rate with which each group of
    the optimiser was made.
    """
    checkpoints = checkpoints or Checkpoints(None, {})
    peaks = [group["lr"] for group in optimizer.param_groups]
    record, best = checkpoints.read(module, optimizer)
    done, figures = record.get("step", 0), record.get("figures", {})
    if watch and record:
        watch.restore(record["watch"], best)
    with deterministic():
        while done < steps and not (watch and watch.over):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share(done)
            optimizer.zero_grad()
            figures = step(done)
            optimizer.step()
            done += 1
            seen = {"step": done, "figures": figures}
            if watch:
                watch.look(module, done, last=done == steps)
                seen["watch"] = watch.record()
            checkpoints.write(module, optimizer, seen, watch.weights if watch else {}, last=done == steps)
            if progress:
                held_out = {"held_out_accuracy": watch.best} if watch and watch.best is not None else {}
                progress(done, steps, figures | held_out)
    return done, figures


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside the block torch and numpy compute with so many threads, whatever the machine has: the order of sums, and
    so their last bits, depend on it; and workers that each took all cores for their products would stand in each
    other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


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


def batch_of(data: Dataset, settings: GeneratorSettings, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Training images of one step, augmented, or items of another kind as they are, and their labels."""
    index = batch_indices(len(data.train_y), settings.batch, seed, step)
    x = data.train_x[index]
    if data.are_images:
        x = augment(x, random(seed, step), settings.shift, settings.flip)
    return x, data.train_y[index]


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Convolutions and matrix products in `precision`. No cache, which would keep the rounded weights of the first step
    and those of the first chip of `read_words`."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32", cache_enabled=False)
