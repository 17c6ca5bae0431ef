"""Whether a generator repairs what the faults break, or paints the class that it sees.

F(x) = clip(x + d(x), -1, 1), and d is painted on other images. If the network then names the class of the image that d
was made for (swap), or of the images whose mean d it is (mean), then d carries the class, and the network reads it
there. How much of the class can be read in d without the network, a linear probe says: a lower bound.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from neuralfuse.analysis.kept import by_network, kept
from neuralfuse.quantized import evaluate
from neuralfuse.results.statistics import DIFFERENCE, SHARE, mean_interval
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import points_of
from neuralfuse.study.supplies import operating_points, supply_of
from neuralfuse.sweep.bench import Bench, die_of
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.task import Task
from neuralfuse.training.loop import random
from simulator.operating_point import OperatingPoint
from sram.errors import InputError

TRAINING_IMAGES = 2000  # that the means and the probe are of
OF_ALL_CHIPS = ["images", "clean", "clean_protected", "probe_painted", "probe_image"]  # the middle two: no faults
PROBE_C = 0.01  # of its L2 penalty, for pixels of unit variance: there are more of them than images


@dataclass(frozen=True)
class Reading:
    """What the network on one chip answers. Shares of the test images; of those pairs of images whose classes differ
    for `swap`, `swap_bare` and `mean`."""

    chip: int
    bare: float  # right without the generator
    protected: float  # right behind it
    one_for_all: float  # right with the mean of d over all training images, the same for each image
    swap: float  # with d of another image: the class of that image
    swap_bare: float  # without any d: the class of that image, by mistake
    mean: float  # with the mean of d over the training images of another class: that class
    agrees: float  # behind the generator: what the probe says of d
    agrees_wrong: float  # the same, of the images that the probe is wrong about; NaN where there are none


@dataclass(frozen=True)
class Painted:
    """What a generator paints, and what is known of it without a network on a chip."""

    after: Tensor  # F(x) of the test images
    d: Tensor  # F(x) - x
    means: Tensor  # of d over training images, class by class
    mean: Tensor  # over all of them
    probe: Tensor  # what the probe says of d of the test images: classes
    probe_painted: float  # how often that is right
    probe_image: float  # how often a probe of x itself is


def paint(transform: Callable[[Tensor], Tensor], test: tuple[Tensor, Tensor], train: tuple[Tensor, Tensor]) -> Painted:
    """What `transform` adds to the images (n, c, h, w) of `test`, with labels (n,); `train` gives means and probes."""
    (x, y), (fitted, labels) = test, train
    after, of_training = evaluate.transform(transform, x), evaluate.transform(transform, fitted) - fitted
    d = after - x
    classes = [of_training[labels == k] for k in range(int(labels.max()) + 1)]
    means = torch.stack([each.mean(0) if len(each) else torch.zeros_like(x[0]) for each in classes])
    probe = _probed(of_training, labels, d)
    of_image = _probed(fitted, labels, x)
    right = float((probe == y).float().mean()), float((of_image == y).float().mean())
    return Painted(after, d, means, of_training.mean(0), probe, *right)


def _probed(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """Classes of `test` by logistic regression on the pixels of `train`, all in units of one standard deviation."""
    unit = float(train.std()) or 1.0
    middle = train.mean(0)
    a, b = (((part - middle) / unit).flatten(1).cpu().numpy() for part in (train, test))
    found = LogisticRegression(C=PROBE_C, max_iter=2000).fit(a, labels.cpu().numpy()).predict(b)
    return torch.from_numpy(found).to(labels.device)


def read_chip(
    answers: Callable[[Tensor], Tensor], painted: Painted, x: Tensor, y: Tensor, chip: int, seed: int = 0
) -> Reading:
    """`answers(images)` are the classes that the network on a chip names; x, y the test images and their labels."""
    other = torch.randperm(len(y), generator=random(seed, -6)).to(y.device)
    apart = y != y[other]

    def share(found: Tensor, wanted: Tensor, of: Tensor | None = None) -> float:
        same = (found == wanted).float()
        return float((same if of is None else same[of]).mean())

    bare, protected = answers(x), answers(painted.after)
    swapped = answers((x + painted.d[other]).clamp(-1, 1))
    patterned = answers((x + painted.means[y[other]]).clamp(-1, 1))
    return Reading(
        chip,
        bare=share(bare, y),
        protected=share(protected, y),
        one_for_all=share(answers((x + painted.mean).clamp(-1, 1)), y),
        swap=share(swapped, y[other], apart),
        swap_bare=share(bare, y[other], apart),
        mean=share(patterned, y[other], apart),
        agrees=share(protected, painted.probe),
        agrees_wrong=share(protected, painted.probe, painted.probe != y),
    )


def generators(study: StudyConfig) -> list[ProtectionConfig]:
    """The protections that can be explained: one generator for all chips before the network at low voltage. InputError
    where there is none."""
    found = [p for p in study.protections if p.neuralfuse and not _of_a_chip(p) and p.second is None]
    if not found:
        names, allowed = [p.name for p in study.protections], "one generator at least that is trained for all chips"
        raise InputError(study.name, "protections", names, allowed)
    return found


def _of_a_chip(protection: ProtectionConfig) -> bool:
    fuse = protection.neuralfuse
    return fuse is not None and (fuse.calibrate is not None or fuse.own_faults is not None)


def point(study: StudyConfig, voltage: float | None = None) -> OperatingPoint:
    """Of the points of a study on its first accelerator the one of the lowest supplies, the weights' first; or of those
    with this one of the weights. InputError for a supply that the study has not."""
    machine = study.accelerators[0]
    points = operating_points(study, machine)
    if voltage is not None:
        supplies = [supply_of(study, machine, at, "weights") for at in points]
        points = tuple(at for at, own in zip(points, supplies, strict=True) if own == voltage)
        if not points:
            allowed = "a supply of the study: " + ", ".join(f"{v:g}" for v in sorted(set(supplies)))
            raise InputError("explain", "voltage", voltage, allowed)
    return min(points, key=lambda at: (supply_of(study, machine, at, "weights"), [s.voltage for s in at.supplies]))


@functools.lru_cache(maxsize=32)
def _painted(bench: Bench, network: str, name: str, voltage: float) -> tuple[Painted, dict[str, float]]:
    """And what is OF_ALL_CHIPS."""
    transform = bench.transform(network, name, voltage)
    assert transform is not None
    data, device = bench.data, bench.study.device
    chosen = torch.randperm(len(data.train_y), generator=random(bench.study.seed, -5))[:TRAINING_IMAGES]
    train = data.train_x[chosen].to(device), data.train_y[chosen].to(device)
    painted = paint(transform, (bench.images, bench.labels), train)
    bench.without_faults(network)
    both = (bench.images, painted.after)
    clean = [float((bench.logits(network, x).argmax(1) == bench.labels).float().mean()) for x in both]
    values = len(bench.labels), *clean, painted.probe_painted, painted.probe_image
    return painted, dict(zip(OF_ALL_CHIPS, values, strict=True))


def _of_folder(folder: str, network: str, chip: int, voltage: float) -> dict[str, dict]:
    """One evaluation chip of a prepared folder, behind each generator: what workers are given. Kept in the folder."""

    def read(bench: Bench) -> dict[str, dict]:
        study, found = bench.study, {}
        at, here = point(study, voltage), (network, study.accelerators[0], study.forms[0])
        points = {p.protection: p for p in points_of(bench.folder) if (p.network, p.accelerator, p.structure) == here}
        for protection in generators(study):
            task = Task(points[protection.name], chip, at)
            painted, known = _painted(bench, network, protection.name, supply_of(study, here[1], at, "weights"))
            bench.put(task, bench.now(die_of(task)))
            reading = read_chip(lambda images: bench.logits(network, images).argmax(1), painted, bench.images,
                                bench.labels, chip, study.seed)  # fmt: skip
            found[protection.name] = asdict(reading) | known
        bench.without_faults(network)
        return found

    return kept(folder, ["explain", network, chip, voltage, list(Reading.__dataclass_fields__), OF_ALL_CHIPS], read)


def measure(
    folder: StudyFolder,
    voltage: float | None,
    workers: Workers,
    advance: Callable[[int, int, dict[str, float]], None],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`summarise` of each generator before each network of a prepared study, over its evaluation chips at one supply;
    and what each chip said, a `Reading` a row."""
    study = folder.study
    at = point(study, voltage)
    supply = supply_of(study, study.accelerators[0], at, "weights")
    found = by_network(_of_folder, folder, study.chips.numbers, supply, workers, advance)
    rows, readings = [], []
    for network, chips in found.items():
        for protection in generators(study):
            table = pd.DataFrame([chip[protection.name] for chip in chips])
            where = {"network": network, "accelerator": study.accelerators[0], "structure": study.forms[0],
                     "protection": protection.name, "voltage": supply}  # fmt: skip
            rows.append(where | summarise(table))
            readings.append(table.assign(**where)[[*where, *Reading.__dataclass_fields__]])
    return pd.DataFrame(rows), pd.concat(readings, ignore_index=True)


