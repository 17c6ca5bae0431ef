"""What all methods share: a frozen network, its images, a memory, and a lot of chips that nothing was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neuralfuse import data, networks, training
from neuralfuse.checkpoint import save_network
from neuralfuse.config import StudyConfig, parse_study
from neuralfuse.cost import machine_of, scopes
from neuralfuse.evaluate import correct, transform
from neuralfuse.generators import NeuralFuse, build
from neuralfuse.sources import Faults, placed
from neuralfuse.sweep.artifacts import read_workload
from neuralfuse.sweep.bench import Bench
from simulator.cycles import simulate
from simulator.workload import trace
from sram import failure, faultmap
from sram.protection import Overhead

MACHINE = "paper"
HIGHER, DRIFTED = 0.25, 1.1  # cell fault rates of the other two supplies, as shares of the main one
NOISE = 0.1  # of intermittent cells, as a share of the spread between cells
CONDITIONS = ("main", "higher", "drifted", "intermittent")


def digits_base(path: Path) -> Path:
    """A resnet8 on the embedded digits, trained once."""
    if not path.is_file():
        digits = data.load("digits")
        network = networks.build("resnet8", in_channels=1)
        accuracy = training.train_network(network, digits, epochs=10, shift=2, flip=False)
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
    generic: dict  # NeuralFuseConfig of the generator for all chips

    def study(self) -> StudyConfig:
        curve = failure.curve(self.curve)
        paper = self.structure == "paper"
        rates = (HIGHER * self.rate, self.rate, DRIFTED * self.rate)
        higher, main, drifted = (round(float(curve.voltage(rate)), 6) for rate in rates)
        fuse = self.generic | {"train_voltages": [main]}
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
            "voltages": [higher, main, drifted],
            "protections": ["none", {"name": "generic", "neuralfuse": fuse}],
        }
        return parse_study(content, "beyond")


class Lot:
    """Chips of one structure around one cell fault rate, behind a prepared study's folder."""

    def __init__(self, folder: Path):
        self.bench = Bench(folder)
        self.study = self.bench.study
        self.name = self.study.networks[0].name
        self.faulty = self.bench.network(self.name)
        self.data = self.bench.data
        self.structure = self.study.sram.structures[0]
        self.voltages = dict(zip(("higher", "main", "drifted"), self.study.voltages, strict=True))
        self.voltages["intermittent"] = self.voltages["main"]
        self.counts = simulate(read_workload(folder, self.name), machine_of(MACHINE))
        self.nominal = failure.curve(self.study.sram.curve).nominal
        self.clean = self.bench.clean(self.name, None) / len(self.bench.labels)

    def faults(self, chip: int, condition: str = "main", sram: str = "none") -> tuple[Faults, Overhead]:
        """What reads wrong on a chip, and what its SRAM protection adds."""
        if condition == "intermittent":
            return self._intermittent(chip), Overhead()
        stored = self.bench.chip(self.name, MACHINE, self.structure, chip, () if sram == "none" else (sram,))
        return stored.faults(self.voltages[condition]), stored.overhead

    def _intermittent(self, chip: int) -> Faults:
        """The cells that fail in one access, of the same chip with noise from access to access."""
        placement, s = self.bench.placement(self.name, MACHINE), self.study.sram
        noisy = faultmap.generate(
            chip, placement.geometry, s.curve, self.structure, voltage_floor=min(self.study.voltages),
            seed=self.study.seed, mode=s.mode, stuck_at_one=s.stuck_at_one, noise=NOISE,
        )  # fmt: skip
        return placed(placement, self.faulty.numbering(placement.tensors), noisy.at(self.voltages["main"], epoch=1))

    def transform(self, name: str, width: int | None, seed: int) -> NeuralFuse:
        """A transform to start from: `generic`, as trained for all chips, or an untrained one."""
        if name == "generic":
            made = self.bench.transform(self.name, "generic")
            assert made is not None
            return made
        channels, *size = self.data.input_shape
        return NeuralFuse(build(name, channels, width, seed, (size[0], size[1])))

    def accuracy(self, made: nn.Module | None, faults: Faults) -> float:
        images, labels = self.bench.images, self.bench.labels
        seen = images if made is None else transform(made.eval(), images)
        self.faulty.set_faults(*faults)
        right = correct(self.faulty, seen, labels)
        self.faulty.restore()
        return right / len(labels)

    def savings(self, made: nn.Module | None, condition: str, overhead: Overhead) -> tuple[float, float]:
        """Shares of the unprotected network's energy at nominal supply: weight SRAM, whole system."""
        total, base = scopes(self.counts, self.voltages[condition], self.nominal, overhead), scopes(self.counts)
        if made is not None:
            total = total + scopes(simulate(trace(made.cpu(), self.data.input_shape), machine_of(MACHINE)))
            made.to(self.faulty.device)
        return 1 - total.weight_sram / base.weight_sram, 1 - total.system / base.system

    def with_own_statistics(self, faults: Faults, batches: int = 8, batch: int = 128) -> float:
        """Accuracy with BatchNorm's statistics taken anew on the faulty chip, from training images."""
        layers = [m for m in self.faulty.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [{name: tensor.clone() for name, tensor in m.state_dict().items()} for m in layers]
        momentum = [m.momentum for m in layers]
        self.faulty.set_faults(*faults)
        for m in layers:
            m.reset_running_stats()
            m.momentum = None  # the mean over batches
            m.train()
        with torch.no_grad():
            for step in range(batches):  # not the first images: a folder may be sorted by class
                x = self.data.train_x[training.batch_indices(len(self.data.train_y), batch, 0, step)]
                self.faulty(x.to(self.faulty.device))
        for m in layers:
            m.eval()
        accuracy = self.accuracy(None, faults)
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
