"""The chips of a study as `neuralfuse.analysis.rare` takes them: what they may fail by, a score by sensitivities, and
whether they lose too much of the test set."""

from functools import cached_property, partial

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from neuralfuse.analysis.fisher import IMAGES, score, sensitivities
from neuralfuse.analysis.rare import Mode
from neuralfuse.chips.stored import StoredChip, layout_of, store
from neuralfuse.results.statistics import keeps
from neuralfuse.study.config import MEASURED
from neuralfuse.study.memory import memory_of
from neuralfuse.sweep.bench import Bench
from neuralfuse.training.loop import threads
from sram import protection, structure
from sram.errors import InputError
from sram.memory import Chip, Factors

GLANCE = 16  # images


class Chips:
    """Of one network, unprotected or behind a chain of SRAM protections, on the study's first accelerator with weights
    at this supply (in the curve's unit): a chip fails that loses more than `points` accuracy points. InputError for
    measured chips."""

    def __init__(self, bench: Bench, network: str, form: str, voltage: float, points: float, sram: str = "none"):
        study, machine = bench.study, bench.study.accelerators[0]
        if form == MEASURED:
            raise InputError("study", "sram.map", study.sram.map, "none: measured chips cannot be drawn")
        self.bench, self.name, self.voltage, self.points = bench, network, voltage, points
        self.model, self.placed = bench.network(network), bench.placement(network, machine)
        self.memory = memory_of(study.sram, self.placed.geometry, form)
        self.shield = protection.parse(sram, layout_of(self.placed))
        self.clean = int(bench.clean(network, None).sum())
        cells = np.arange(self.placed.geometry.cells)
        found = self.placed.hits(cells)
        self._cell, self._bit = cells[found.fault], found.bit
        self._word = self.model.numbering(self.placed.tensors).words(found.weight)
        self._banks = int(self._cell.max()) // self.placed.geometry.cells_per_bank + 1

    @cached_property
    def sensitivity(self) -> np.ndarray:
        """Of each word, over the first training images."""
        return sensitivities(self.model, self.bench.data.train_x[:IMAGES], self.bench.study.seed)

    @cached_property
    def modes(self) -> list[Mode]:
        """The die, and each bank and column with weights in it, where the structure has a share for them."""
        shares, cells = structure.structure(self.memory.structure), self.placed.geometry
        wrong = 1.0 if self.memory.mode == "flip" else 0.5  # of the bits in faulty cells
        harm = wrong * self._of_bits()[self._word, self._bit]
        bank, column = self._cell // cells.cells_per_bank, self._cell % cells.columns
        latent = -float(self.bench.study.curve.z(self.voltage))
        total, rate = float(harm.sum()), float(ndtr(-latent))

        def mode(kind: str, place: tuple[int, ...], own: float, share: float) -> Mode:
            return Mode(kind, place, partial(_expected, total - own, own, share, latent, rate))

        found = [mode("die", (), total, shares.die)] if shares.die else []
        if shares.bank:
            own = np.bincount(bank, harm)
            found += [mode("bank", (b,), float(own[b]), shares.bank) for b in np.flatnonzero(own).tolist()]
        if shares.column:
            own = np.bincount(bank * cells.columns + column, harm)
            places = np.flatnonzero(own).tolist()
            found += [mode("column", divmod(i, cells.columns), float(own[i]), shares.column) for i in places]
        if not found:
            allowed = "a structure with a share of die, bank or column: without one there is no factor to move"
            raise InputError("study", "sram.structures", self.memory.structure, allowed)
        return found

    def _of_bits(self) -> np.ndarray:
        """What each bit of each word does to the score when it reads wrong, float64[words, bits]."""
        self.model.restore()
        written, every = self.model.values.cpu().numpy().copy(), np.arange(len(self.model.words))
        found = np.empty((len(every), self.model.bits))
        for bit in range(self.model.bits):
            self.model.set_faults(every, np.full(len(every), bit, np.uint8), np.full(len(every), 2, np.uint8))
            change = self.model.values.cpu().numpy().astype(float) - written
            found[:, bit] = 0.5 * self.sensitivity * change**2
        self.model.restore()
        return found

    def factors(self, chip: int) -> Factors:
        """Of a chip as it is, all its banks; those without weights are never moved."""
        return Chip(chip, self.bench.study.seed).factors(self.memory)

    def stored(self, chip: int, moved: Factors | None = None) -> StoredChip:
        """A chip with the network in it."""
        silicon = Chip(chip, self.bench.study.seed)
        raw = silicon.fault_map(self.memory, self.voltage, banks=self._banks, moved=moved)
        return store(raw, self.placed, self.model, self.shield)

    def score(self, chip: int, moved: Factors | None = None) -> float:
        """By sensitivities, in nats."""
        return score(self.model, self.stored(chip, moved).faults(self.voltage), self.sensitivity)

    def glance(self, chip: int, moved: Factors | None = None) -> float:
        """Kullback-Leibler divergence of the chip's answers to the first `GLANCE` test images from those without a
        fault, mean over them, in nats."""
        written = self._written
        self.model.set_faults(*self.stored(chip, moved).faults(self.voltage))
        now = self._log_shares()
        return float((written.exp() * (written - now)).sum(dim=1).mean().clamp(min=0))

    @cached_property
    def _written(self) -> Tensor:
        self.model.restore()
        return self._log_shares()

    def _log_shares(self) -> Tensor:
        with threads(1):
            return torch.log_softmax(self.bench.logits(self.name, self.bench.images[:GLANCE]), dim=1)

    def lost(self, chip: int, moved: Factors | None = None) -> int:
        """Images of the test set, right without a fault less right with these."""
        self.model.set_faults(*self.stored(chip, moved).faults(self.voltage))
        with threads(1):
            return self.clean - int(self.bench.scores(self.name, self.bench.images).sum())

    def fails(self, chip: int, moved: Factors | None = None) -> bool:
        """Whether it loses more than the points."""
        images, clean = len(self.bench.labels), np.array(self.clean)
        return not keeps(clean - self.lost(chip, moved), clean, np.array(images), self.points)


def _expected(others: float, own: float, share: float, latent: float, rate: float, z: float) -> float:
    """Score of a chip of which one factor is z: cells fail whose latent, normal, lies above `latent`."""
    return others * rate + own * float(ndtr((share**0.5 * z - latent) / (1 - share) ** 0.5))