def summarise(table: pd.DataFrame) -> dict[str, float]:
    """Means over the chips of `Reading`s in percent with their 95% intervals, `_low` and `_high`; what the generator
    wins (`gain`; `better`: on how many chips), and its mean over images (`gain_one_for_all`), in accuracy points,
    paired by chip; the accuracies without faults, and those of the probes.

    >>> two = [Reading(0, 0.5, 0.8, 0.5, 0.6, 0.1, 0.5, 0.7, 0.4), Reading(1, 0.4, 0.8, 0.4, 0.6, 0.1, 0.5, 0.7, 0.4)]
    >>> known = {"images": 9, "clean": 0.9, "clean_protected": 0.8, "probe_painted": 0.8, "probe_image": 0.3}
    >>> found = summarise(pd.DataFrame([asdict(one) | known for one in two]))
    >>> round(found["gain"], 6), round(found["swap"], 6), round(found["gain_one_for_all"], 6)
    (35.0, 60.0, 0.0)
    """
    found: dict[str, float] = {"images": int(table.images.iloc[0]), "chips": len(table)}
    shares = {name: table[name].to_numpy(dtype=float) for name in Reading.__dataclass_fields__ if name != "chip"}
    gains = {"gain": shares["protected"] - shares["bare"], "gain_one_for_all": shares["one_for_all"] - shares["bare"]}
    found["better"] = int((gains["gain"] > 0).sum())
    for name, values in (shares | gains).items():
        known = values[~np.isnan(values)]
        e = mean_interval(known, within=DIFFERENCE if name in gains else SHARE)
        found |= {name: 100 * e.mean, f"{name}_low": 100 * e.low, f"{name}_high": 100 * e.high}
    return found | {name: 100 * float(table[name].iloc[0]) for name in OF_ALL_CHIPS[1:]}
