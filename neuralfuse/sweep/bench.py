"""A test bench: what one worker keeps in memory, and the measurement of one task on it.

A worker gets the folder's path and tasks (names, chip numbers, voltages), never maps or tensors: it makes a chip's
fault map from its number, keeps the network and the images, and from one voltage to the next writes only the weights
that changed.
"""

import functools
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from neuralfuse.chips.cost import machine_of
from neuralfuse.chips.stored import StoredChip, layout_of, place_generator, store
from neuralfuse.data import Dataset
from neuralfuse.quantized import checkpoint, evaluate
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import IntegerNetwork
from neuralfuse.study.artifacts import (
    build_network,
    build_transform,
    generator_path,
    load_data,
    network_path,
    read_program,
    read_workload,
    test_set,
)
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from neuralfuse.study.cost import Cost, cost_of, counts_of
from neuralfuse.study.files import load_study
from neuralfuse.study.memory import memory_of, place_weights
from neuralfuse.sweep.task import Result, Task
from neuralfuse.training.calibrate import calibrate
from neuralfuse.transforms import generators
from neuralfuse.transforms.per_voltage import at, level
from simulator import placement
from sram import failure, protection
from sram.faultmap import FaultMap
from sram.memory import Chip, Memory
from sram.protection import Layout, Overhead


class Recent:
    """The last `size` values of a function of hashable arguments."""

    def __init__(self, function, size: int):
        self.function, self.size = function, size
        self.values: OrderedDict = OrderedDict()

    def __call__(self, *key):
        if key not in self.values:
            self.values[key] = self.function(*key)
            if len(self.values) > self.size:
                self.values.popitem(last=False)
        self.values.move_to_end(key)
        return self.values[key]


Fit = tuple[str, str, int, tuple[float, ...]]  # accelerator, structure, chip, voltages: what a transform belongs to
ANY_CHIP = "", "", -1


