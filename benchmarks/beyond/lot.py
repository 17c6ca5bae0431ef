"""What all methods share: a frozen network, its images, a memory, and a lot of chips that nothing was trained on."""

import copy
import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neuralfuse import data, networks
from neuralfuse.analysis import hardening
from neuralfuse.chips.cost import scopes
from neuralfuse.chips.sources import Source, placed, training_source
from neuralfuse.quantized.checkpoint import save_network
from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.quantized.faulty import Faults, FaultyNetwork
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import memory_of
from neuralfuse.sweep import executors
from neuralfuse.sweep.bench import Bench, Die
from neuralfuse.training.loop import batch_indices
from neuralfuse.training.network import train_network
from neuralfuse.transforms.generators import NeuralFuse, build
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.device.canary import Drift, canaries, judge
from simulator.operating_point import weights_at
from simulator.readers.read import trace
from sram import failure, faultmap
from sram.faultmap import FaultMap
from sram.protection import Overhead

MACHINE = "paper"
SHARES = {"higher": 0.25, "between": 0.5, "main": 1.0, "drifted": 1.1}  # of the main cell fault rate, at four supplies
NOISE = 0.1  # of single cells, as a share of the spread between them
# A drift of all cells by the same voltage looks like a lower supply: `drifted`. `aged` is that drift with a scatter
# from cell to cell, and `intermittent` the scatter alone, at one access.
UNEVEN = {"aged": "drifted", "intermittent": "main"}
CONDITIONS = (*SHARES, *UNEVEN)
CANARIES, SPAN = 64, 0.02  # so many cells, critical within so much of the supply
BY_LAYER, LEAST_SAVING = "by layer", 0.286  # what `neuralfuse sensitivity --cost-limit 28.6` chooses
OTHERS = {  # generic generators that are measured as they are
    "ConvL": {"generator": "ConvL"},
    "ConvL/2": {"generator": "ConvL", "options": {"width": 16}},  # half of the paper's width
    "ConvS": {"generator": "ConvS"},
    "UNetS": {"generator": "UNetS"},
}


def digits_base(path: Path) -> Path:
    """A resnet8 on the embedded digits, trained once."""
    if not path.is_file():
        digits = data.load("digits")
        network = networks.build("resnet8", in_channels=1)
        accuracy = train_network(network, digits, epochs=10, shift=2, flip=False)
        save_network(path, network, {"accuracy": accuracy})
    return path


@dataclass(frozen=True)
class Plan:
    """What is measured. `network` is a study's entry with a checkpoint; `rate` the cell fault rate."""

    dataset: dict
    network: dict
    structure: str  # iid, column, or paper: the mapping and the independent cells of the paper's code
    rate: float
    curve: str
    schedule: str
    generic: dict | None  # NeuralFuseConfig of the generator for all chips
    others: dict[str, str] = field(default_factory=dict)  # names of OTHERS and their checkpoints

    def study(self) -> StudyConfig:
        curve = failure.curve(self.curve)
        paper = self.structure == "paper"
        voltages = {name: round(float(curve.voltage(share * self.rate)), 6) for name, share in SHARES.items()}
        generators = {"generic": self.generic} if self.generic else {}
        generators |= {f"generic {name}": OTHERS[name] | {"checkpoint": path} for name, path in self.others.items()}
        at = {"train_voltages": [voltages["main"]]}
        content = {
            "name": "beyond",
            "dataset": self.dataset,
            "networks": [self.network],
            "accelerators": [MACHINE],
            "sram": {
                "curve": self.curve,
                "structures": ["iid" if paper else self.structure],
                "schedule": "paper" if paper else self.schedule,
            },
            "voltages": list(voltages.values()),
            "protections": ["none", *({"name": name, "neuralfuse": fuse | at} for name, fuse in generators.items())],
        }
        return parse_study(content, "beyond")


