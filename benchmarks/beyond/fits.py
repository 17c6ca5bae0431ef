"""How a transform comes to a chip: what it starts from, what is known of the chip, what is kept for other methods."""

import copy
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from benchmarks.beyond.lot import Lot, known
from neuralfuse.training.calibrate import Calibrated, calibrate
from neuralfuse.training.settings import CalibrationSettings
from neuralfuse.transforms.generators import NeuralFuse


@dataclass(frozen=True)
class Fit:
    """One fit. `start`: a generator's name (`Lot.transform`), a prior of the lot, or the fit that this one goes on
    from.

    `made_at` names the conditions whose faults are fitted to in turn; `changes` are of `CalibrationSettings`, `share`
    of the usual steps. `knows` is the share of the faulty bits that the fit is told of; with `canaries` they are those
    that the chip's first map and its canaries make likely; `another` fits to the next chip instead; `sram`: to what
    this protection of the memory leaves.
    """

    start: "str | Prior | Fit"
    made_at: tuple[str, ...] = ("main",)
    changes: dict = field(default_factory=dict)
    share: float = 1.0
    knows: float = 1.0
    canaries: bool = False
    another: bool = False
    sram: str = "none"


@dataclass(frozen=True)
class Prior:
    """A transform for the lot, from training chips, `steps` on each: `turns` takes the chips in turn, step by step, and
    so suits them all a little (a generic transform); `reptile` is where few steps lead to each chip (Nichol et al.,
    arXiv 1803.02999): fitted to one chip after the other, each time moved only a part of the way."""

    start: str
    kind: str
    chips: int = 20
    steps: int = 20


@dataclass(frozen=True)
class Made:
    """A fitted transform, and what its last fit took."""

    transform: NeuralFuse
    took: Calibrated
    seconds: float


class Fitter:
    """Fits transforms for chips of a lot. `scratch`: name and width of the generator that is fitted from nothing;
    `pixel_rate`: learning rate of numbers of pixels.

    Methods differ by where they are measured as well: the fits of one chip and seed are kept until the next.
    """

    def __init__(
        self,
        lot: Lot,
        settings: CalibrationSettings,
        scratch: tuple[str, int | None] = ("ConvS", None),
        pixel_rate: float | None = None,
    ):
        self.lot, self.settings, self.scratch, self.pixel_rate = lot, settings, scratch, pixel_rate
        self._of: tuple[int, int] | None = None
        self._made: dict[str, Made] = {}
        self._priors: dict[tuple[Prior, int], NeuralFuse] = {}
        self._for_all: dict[tuple[str | Prior, int], tuple[NeuralFuse, Tensor]] = {}

    def __call__(self, fit: Fit, chip: int, seed: int) -> Made:
        if self._of != (chip, seed):
            self._of, self._made = (chip, seed), {}
        if repr(fit) not in self._made:
            self._made[repr(fit)] = self._fit(fit, chip, seed)
        return self._made[repr(fit)]

    def for_all(self, start: "str | Prior", seed: int) -> tuple[NeuralFuse, Tensor]:
        """A transform that is the same for all chips, and the test images behind it."""
        if (start, seed) not in self._for_all:
            made = copy.deepcopy(self.prior(start, seed)) if isinstance(start, Prior) else self.start(start, seed)
            self._for_all[start, seed] = made, self.lot.seen(made)
        return self._for_all[start, seed]

    def start(self, start: str, seed: int) -> NeuralFuse:
        name, width = self.scratch if start == "scratch" else (start, None)
        return self.lot.transform(name, width, seed)

    def _fit(self, fit: Fit, chip: int, seed: int) -> Made:
        lot = self.lot
        if isinstance(fit.start, Fit):
            transform = copy.deepcopy(self(fit.start, chip, seed).transform)
        elif isinstance(fit.start, Prior):
            transform = copy.deepcopy(self.prior(fit.start, seed))
        else:
            transform = self.start(fit.start, seed)
        begin = time.perf_counter()
        of = chip + 1 if fit.another else chip
        seen = [lot.expected(of, at) if fit.canaries else lot.faults(of, at, fit.sram)[0] for at in fit.made_at]
        settings = self._settings(fit.start, fit.changes, max(1, round(fit.share * self.settings.steps)))
        took = calibrate(lot.faulty, transform, lot.data, [known(faults, fit.knows, seed) for faults in seen], settings,
                         seed=seed)  # fmt: skip
        return Made(transform, took, time.perf_counter() - begin)

    def _settings(self, start: "str | Prior | Fit", changes: dict, steps: int) -> CalibrationSettings:
        while not isinstance(start, str):
            start = start.start
        pixels = {"learning_rate": self.pixel_rate} if start in ("affine", "universal") else {}
        return replace(self.settings, **{"steps": steps} | pixels | changes)

    def prior(self, prior: Prior, seed: int) -> NeuralFuse:
        """Fitted once for each seed."""
        if (prior, seed) not in self._priors:
            transform, draw = self.start(prior.start, seed), self.lot.training_chips()
            chips = [draw(i) for i in range(prior.chips)]
            fit = in_turn if prior.kind == "turns" else reptile
            fit(self.lot, transform, chips, self._settings(prior.start, {}, prior.steps), seed)
            self._priors[prior, seed] = transform
        return self._priors[prior, seed]


def in_turn(lot: Lot, transform: NeuralFuse, chips: list, settings: CalibrationSettings, seed: int) -> None:
    """`settings.steps` on each of the chips, one step on each in turn; in place."""
    calibrate(lot.faulty, transform, lot.data, chips, replace(settings, steps=settings.steps * len(chips)), seed=seed)


def reptile(lot: Lot, transform: NeuralFuse, chips: list, settings: CalibrationSettings, seed: int) -> None:
    """`settings.steps` on one chip after the other; after each the transform goes a part of the way, first the whole,
    last next to nothing. In place."""
    for i, faults in enumerate(chips):
        one = copy.deepcopy(transform)
        calibrate(lot.faulty, one, lot.data, [faults], settings, seed=seed * len(chips) + i)
        part = 1 - i / len(chips)
        with torch.no_grad():
            for mine, theirs in zip(_floats(transform), _floats(one), strict=True):
                mine.lerp_(theirs, part)
    transform.eval()


def _floats(module: nn.Module) -> list[torch.Tensor]:
    return [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
