"""What a second network at nominal supply answers in place of, or together with, the one at low voltage."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.metric import Metric
from neuralfuse.study import records
from neuralfuse.study.data import load_data
from neuralfuse.study.digest import digest, given
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.lowered import Die, last
from neuralfuse.study.supplies import supply_of
from neuralfuse.sweep.task import Task
from neuralfuse.training.fusion import fit_weight, fused, unsure
from neuralfuse.training.loop import random

FIRST_CHIP = FIRST_TRAINING_CHIP + 2 * 10**9  # no generator was trained on it, or watched on it


Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Known:
    """What a bench has of its study: the metric of each network, the test images, their labels, each network without a
    fault, and what the network of a task, behind its protection, answers to other images on a die."""

    folder: StudyFolder
    metric: Callable[[str], Metric]
    images: Tensor
    labels: Tensor
    nominal: Callable[[str], Model]
    low_voltage: Callable[[Task, Die, Tensor], Tensor]


class SecondNetworks:
    """Those of a study."""

    def __init__(self, known: Known):
        self.known, self.study = known, known.folder.study
        self.logits = last(4, self._logits)
        self.fitted_on = last(2, self._fitted_on)

    def _logits(self, network: str, fitted_on: int | None) -> Tensor:
        """Of a network without a fault: of all test images, or of so many training images."""
        images = self.known.images if fitted_on is None else self.fitted_on(fitted_on)[0]
        return evaluate.logits(self.known.nominal(network), images, self.study.batch_size)

    def _fitted_on(self, images: int) -> tuple[Tensor, Tensor]:
        """Training images and their labels, drawn by the study's seed."""
        data, device = load_data(self.study.dataset), self.study.device
        chosen = torch.randperm(len(data.train_y), generator=random(self.study.seed, -4))[:images]
        return data.train_x[chosen].to(device), data.train_y[chosen].to(device)

    def weight(self, task: Task) -> float:
        """How much the network at low voltage counts in a fusion at a task's point: read from the folder, or fitted to
        training images on training chips, or on the task's own chip as it was characterised."""
        point = task.point
        how = self.study.protection(point.protection).fused
        assert how is not None
        own = how.fit == "per_chip"
        of = digest([point.setup, given(task.at), task.chip if own else None])
        path = self.known.folder.fusion_file(point.network, point.protection, of)
        if path.is_file():
            return float(records.read(path, ["weight"])["weight"])
        chips = [task.chip] if own else [FIRST_CHIP + i for i in range(how.chips)]
        images, labels = self.fitted_on(how.images)
        low = [self.known.low_voltage(task, Die(point.accelerator, point.structure, chip), images) for chip in chips]
        found = fit_weight(self.logits(how.network, how.images), low, labels)
        at = {"structure": point.structure, "voltage": supply_of(self.study, point.accelerator, task.at, "weights")}
        records.write(path, {"weight": found, **at, "chips": chips, "images": len(labels)})
        return found

    def answered(
        self, task: Task, weight: float, chosen: Tensor | slice, low: Callable[[], Tensor]
    ) -> tuple[Tensor, float]:
        """Scores of the `chosen` test images, and the share that the network at low voltage was asked about;
        `low` gives its logits."""
        protection, labels = self.study.protection(task.point.protection), self.known.labels[chosen]
        assert protection.second is not None
        reliable, scores = self.logits(protection.second, None)[chosen], self.known.metric(protection.second)
        if protection.fused is not None:
            return scores(fused(reliable, low(), weight), labels), 1.0
        if protection.cascade is None:
            return scores(reliable, labels), 0.0
        passed = unsure(reliable, protection.cascade.threshold)
        answers = torch.where(passed[:, None], low(), reliable)
        return scores(answers, labels), int(passed.sum()) / len(labels)