class Lot:
    """Chips of one structure around one cell fault rate, behind a prepared study's folder."""

    def __init__(self, folder: Path):
        self.bench = Bench(StudyFolder.open(folder))
        self.study = self.bench.study
        self.name = self.study.networks[0].name
        self.faulty = self.bench.network(self.name)
        self.data = self.bench.data
        self.structure = self.study.sram.structures[0]
        self.voltages = dict(zip(SHARES, self.study.voltages, strict=True))
        self.voltages |= {name: self.voltages[at] for name, at in UNEVEN.items()}
        self.counts = self.bench.folder.counts(MACHINE, self.name)
        self.nominal = failure.curve(self.study.sram.curve).nominal
        self.clean = self.bench.clean(self.name, None) / len(self.bench.labels)

    def holding(self, faulty: FaultyNetwork) -> "Lot":
        """The same chips with another network of the same shape in them."""
        other = copy.copy(self)
        other.faulty = faulty
        nothing = np.empty(0, np.uint8)
        other.clean = other.accuracy(other.seen(None), (np.empty(0, np.int64), nothing, nothing))
        return other

    def faults(self, chip: int, condition: str = "main", sram: str = "none") -> tuple[Faults, Overhead]:
        """What reads wrong on a chip, and what its SRAM protection adds."""
        if condition in UNEVEN:
            return self._placed(self._cells(chip, condition)), Overhead()
        if sram == BY_LAYER:
            sram = self.hardened_layers
        stored = self.bench.chip(self.name, Die(MACHINE, self.structure, chip), () if sram == "none" else (sram,))
        return stored.faults(self.voltages[condition]), stored.overhead

    @functools.cached_property
    def hardening(self) -> pd.DataFrame:
        """Of each layer the top bits at nominal voltage that leave LEAST_SAVING at the main supply; chosen for the lot,
        on training chips."""
        asked = self.bench.folder, self.voltages["main"], LEAST_SAVING
        return hardening.measure(*asked, executors.choose(1), lambda *_: None)

    @property
    def hardened_layers(self) -> str:
        """That choice, as a study names it."""
        return hardening.protection(dict(zip(self.hardening.layer, self.hardening.hardened_bits, strict=True)))

    def canaries(self, chip: int, condition: str) -> Drift:
        """What a chip's canaries around the main supply tell of it, now that it is in this condition."""
        before = self._map(chip, self.voltages["main"] - SPAN)
        chosen = canaries(before, self.voltages["main"], CANARIES, SPAN)
        fails = np.isin(before.cell[chosen], self._cells(chip, condition).cell)
        return judge(before, self.voltages["main"], chosen, fails)

    def expected(self, chip: int, condition: str) -> Faults:
        """The faults of a chip in this condition, as far as its first map and its canaries tell."""
        supply = self.voltages["main"] - self.canaries(chip, condition).shift
        return self._placed(self._map(chip, supply).at(supply))

    def training_chips(self) -> Source:
        """Chips of the lot that nothing is measured on, at the main supply."""
        placement, supply = self.bench.placement(self.name, MACHINE), self.voltages["main"]
        return training_source(
            [memory_of(self.study.sram, placement.geometry, self.structure)],
            placement,
            self.faulty,
            [supply],
            self.study.seed,
        )

    def _map(self, chip: int, floor: float, noise: float = 0.0) -> FaultMap:
        s, geometry = self.study.sram, self.bench.placement(self.name, MACHINE).geometry
        return faultmap.generate(
            chip, geometry, s.curve, self.structure, voltage_floor=floor, seed=self.study.seed, mode=s.mode,
            stuck_at_one=s.stuck_at_one, noise=noise,
        )  # fmt: skip

    def _cells(self, chip: int, condition: str) -> faultmap.Faults:
        voltage = self.voltages[condition]
        if condition in UNEVEN:  # the same chip, with a scatter that is drawn once
            return self._map(chip, voltage, NOISE).at(voltage, epoch=1)
        return self._map(chip, voltage).at(voltage)

    def _placed(self, cells: faultmap.Faults) -> Faults:
        placement = self.bench.placement(self.name, MACHINE)
        return placed(placement, self.faulty.numbering(placement.tensors), cells)

    def transform(self, name: str, width: int | None, seed: int) -> NeuralFuse:
        """A transform to start from: `generic` or `generic NAME`, as trained for all chips, or an untrained one."""
        if name.startswith("generic"):
            made = self.bench.transform(self.name, name)
            assert made is not None
            return made
        channels, *size = self.data.input_shape
        return NeuralFuse(build(name, channels, width, seed, (size[0], size[1])))

    def seen(self, made: nn.Module | None) -> Tensor:
        """The test images as the network sees them."""
        return self.bench.images if made is None else transform(made.eval(), self.bench.images)

    def accuracy(self, seen: Tensor, faults: Faults) -> float:
        labels = self.bench.labels
        self.faulty.set_faults(*faults)
        right = correct(self.faulty, seen, labels)
        self.faulty.restore()
        return right / len(labels)

    def savings(self, made: nn.Module | None, condition: str, overhead: Overhead) -> tuple[float, float]:
        """Shares of the unprotected network's energy at nominal supply: weight SRAM, whole system."""
        at = weights_at(self.counts.accelerator, self.voltages[condition], self.nominal)
        total, base = scopes(self.counts, at, overhead), scopes(self.counts)
        if made is not None:
            total = total + scopes(simulate(trace(made.cpu(), self.data.input_shape), accelerator(MACHINE)))
            made.to(self.faulty.device)
        return 1 - total.weight_sram / base.weight_sram, 1 - total.system / base.system

    @functools.cached_property
    def unfolded(self) -> FaultyNetwork:
        """The network with its BatchNorm, which the bench folds into the weights."""
        config = self.study.networks[0]
        network = self.bench.folder.network(self.name)
        return FaultyNetwork(network, config.bits, config.per_channel, self.study.device)

    def with_own_statistics(self, faults: Faults, batches: int = 8, batch: int = 128) -> float:
        """Accuracy with BatchNorm's statistics taken anew on the faulty chip, from training images."""
        layers = [m for m in self.unfolded.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [{name: tensor.clone() for name, tensor in m.state_dict().items()} for m in layers]
        momentum = [m.momentum for m in layers]
        self.unfolded.set_faults(*faults)
        for m in layers:
            m.reset_running_stats()
            m.momentum = None  # the mean over batches
            m.train()
        with torch.no_grad():
            for step in range(batches):  # not the first images: a folder may be sorted by class
                x = self.data.train_x[batch_indices(len(self.data.train_y), batch, 0, step)]
                self.unfolded(x.to(self.unfolded.device))
        for m in layers:
            m.eval()
        accuracy = correct(self.unfolded, self.bench.images, self.bench.labels) / len(self.bench.labels)
        for m, state, before in zip(layers, kept, momentum, strict=True):
            m.load_state_dict(state)
            m.momentum = before
        return accuracy


def known(faults: Faults, share: float, seed: int) -> Faults:
    """A random `share` of the faulty bits."""
    if share >= 1:
        return faults
    found = np.random.default_rng(seed).random(len(faults[0])) < share
    return faults[0][found], faults[1][found], faults[2][found]