class Bench:
    """Everything of one study folder that its tasks need, loaded once and when first asked for."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.study: StudyConfig = load_study(self.folder / "study.yaml")
        self.images, self.labels = (part.to(self.study.device) for part in test_set(self.study.dataset))
        self.network = Recent(self._network, 1)
        self.answers = Recent(self._answers, 1)
        # those of many generators where images are small, seldom more than 256 MB
        self.inputs = Recent(self._inputs, max(3, 2**28 // max(self.images.nbytes, 1)))
        self.calibrated = Recent(self._calibrated, 2)
        self.placement = Recent(self._placement, 2)
        self.layout = Recent(self._layout, 2)
        self.map = Recent(self._map, 2)
        self.chip = Recent(self._chip, 1)
        self.clean = Recent(self._clean, 16)
        self.cost = Recent(self._cost, 16)

    @functools.cached_property
    def data(self) -> Dataset:
        """The whole dataset, for what is trained here."""
        return load_data(self.study.dataset)

    def _network(self, name: str) -> FaultyNetwork:
        config = next(n for n in self.study.networks if n.name == name)
        network = build_network(config, self.study)
        checkpoint.load_network(network, network_path(self.folder, name))
        return FaultyNetwork(network, config.bits, config.per_channel, self.study.device, fold=True)

    def _answers(self, name: str) -> Callable[[Tensor], Tensor]:
        """The network as it is measured: with its faults as they are set, activations in numbers or in words."""
        if next(n for n in self.study.networks if n.name == name).activations == "float":
            return self.network(name)
        return IntegerNetwork(self.network(name), read_program(self.folder, name))

    def _protection(self, name: str) -> ProtectionConfig:
        return next(p for p in self.study.protections if p.name == name)

    def _inputs(self, network: str, name: str, fit: Fit | None = None) -> Tensor:
        """The test images as the network sees them: as they are, or through the protection's generator."""
        transform = self._fitted(network, name, fit)
        return self.images if transform is None else evaluate.transform(transform, self.images, self.study.batch_size)

    def _fitted(self, network: str, name: str, fit: Fit | None) -> Callable[[Tensor], Tensor] | None:
        fuse = self._protection(name).neuralfuse
        if fuse is None or fit is None:
            return self.transform(network, name)
        if fuse.calibrate is not None:
            return self.calibrated(network, name, fit)
        if fuse.own_faults is not None:
            return self._read_by_chip(network, name, fit)
        return self.transform(network, name, fit[3][0])

    def transform(self, network: str, name: str, voltage: float | None = None) -> generators.NeuralFuse | None:
        """The protection's trained input transform, as `prepare` left it; None where it has none.

        With `voltage`, of one that is made `per_voltage` what is used there.
        """
        found = self._protection(name)
        if found.neuralfuse is None:
            return None
        transform = build_transform(found.neuralfuse, self.study)
        checkpoint.load_network(transform.generator, generator_path(self.folder, network, found))
        if voltage is not None:
            transform = at(transform, level(failure.curve(self.study.sram.curve), voltage))
        return transform.eval().to(self.study.device)

    def _read_by_chip(self, network: str, name: str, fit: Fit) -> FaultyNetwork:
        """The protection's transform with its words as one chip reads them at one voltage."""
        machine, structure, chip, (voltage,) = fit
        found, transform = self._protection(name), self.transform(network, name, voltage)
        assert transform is not None
        assert found.neuralfuse is not None
        assert found.neuralfuse.bits is not None
        bits, workload = found.neuralfuse.bits, read_workload(self.folder, network, name)
        placed, bank = place_generator(workload, machine_of(machine), self.placement(network, machine), bits)
        if bank:
            raw = self._made(memory_of(self.study.sram, placed.geometry, structure, bank), chip)
        else:
            raw = self.map(network, machine, structure, chip)
        faulty = FaultyNetwork(transform, bits, device=self.study.device)
        shield = protection.parse(found.sram or "none", layout_of(placed))
        faulty.set_faults(*store(raw, placed, faulty, shield).faults(voltage))
        return faulty

    def _fit(self, task: Task) -> Fit | None:
        """What the transform of this task belongs to; None where it is the same for all chips and voltages."""
        point, fuse = task.point, self._protection(task.point.protection).neuralfuse
        if fuse is not None and fuse.calibrate is not None:
            voltages = fuse.calibrate.voltages(task.voltage, self.study.voltages)
            return point.accelerator, point.structure, task.chip, voltages
        if fuse is not None and fuse.own_faults is not None:
            return point.accelerator, point.structure, task.chip, (task.voltage,)
        if fuse is not None and fuse.per_voltage is not None:
            return *ANY_CHIP, (task.voltage,)
        return None

    def _calibrated(self, network: str, name: str, fit: Fit) -> generators.NeuralFuse:
        """The protection's transform, fitted to one chip: the same from every worker."""
        machine, structure, chip, voltages = fit
        found, transform = self._protection(name), self.transform(network, name)
        assert transform is not None
        assert found.neuralfuse is not None
        assert found.neuralfuse.calibrate is not None
        stored = self.chip(network, machine, structure, chip, found.sram)
        faults = [stored.faults(voltage) for voltage in voltages]
        settings, bits = found.neuralfuse.calibrate, found.neuralfuse.bits
        calibrate(self.network(network), transform, self.data, faults, settings, bits, self.study.seed)
        return transform

    def _placement(self, network: str, machine: str) -> placement.Placement:
        config = next(n for n in self.study.networks if n.name == network)
        return place_weights(self.study.sram, read_workload(self.folder, network), machine_of(machine), config.bits)

    def _layout(self, network: str, machine: str) -> Layout:
        return layout_of(self.placement(network, machine), counts_of(self.folder, machine, network))

    def _map(self, network: str, machine: str, structure: str, chip: int) -> FaultMap:
        geometry = self.placement(network, machine).geometry
        return self._made(memory_of(self.study.sram, geometry, structure), chip)

    def _made(self, memory: Memory, chip: int) -> FaultMap:
        return Chip(chip, self.study.seed).fault_map(memory, self.study.voltage_floor)

    def _chip(self, network: str, machine: str, structure: str, chip: int, sram: tuple[str, ...]) -> StoredChip:
        placed = self.placement(network, machine)
        shield = protection.parse(sram or "none", self.layout(network, machine))
        return store(self.map(network, machine, structure, chip), placed, self.network(network), shield)

    def _clean(self, network: str, name: str | None, fit: Fit | None = None) -> int:
        """Right answers where no bit reads wrong, on images as they are (None) or through a protection's generator."""
        images = self.images if name is None else self.inputs(network, name, fit)
        self.network(network).restore()
        return self.correct(network, images)

    def correct(self, network: str, images: Tensor) -> int:
        """Right answers of a network with the faults that it has, on the test images as they are or transformed."""
        return evaluate.correct(self.answers(network), images, self.labels, self.study.batch_size)

    def _cost(self, network: str, machine: str, name: str, voltage: float, overhead: Overhead) -> Cost:
        return cost_of(self.folder, self.study, network, machine, self._protection(name), voltage, overhead)

    def measure(self, task: Task) -> Result:
        """Accuracy of one chip at one voltage, with its rates and the energy of an inference."""
        start = time.perf_counter()
        point = task.point
        model = self.network(point.network)
        protection = self._protection(point.protection)
        correct_clean = self.clean(point.network, None)
        fit = self._fit(task)
        images = self.inputs(point.network, point.protection, fit)
        chip = self.chip(point.network, point.accelerator, point.structure, task.chip, protection.sram)
        model.set_faults(*chip.faults(task.voltage))
        flip_rate = model.flip_rate()
        if flip_rate:
            correct = self.correct(point.network, images)
        else:  # the words are as written, and so are the answers: nothing to compute
            correct = self.clean(point.network, point.protection if protection.neuralfuse else None, fit)
        cost = self.cost(point.network, point.accelerator, point.protection, task.voltage, chip.overhead)
        return Result(
            task.key,
            point.network,
            point.dataset,
            point.accelerator,
            point.curve,
            point.structure,
            point.protection,
            task.voltage,
            task.chip,
            correct,
            len(self.labels),
            correct_clean,
            chip.raw.cell_fault_rate(task.voltage),
            flip_rate,
            cost.weight_sram_pj,
            cost.sram_pj,
            cost.system_pj,
            cost.saving_weight_sram,
            cost.saving_sram,
            cost.saving_system,
            cost.cycles,
            time.perf_counter() - start,
        )


@functools.lru_cache(maxsize=1)
def bench_of(folder: str, stamp: str) -> Bench:
    """One bench per process; `stamp` changes when the folder's study or artifacts do."""
    return Bench(folder)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order everywhere, so that every executor gives the same rows; parallelism is over chips."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_chunk(folder: str, tasks: list[Task]) -> list[Result]:
    """Measure tasks in a worker: the function that executors are given."""
    stamp = json.loads((Path(folder) / "provenance.json").read_text(encoding="utf-8"))["stamp"]
    with one_thread():
        bench = bench_of(folder, stamp)
        return [bench.measure(task) for task in tasks]
