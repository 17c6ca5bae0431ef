"""What the names of a study stand for before anything is trained: its images, its networks and transforms as they are
built, and the files behind them."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralfuse import data, networks
from neuralfuse.chips.stored import with_exponents
from neuralfuse.data.corruption import corrupted
from neuralfuse.data.inputs import content, fed
from neuralfuse.networks.normalised import normalised
from neuralfuse.networks.output import selected
from neuralfuse.quantized.metric import metric
from neuralfuse.study.config import DatasetConfig, NetworkConfig, NeuralFuseConfig, StudyConfig
from neuralfuse.transforms import features, generators
from neuralfuse.transforms.features import FeatureFuse
from neuralfuse.transforms.per_voltage import PerVoltage, level
from simulator.readers.read import trace
from simulator.workload import Workload
from sram import plugins
from sram.errors import InputError


def load_data(config: DatasetConfig) -> data.Dataset:
    """The dataset that a study names."""
    options = {} if config.size is None else {"size": config.size}
    return data.load(config.name, config.root, **options)


@dataclass(frozen=True)
class Kind:
    """What a network is told of a dataset, and what it takes and answers for one item (`data.Dataset`)."""

    classes: int
    channels: int | dict[str, int]
    input_shape: tuple[Any, ...]
    input_names: tuple[str, ...]  # where there are several
    output_shape: tuple[int, ...]
    are_images: bool
    are_labelled: bool
    are_classes: bool  # targets, not numbers


@functools.cache
def kind_of(config: DatasetConfig) -> Kind:
    """A worker asks for each network and each chip's transform, but reads files once."""
    found = load_data(config)
    inputs = found.in_channels, found.input_shape, found.input_names
    classes = not found.train_y.is_floating_point()
    return Kind(found.num_classes, *inputs, found.output_shape, found.are_images, found.are_labelled, classes)


def test_set(config: DatasetConfig) -> tuple[Tensor, Tensor]:
    """Images and labels that results are measured on, corrupted if the study says so."""
    dataset = load_data(config)
    if config.test_images is not None and config.test_images > len(dataset.test_y):
        raise InputError("study", "dataset.test_images", config.test_images, f"at most {len(dataset.test_y)}")
    x, y = dataset.test_x, dataset.test_y
    if (how := config.corruption) is not None:  # of all, so that an image's noise is the same in a sample
        x = corrupted(x, how.kind, how.severity, how.seed)
    if config.test_images is None:
        return x, y
    # Not the first: a folder of images, or a file made from one, is sorted by class.
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[: config.test_images]
    return x[chosen], y[chosen]


def training_hash(config: DatasetConfig) -> str:
    """Hash of the training images and their labels: what is trained on them follows their content."""
    root = Path(config.root or f"data/{config.name}")
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return _training_hash(config, tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@functools.lru_cache(maxsize=4)
def _training_hash(config: DatasetConfig, files: tuple) -> str:
    """The same; images are read again where one of `files` was written since."""
    dataset = load_data(config)
    total = hashlib.sha256(content(dataset.train_x))
    total.update(dataset.train_y.numpy().tobytes())
    return total.hexdigest()


def workload_of(network: nn.Module, config: NetworkConfig, study: StudyConfig) -> Workload:
    """The layers of a base network on the study's data, and what its words share."""
    return with_exponents(trace(network, kind_of(study.dataset).input_shape, name=config.name), network, config.words)


def build_network(config: NetworkConfig, study: StudyConfig) -> nn.Module:
    """The base network, not trained, for the study's data."""
    kind = kind_of(study.dataset)
    channels: Any = kind.channels
    taken = list((config.inputs or {}).values())
    if config.inputs is not None and not (set(taken) <= set(kind.input_names)):
        allowed = f"the inputs of {study.dataset.name}: {', '.join(kind.input_names) or 'one, without a name'}"
        raise InputError("study", f"networks.{config.name}.inputs", ", ".join(taken), allowed)
    if len(taken) == 1:
        channels = channels[taken[0]]
    built = networks.build(config.build or config.name, kind.classes, channels, seed=study.seed, **config.options)
    if kind.input_names:
        built = fed(built, kind.input_names, config.inputs, config.name)
    if config.output is not None:
        built = selected(built, config.output, config.name)
    mean, std = study.dataset.mean, study.dataset.std
    if mean is None or std is None:
        return built
    if len(mean) != channels:
        raise InputError("study", "dataset.mean", list(mean), f"{channels} numbers, one for each channel")
    return normalised(built, mean, std)


def build_transform(fuse: NeuralFuseConfig, study: StudyConfig) -> generators.NeuralFuse:
    """The input transform, not trained, for the study's images or features; with `per_voltage` all of its
    generators."""
    kind = kind_of(study.dataset)
    channels: Any = kind.channels  # of one input: a transform of several is refused
    wrap = generators.NeuralFuse if kind.are_images else FeatureFuse

    def make() -> nn.Module:
        if kind.are_images:
            _, height, width = kind.input_shape
            size = height, width
            return generators.build(fuse.generator, channels, seed=study.seed, size=size, **fuse.options)
        return features.build(fuse.generator, channels, seed=study.seed, **fuse.options)

    if fuse.per_voltage is None:
        return wrap(make())
    curve = study.curve
    levels = [level(curve, voltage) for voltage in fuse.train_voltages or ()]
    return wrap(PerVoltage(make, levels, fuse.per_voltage))


def metric_hashes(name: str) -> list[str]:
    """SHA-256 of the source of a metric that is one's own; none of those that are built in."""
    if ":" not in name:
        return []
    files = plugins.sources(metric(name).scores, name.partition(":")[0])
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


def content_hashes(*names: str | None) -> list[str]:
    """SHA-256 of the files behind the names of networks, generators and checkpoints, so that what is made from a file
    follows its content: a checkpoint or model file itself; the source of a `package.module:callable`, of its module and
    of the one that defines it. Built-in names have none.

    >>> content_hashes("resnet18", None), len(content_hashes("neuralfuse.networks:build"))
    ([], 1)
    """
    files: dict[str, None] = {}
    for name in names:
        if name is None:
            continue
        if Path(name).is_file():
            files[name] = None
        elif ":" in name:
            made = plugins.imported(name, "study")
            files |= dict.fromkeys(plugins.sources(made, name.partition(":")[0]))
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
