"""A test bench: what one worker keeps in memory, and the measurement of one task on it.

A worker gets the folder's path and tasks (names, chip numbers, operating points), never maps or tensors: it makes a
chip's fault map from its number, keeps the network and the images, and from one supply to the next writes only the
weights that changed.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from neuralfuse.chips.cost import Overheads
from neuralfuse.chips.stored import StoredChip, known, layout_of, place_generator, store
from neuralfuse.data import Dataset
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.quantized.integer import DieFaults, Faults, Frozen, IntegerNetwork
from neuralfuse.quantized.metric import Metric, counted, metric
from neuralfuse.results.rows import Result
from neuralfuse.study import kept
from neuralfuse.study.config import BatchNormConfig
from neuralfuse.study.cost import Cost
from neuralfuse.study.data import load_data, test_set
from neuralfuse.study.folder import StudyFolder, stamp_of
from neuralfuse.study.grid import Point
from neuralfuse.study.lowered import ACCESS, Die, Lowered, found_wrong, last
from neuralfuse.study.memory import chip_map, sees_activations
from neuralfuse.study.supplies import (
    MemorySupplies,
    at_weights,
    beside,
    memory_supplies,
    operating_points,
    roles_of,
    supply_of,
)
from neuralfuse.sweep.sampling import order_of
from neuralfuse.sweep.second import Known, SecondNetworks
from neuralfuse.sweep.task import Task
from neuralfuse.training.batchnorm import own_statistics
from neuralfuse.training.calibrate import calibrate
from neuralfuse.training.loop import threads
from neuralfuse.transforms.generators import NeuralFuse
from neuralfuse.transforms.per_voltage import at, level
from simulator.accelerator import accelerator
from simulator.device.activations import NOTHING_FAULTY
from simulator.operating_point import OperatingPoint
from sram import protection
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.protection import Layout, Overhead


@dataclass(frozen=True)
class Fit:
    """What a transform belongs to: the voltages that it is for, and the one die, None where it is for all; and the
    supplies of all memories at each voltage, where it is fitted with the faults of them all."""

    voltages: tuple[float, ...]
    die: Die | None = None
    supplies: tuple[MemorySupplies, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A part of a chip's own order of the test images."""

    chip: int
    part: tuple[int, int]


class Bench:
    """Everything of one study folder that its tasks need, loaded once and when first asked for."""

    def __init__(self, folder: StudyFolder):
        self.folder, self.study = folder, folder.study
        self.images, self.labels = (part.to(self.study.device) for part in test_set(self.study.dataset))
        self.counted = counted(self.labels)
        self.metric = last(3, self._metric)
        self.caches: WeakKeyDictionary[FaultyNetwork, FaultyCache] = WeakKeyDictionary()
        self.network = last(1, self._network)
        self.kept_map = last(2, self._kept_map)
        self.unfolded = last(1, self._unfolded)
        self.answers = last(1, self._answers)
        # those of many generators where images are small, seldom more than 256 MB
        self.inputs = last(max(3, 2**28 // max(self.images.nbytes, 1)), self._inputs)
        self.calibrated = last(
            max(len(operating_points(self.study, m)) for m in self.study.accelerators) + 1, self._calibrated
        )
        self.placement = last(2, folder.placement)
        self.layout = last(2, self._layout)
        self.map = last(2, self._map)
        self.chip = last(1, self._chip)
        self.lowered = Lowered(folder)
        self.order = last(1, self._order)
        self.clean = last(16, self._clean)
        self.cost = last(16, self._cost)
        self.second = SecondNetworks(
            Known(folder, self.metric, self.images, self.labels, self.nominal, self.low_voltage)
        )

    @functools.cached_property
    def data(self) -> Dataset:
        """The whole dataset, for what is trained here."""
        return load_data(self.study.dataset)

    def _network(self, name: str) -> FaultyNetwork:
        config = self.study.network(name)
        faulty = FaultyNetwork(self.folder.network(name), config.words, device=self.study.device, fold=True)
        if "cache" in roles_of(self.study):
            sample = self.data.train_x[: kept.SAMPLE].to(self.study.device)
            self.caches[faulty] = kept.cache_of(self.study, faulty.network, sample)
        return faulty

    def _metric(self, network: str) -> Metric:
        """The study's metric, of what one network answers: it may compare with its answers without a fault."""
        found = metric(self.study.metric)
        if found.reference is None:
            return found
        return found.against(evaluate.logits(self.nominal(network), self.images, self.study.batch_size), self.labels)

    def _unfolded(self, name: str) -> FaultyNetwork:
        """With its BatchNorm, which is elsewhere folded into the weights' scales."""
        config = self.study.network(name)
        return FaultyNetwork(self.folder.network(name), config.words, device=self.study.device)

    def _answers(self, name: str) -> Callable[[Tensor], Tensor]:
        """The network as it is measured: with its faults as they are set, activations in numbers or in words."""
        return self._with_activations(name, self.network(name))

    def nominal(self, name: str) -> Callable[[Tensor], Tensor]:
        """A network without a fault, apart from the one that is measured."""
        return self._with_activations(name, self._network(name))

    def _with_activations(self, name: str, network: FaultyNetwork) -> Callable[[Tensor], Tensor]:
        if self.study.network(name).activations == "float":
            return network
        return IntegerNetwork(network, self.folder.program(name))

    def _inputs(self, network: str, name: str, fit: Fit | None = None, sample: Sample | None = None) -> Tensor:
        """Test images, all or a chip's sample, as the network sees them: as they are, or through the protection's
        generator."""
        transform = self._fitted(network, name, fit)
        images = self.images if sample is None else self.images[self.chosen(sample)]
        return images if transform is None else evaluate.transform(transform, images, self.study.batch_size)

    def chosen(self, sample: Sample | None) -> Tensor | slice:
        """Which of the test images a sample has; all without one."""
        if sample is None:
            return slice(None)
        return torch.from_numpy(self.order(sample.chip)[slice(*sample.part)]).to(self.study.device)

    def _order(self, chip: int) -> np.ndarray:
        return order_of(self.study.seed, chip, len(self.labels))

    def _fitted(self, network: str, name: str, fit: Fit | None) -> Callable[[Tensor], Tensor] | None:
        fuse = self.study.protection(name).neuralfuse
        if fuse is None or fit is None:
            return self.transform(network, name)
        if fit.die is None:
            return self.transform(network, name, fit.voltages[0])
        if fuse.calibrate is not None:
            return self.calibrated(network, name, fit.die, fit.voltages, fit.supplies)
        return self._read_by_chip(network, name, fit.die, fit.voltages[0])

    def transform(self, network: str, name: str, voltage: float | None = None) -> NeuralFuse | None:
        """The protection's trained input transform, as `prepare` left it; None where it has none.

        With `voltage`, of one that is made `per_voltage` what is used there.
        """
        transform = self.folder.transform(network, name)
        if transform is not None and voltage is not None:
            transform = at(transform, level(self.study.curve, voltage)).eval()
        return None if transform is None else transform.to(self.study.device)

    def _read_by_chip(self, network: str, name: str, die: Die, voltage: float) -> FaultyNetwork:
        """The protection's transform with its words as one chip reads them at one voltage."""
        found, transform = self.study.protection(name), self.transform(network, name, voltage)
        assert transform is not None
        assert found.neuralfuse is not None
        assert found.neuralfuse.bits is not None
        bits, workload = found.neuralfuse.bits, self.folder.workload(network, name)
        machine = accelerator(die.accelerator)
        placed, bank = place_generator(workload, machine, self.placement(network, die.accelerator), bits)
        if bank:
            raw = self._made(placed.geometry, die, bank)
        else:
            raw = self.map(network, die)
        faulty = FaultyNetwork(transform, bits, device=self.study.device)
        shield = protection.parse(found.sram or "none", layout_of(placed))
        faulty.set_faults(*store(raw, placed, faulty, shield).faults(voltage, ACCESS))
        return faulty

    def _fit(self, task: Task) -> Fit | None:
        """What the transform of this task belongs to; None where it is the same for all chips and voltages."""
        fuse = self.study.protection(task.point.protection).neuralfuse
        if fuse is None:
            return None
        voltage = supply_of(self.study, task.point.accelerator, task.at, "weights")
        if fuse.calibrate is not None:
            voltages = fuse.calibrate.voltages(voltage, self.study.voltages)
            supplies: tuple[MemorySupplies, ...] = ()
            if sees_activations(self.study, fuse):
                found = memory_supplies(self.study, task.point.accelerator, task.at)
                supplies = tuple(at_weights(self.study, found, each) for each in voltages)
            return Fit(voltages, die_of(task), supplies)
        if fuse.own_faults is not None:
            return Fit((voltage,), self.now(die_of(task)))
        return Fit((voltage,)) if fuse.per_voltage is not None else None

    def _calibrated(
        self, network: str, name: str, die: Die, voltages: tuple[float, ...], supplies: tuple[MemorySupplies, ...] = ()
    ) -> NeuralFuse:
        """The protection's transform, fitted to one chip as it was characterised: the same from every worker."""
        found, transform = self.study.protection(name), self.transform(network, name)
        assert transform is not None
        assert found.neuralfuse is not None
        assert found.neuralfuse.calibrate is not None
        stored, how, seed = self.chip(network, die, found.sram), found.neuralfuse.calibrate, self.study.seed
        bits = [known(stored.faults(voltage), how.knows, seed) for voltage in voltages]
        frozen: Frozen = self.network(network)
        faults: list[Faults] = [*bits]
        if supplies:
            frozen = IntegerNetwork(self.network(network), self.folder.program(network))
            others = (self.lowered.faults(network, die, name, at) for at in supplies)
            faults = [DieFaults(*of_weights, *rest) for of_weights, rest in zip(bits, others, strict=True)]
        calibrate(frozen, transform, self.data, faults, how, found.neuralfuse.bits, seed)
        return transform

    def _layout(self, network: str, machine: str) -> Layout:
        return layout_of(self.placement(network, machine), self.folder.counts(machine, network))

    def _map(self, network: str, die: Die) -> FaultMap:
        return self._made(self.placement(network, die.accelerator).geometry, die)

    def _made(self, geometry: Geometry, die: Die, first_bank: int = 0) -> FaultMap:
        floor = self.study.voltage_floor - die.drift
        made = chip_map(self.study, geometry, die.structure, die.chip, floor, first_bank)
        return made.drifted(die.drift) if die.drift else made

    def now(self, die: Die) -> Die:
        """The die as it is in use, not as it was characterised."""
        return replace(die, drift=self.study.sram.drift)

    def _chip(self, network: str, die: Die, sram: tuple[str, ...]) -> StoredChip:
        placed = self.placement(network, die.accelerator)
        shield = protection.parse(sram or "none", self.layout(network, die.accelerator))
        return store(self.map(network, die), placed, self.network(network), shield)

    def _clean(self, network: str, name: str | None, fit: Fit | None = None, sample: Sample | None = None) -> Tensor:
        """Scores of the images where no bit reads wrong, as they are (None) or through a protection's generator."""
        images = self.images if name is None else self.inputs(network, name, fit, sample)
        self.without_faults(network)
        return self.scores(network, images, sample)

    def without_faults(self, network: str) -> None:
        """Take all faults from a network."""
        if isinstance(answers := self.answers(network), IntegerNetwork):
            answers.activations, answers.in_array = NOTHING_FAULTY, ()
        self.network(network).restore()
        if (cache := self.caches.get(self.network(network))) is not None:
            cache.restore()

    def scores(self, network: str, images: Tensor, sample: Sample | None = None) -> Tensor:
        """What the answers of a network with the faults that it has are worth, to images as they are or transformed:
        (n,)."""
        answers, labels = self._numbered(network, sample), self.labels[self.chosen(sample)]
        return evaluate.scores(self.metric(network), answers, images, labels, self.study.batch_size)

    def mean(self, scores: Tensor) -> float:
        """Of all test images, over what counts."""
        return scores.sum().item() / int(self.counted.sum())

    def logits(self, network: str, images: Tensor, sample: Sample | None = None) -> Tensor:
        """What a network with the faults that it has answers to images, those of a sample if there is one."""
        return evaluate.logits(self._numbered(network, sample), images, self.study.batch_size)

    def _numbered(self, network: str, sample: Sample | None) -> Callable[[Tensor], Tensor]:
        """What answers, told the number of the first image."""
        if isinstance(answers := self.answers(network), IntegerNetwork):
            answers.first_image = 0 if sample is None else sample.part[0]
        return answers

    def low_voltage(self, task: Task, die: Die, images: Tensor) -> Tensor:
        """What a task's network, behind its protection, answers to other images on a die as it was characterised."""
        point = task.point
        network, name = point.network, point.protection
        if (transform := self._fitted(network, name, self._fit(task))) is not None:
            images = evaluate.transform(transform, images, self.study.batch_size)
        self.put(task, die, epoch=None)
        return self.logits(network, images)

    def put(self, task: Task, die: Die, epoch: int | None = ACCESS) -> None:
        """Give a task's network the faults of a die, at an access or as it was characterised (None)."""
        network, name = task.point.network, task.point.protection
        chip = self.chip(network, die, self.study.protection(name).sram)
        voltage = supply_of(self.study, die.accelerator, task.at, "weights")
        self.network(network).set_faults(*chip.faults(voltage, epoch))
        if isinstance(answers := self.answers(network), IntegerNetwork):
            self.lowered.put(answers, network, die, name, task.at, epoch)
        self._put_kept(task, die, epoch)

    def _kept_map(self, network: str, die: Die) -> FaultMap:
        cache, bank = self.caches[self.network(network)], self.placement(network, die.accelerator).geometry.banks
        floor = dict(self.lowered.floors(die.accelerator))["cache"]
        return kept.kept_map(self.study, cache, die, floor, bank)

    def _put_kept(self, task: Task, die: Die, epoch: int | None = ACCESS) -> bool:
        """Give the keys and values that a network keeps the faults of a die; whether there are any."""
        if (cache := self.caches.get(self.network(task.point.network))) is None:
            return False
        voltage = supply_of(self.study, die.accelerator, task.at, "cache")
        raw = self.kept_map(task.point.network, die)
        return kept.put(self.study, cache, raw, task.point.protection, voltage, epoch)

    def _cost(
        self,
        network: str,
        machine: str,
        name: str,
        at: OperatingPoint,
        overheads: tuple[tuple[str, Overhead], ...],
        wrong: tuple[float, ...] | None,
        share: float,
    ) -> Cost:
        return self.folder.cost(network, machine, self.study.protection(name), at, dict(overheads), wrong, share)

    def _renormalised(self, network: str, faults: FaultyBits, how: BatchNormConfig, sample: Sample | None) -> Tensor:
        """Scores of the images with these faults and the statistics that BatchNorm finds with them."""
        faulty, chosen = self.unfolded(network), self.chosen(sample)
        faulty.set_faults(*faults)
        with own_statistics(faulty, self.data.train_x, how.batches, how.batch, self.study.seed):
            found = self.images[chosen], self.labels[chosen]
            return evaluate.scores(self.metric(network), faulty, *found, self.study.batch_size)

    def forecast(self, point: Point, at: OperatingPoint, chip: int) -> Cost:
        """What an inference costs, known without one: the same for all chips but where a protection gives each a
        supply of its own, or answers to sums that were late, of which the expected number counts."""
        die, protection = (
            self.now(Die(point.accelerator, point.structure, chip)),
            self.study.protection(point.protection),
        )
        overheads = {"weight_buffer": self.chip(point.network, die, protection.sram).overhead}
        if self.study.network(point.network).activations != "float":
            overheads |= self.lowered.overheads(point.network, die, point.protection)
        return self.folder.cost(point.network, point.accelerator, protection, at, overheads)

    def measure(self, task: Task) -> Result:
        """Accuracy of one chip at one operating point, with its rates and the energy of an inference."""
        start = time.perf_counter()
        point = task.point
        supply = functools.partial(supply_of, self.study, point.accelerator, task.at)
        voltage = supply("weights")
        model = self.network(point.network)
        protection = self.study.protection(point.protection)
        sample = None if task.images is None else Sample(task.chip, task.images)
        chosen, every = self.chosen(sample), self.clean(point.network, None)
        fit = self._fit(task)
        own = sample if fit is not None and fit.die is not None else None  # what one chip alone sees
        images = self.inputs(point.network, point.protection, fit, own)
        weight = self.second.weight(task) if protection.fused is not None else 0.0
        chip = self.chip(point.network, self.now(die_of(task)), protection.sram)
        faults = chip.faults(voltage, ACCESS)
        model.set_faults(*faults)
        flip_rate = 0.0 if protection.smaller is not None else model.flip_rate()
        others: Overheads = {}
        faulty_activations, late, wrong, share = 0.0, False, None, 1.0
        if isinstance(answers := self.answers(point.network), IntegerNetwork):
            die = self.now(die_of(task))
            others, faulty_activations = self.lowered.put(answers, point.network, die, point.protection, task.at)
            late = bool(answers.in_array)
        late = self._put_kept(task, self.now(die_of(task))) or late
        if protection.second is not None:
            asked = functools.partial(self.logits, point.network, images if own else images[chosen], sample)
            scores, share = self.second.answered(task, weight, chosen, asked)
        elif protection.batchnorm is not None:
            scores = self._renormalised(point.network, faults, protection.batchnorm, sample)
        elif flip_rate or faulty_activations or late:
            scores = self.scores(point.network, images if own else images[chosen], sample)
        else:  # the words are as written, and so are the answers: nothing to compute
            scores = self.clean(point.network, point.protection if protection.neuralfuse else None, fit, own)
            scores = scores if own else scores[chosen]
        if isinstance(answers, IntegerNetwork):
            wrong = found_wrong(answers)
        clean = every[chosen]
        overheads = {"weight_buffer": chip.overhead, **others}
        spent_on = tuple(overheads.items()), wrong, share
        cost = self.cost(point.network, point.accelerator, point.protection, task.at, *spent_on)
        names = {name: value for name, value in asdict(point).items() if name != "setup"}
        return Result(
            key=task.key,
            **names,
            rails=beside(self.study, point.accelerator, task.at),
            voltage=voltage,
            voltage_activations=supply("activations"),
            voltage_accumulators=supply("accumulators"),
            voltage_logic=supply("logic"),
            chip=task.chip,
            correct=scores.sum().item(),
            total=int(self.counted[chosen].sum()),
            correct_clean=clean.sum().item(),
            correct_both=torch.minimum(scores, clean).sum().item(),
            test_images=int(self.counted.sum()),
            clean_accuracy=self.mean(every),
            cell_fault_rate=chip.raw.cell_fault_rate(voltage),
            flip_rate=flip_rate,
            cell_fault_rate_activations=faulty_activations,
            **asdict(cost),
            seconds=time.perf_counter() - start,
            metric=self.study.metric,
        )


def die_of(task: Task) -> Die:
    """The die that a task runs on."""
    return Die(task.point.accelerator, task.point.structure, task.chip)


@functools.lru_cache(maxsize=1)
def bench_of(folder: str, stamp: str) -> Bench:
    """One bench per process; `stamp` changes when the folder's study or artifacts do."""
    return Bench(StudyFolder.open(folder))


def run_chunk(folder: str, tasks: list[Task]) -> list[Result]:
    """Measure tasks in a worker: the function that executors are given."""
    with threads(1):  # so that every executor gives the same rows; parallelism is over chips
        bench = bench_of(folder, stamp_of(folder))
        return [bench.measure(task) for task in tasks]
